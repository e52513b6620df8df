"""A cell may name an image in the folders of the data, but no other file of the machine."""

from pathlib import Path

import pytest

from moextend.bench.data import data_digest, open_items
from moextend.errors import InputError
from tests.bench.data.conftest import MakeTask
from tests.data.small import MakePng, MakeRows, WriteJsonl


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
    for look in (lambda: open_items(task, "test", workspace)[0].media[0].read(),
                 lambda: data_digest(task, "test", workspace)):  # fmt: skip
        with pytest.raises(InputError, match=refused):
            look()
    allowed = make_task(path, train=None, test="all", data={"images": str(secret.parent)})
    assert open_items(allowed, "test", workspace)[0].media[0].read() == make_png(9)
    assert data_digest(allowed, "test", workspace)


@pytest.mark.parametrize("named", ["x" * 10_000, "a\0b.png", "/dev/zero", "."])
def test_anything_but_a_regular_file_is_refused(
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
        open_items(task, "test", workspace)[0].media[0].open()
    assert len(str(caught.value)) < 1500
