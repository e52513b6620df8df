"""A file that is replaced by one of the same size and modification time is read again."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet

from moextend.bench.data import data_digest, open_items
from moextend.data.own import own_data
from tests.bench.data.conftest import MakeTask


def written(path: Path, answers: str) -> None:
    rows: list[dict[str, Any]] = [
        {"qid": f"q{i}", "ask": f"what is {i}", "reply": {"r": "red", "t": "tan"}[answer]}
        for i, answer in enumerate(answers)
    ]
    table = pa.Table.from_pylist(rows)
    if path.suffix == ".parquet":
        parquet.write_table(table, path, compression="none", use_dictionary=False, write_statistics=False)
    elif path.suffix == ".arrow":
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as stream:
            stream.write_table(table)
    elif path.suffix == ".csv":
        pd.DataFrame(rows).to_csv(path, index=False)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        path.write_text(json.dumps(rows))


def replaced(path: Path, answers: str, rename: bool) -> None:
    """Writes other rows, in place or as a new file, with the same size and times."""
    before = path.stat()
    other = path.with_name(f"other{path.suffix}") if rename else path
    written(other, answers)
    other.replace(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = path.stat()
    assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)


@pytest.mark.parametrize("rename", [False, True])
@pytest.mark.parametrize("suffix", [".parquet", ".arrow", ".json", ".jsonl", ".csv"])
def test_tasks_and_own_data_read_the_new_rows(
    suffix: str, rename: bool, tmp_path: Path, workspace: Path, make_task: MakeTask
) -> None:
    path = tmp_path / f"rows{suffix}"
    written(path, "rtrtrt")
    long_ago = 1_600_000_000
    os.utime(path, (long_ago, long_ago))
    columns = {"image": "null", "question": "ask", "answer": "reply"}
    task = make_task(
        path,
        train="all",
        test="all",
        columns={"question": "ask", "answer": "reply", "image": None, "group": None, "kind": None},
    )

    def found() -> tuple[str, str, str]:
        items = "".join(item.answers[0][0] for item in open_items(task, "test", workspace))
        own = own_data(str(path), workspace / "own", columns=columns)
        return items, "".join(row.turns[0][1][0] for row in own), str(data_digest(task, "test", workspace))

    first = found()
    assert first[:2] == ("rtrtrt", "rtrtrt")
    replaced(path, "ttrrtr", rename)
    second = found()
    assert second[:2] == ("ttrrtr", "ttrrtr") and second[2] != first[2]
    replaced(path, "rtrtrt", rename)
    assert found() == first
