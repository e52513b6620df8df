"""New folders that are complete or absent."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from moextend.model.loading import check_new
from moextend.util import files


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Context with a temporary folder beside `folder`, which becomes `folder` at the end and is removed on failure.

    Raises:
        InputError: the folder exists and is not empty, or the disk is full.
    """
    folder = folder.absolute()
    check_new(folder)
    with files.disk_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as temporary:
            made = Path(temporary) / folder.name
            made.mkdir()
            yield made
            made.replace(folder)
