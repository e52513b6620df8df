"""Parquet and Arrow files as memory-mapped rows: each file is copied once, under the digest of its content."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from moextend.data.digests import FileDigests
from moextend.errors import InputError
from moextend.util.files import atomic, sha256

BLOCK = 256
"""Rows that are converted, and lie together in the copy."""
SHOWN = 16
"""Hex digits of a digest, as in `FileDigests`."""


def arrow_rows(files: Sequence[Path], cache: Path) -> Any:
    """A `datasets.Dataset` of the rows of files, in copies below `cache` that can be read at any row.

    A copy is found by the content of its file, never by its path and time: a file that was replaced is read again, and
    a file that was moved is not copied again.
    """
    import datasets

    with FileDigests(cache) as known:
        copies = [_copy(path, cache / "rows", known) for path in files]
    return datasets.concatenate_datasets([datasets.Dataset.from_file(str(copy)) for copy in copies])


def _copy(path: Path, folder: Path, known: FileDigests) -> Path:
    """The copy of a file, named by the digests of the file and of itself."""
    import pyarrow

    digest = known.of(path)
    for copy in folder.glob(f"{digest}-*.arrow"):
        if copy.stem == f"{digest}-{known.of(copy)}":
            return copy
        copy.unlink()  # damaged
    with atomic(folder / f"{digest}.arrow") as temporary:
        schema, blocks = _blocks(path)
        # Text by number (pandas' categories) has a dictionary a block; `datasets` reads plain text.
        plain = pyarrow.schema([_plain(field) for field in schema], schema.metadata)
        with pyarrow.ipc.new_stream(str(temporary), plain) as out:
            for block in blocks:
                out.write_batch(block if plain == schema else block.cast(plain))
        if sha256(path)[:SHOWN] != digest:
            raise InputError("was replaced while it was read.", where=str(path), hint="Repeat the command.")
        copy = folder / f"{digest}-{sha256(temporary)[:SHOWN]}.arrow"
    (folder / f"{digest}.arrow").replace(copy)
    return copy


def _plain(field: Any) -> Any:
    import pyarrow

    return field.with_type(field.type.value_type) if pyarrow.types.is_dictionary(field.type) else field


def _blocks(path: Path) -> tuple[Any, Iterator[Any]]:
    """The schema of a file, and its rows in blocks; memory holds a few blocks."""
    import pyarrow
    from pyarrow import parquet

    if path.suffix.lower() == ".parquet":
        file = parquet.ParquetFile(path, pre_buffer=False)
        return file.schema_arrow, file.iter_batches(BLOCK)
    source = pyarrow.OSFile(str(path))
    try:
        stream = pyarrow.ipc.open_stream(source)
        return stream.schema, iter(stream)
    except pyarrow.ArrowInvalid:
        reader = pyarrow.ipc.open_file(path)
        return reader.schema, map(reader.get_batch, range(reader.num_record_batches))
