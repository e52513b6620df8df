"""A cell may name an image in the folders of the data, but no other file of the machine."""

import json
from pathlib import Path

import pytest

from moextend.data import cells
from moextend.data.images import ImageRef
from moextend.data.own import own_data
from moextend.errors import InputError
from tests.data.small import MakePng


@pytest.fixture
def secret(tmp_path: Path, make_png: MakePng) -> Path:
    """An image that lies outside the folder of the data."""
    (tmp_path / "private").mkdir()
    (tmp_path / "private" / "secret.png").write_bytes(make_png(9))
    return tmp_path / "private" / "secret.png"


def test_a_command_names_the_folder_of_its_images(
    secret: Path, pictures: Path, make_png: MakePng, tmp_path: Path
) -> None:
    path = pictures / "own.json"
    path.write_text(json.dumps([{"image": str(secret), "question": "what?", "answer": "red"}] * 20))
    with pytest.raises(InputError, match=r"outside the folder of the data\. .*--images"):
        own_data(str(path), tmp_path, columns={})[0].media[0].read()
    rows = own_data(str(path), tmp_path, columns={}, images=secret.parent)
    assert rows[0].media[0].read() == make_png(9)


def test_data_of_the_hub_name_no_file_of_the_machine(
    secret: Path, monkeypatch: pytest.MonkeyPatch, make_png: MakePng
) -> None:
    monkeypatch.chdir(secret.parent)
    for named in ("secret.png", str(secret), {"bytes": None, "path": str(secret)}):
        (ref,) = cells.media(ImageRef, named, where="hub:x/y (test): row 1", folders=())
        with pytest.raises(InputError, match=r"row 1: .*outside the folder of the data"):
            ref.open()
    monkeypatch.setattr(cells, "hub_caches", lambda: (secret.parent,))
    (ref,) = cells.media(ImageRef, {"bytes": None, "path": str(secret)}, where="row 1", folders=())
    assert ref.read() == make_png(9), "where the hub's libraries put it"
