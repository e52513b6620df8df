"""A cell of the data may name an image of the data's folders, and nothing else of the machine."""

import json
from pathlib import Path

import pytest

from moextend.bench.data import data_digest, open_items
from moextend.bench.run.stage_data import own_data
from moextend.data import cells
from moextend.errors import InputError
from tests.bench.data.conftest import MakePng, MakeRows, MakeTask, WriteJsonl


@pytest.fixture
def secret(tmp_path: Path, make_png: MakePng) -> Path:
    """An image that lies outside the folder of the data."""
    (tmp_path / "private").mkdir()
    (tmp_path / "private" / "secret.png").write_bytes(make_png(9))
    return tmp_path / "private" / "secret.png"


@pytest.mark.parametrize("named", ["../private/secret.png", "{secret}", "link.png", "linked/secret.png"])
def test_an_image_outside_the_folder_is_refused(
    named: str,
    secret: Path,
    pictures: Path,
    make_rows: MakeRows,
    make_task: MakeTask,
    make_png: MakePng,
    write_jsonl: WriteJsonl,
    workspace: Path,
) -> None:
    (pictures / "link.png").symlink_to(secret)
    (pictures / "linked").symlink_to(secret.parent)
    values = [row | {"picture": named.format(secret=secret)} for row in make_rows(2)]
    path = write_jsonl(pictures / "all.jsonl", values)
    task = make_task(path, train=None, test="all")
    refused = (
        r"all\.jsonl:1: column 'picture': .*the image lies outside the folder of the data\. .*data\.images"
    )
    for look in (lambda: open_items(task, "test", workspace)[0].images[0].read(),
                 lambda: data_digest(task, "test", workspace)):  # fmt: skip
        with pytest.raises(InputError, match=refused):
            look()
    allowed = make_task(path, train=None, test="all", data={"images": str(secret.parent)})
    assert open_items(allowed, "test", workspace)[0].images[0].read() == make_png(9)
    assert data_digest(allowed, "test", workspace)


def test_a_command_names_the_folder_of_its_images(
    secret: Path, pictures: Path, make_png: MakePng, workspace: Path
) -> None:
    path = pictures / "own.json"
    path.write_text(json.dumps([{"image": str(secret), "question": "what?", "answer": "red"}] * 20))
    with pytest.raises(InputError, match=r"outside the folder of the data\. .*--images"):
        own_data(str(path), workspace, columns={}, template=None)[0].images[0].read()
    rows = own_data(str(path), workspace, columns={}, template=None, images=secret.parent)
    assert rows[0].images[0].read() == make_png(9)


def test_data_of_the_hub_name_no_file_of_the_machine(
    secret: Path, monkeypatch: pytest.MonkeyPatch, make_png: MakePng
) -> None:
    monkeypatch.chdir(secret.parent)
    for named in ("secret.png", str(secret), {"bytes": None, "path": str(secret)}):
        (ref,) = cells.images(named, where="hub:x/y (test): row 1", folders=())
        with pytest.raises(InputError, match=r"row 1: .*outside the folder of the data"):
            ref.open()
    monkeypatch.setattr(cells, "hub_caches", lambda: (secret.parent,))
    (ref,) = cells.images({"bytes": None, "path": str(secret)}, where="row 1", folders=())
    assert ref.read() == make_png(9), "where the hub's libraries put it"


@pytest.mark.parametrize("named", ["x" * 10_000, "a\0b.png", "/dev/zero", "."])
def test_what_is_no_file_is_refused(
    named: str,
    pictures: Path,
    make_rows: MakeRows,
    make_task: MakeTask,
    write_jsonl: WriteJsonl,
    workspace: Path,
) -> None:
    path = write_jsonl(pictures / "all.jsonl", [row | {"picture": named} for row in make_rows(2)])
    task = make_task(path, train=None, test="all", data={"images": "/"})
    with pytest.raises(InputError, match=r"all\.jsonl:1: column 'picture': ") as caught:
        open_items(task, "test", workspace)[0].images[0].open()
    assert len(str(caught.value)) < 1500
