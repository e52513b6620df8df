"""Files of JSON lines as columns."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moextend.bench.score.lines import DistinctLines
from moextend.errors import SpecError


@pytest.fixture
def parsed() -> list[Any]:
    """The records that were parsed."""
    return []


@pytest.fixture
def reader(parsed: list[Any]) -> DistinctLines:
    def columns(records: list[Any]) -> list[np.ndarray[Any, Any]]:
        parsed.extend(records)
        return [np.array([one["a"] for one in records], np.int32)]

    return DistinctLines(columns)


def written(path: Path, values: list[int]) -> Path:
    path.write_text("".join(json.dumps({"a": value}) + "\n" for value in values))
    return path


def test_a_line_that_occurs_again_is_parsed_once(
    reader: DistinctLines, parsed: list[Any], tmp_path: Path
) -> None:
    first, second = written(tmp_path / "1", [3, 1, 3]), written(tmp_path / "2", [1, 2, 3])
    assert reader.read(first)[0].tolist() == [3, 1, 3]
    assert reader.read(second)[0].tolist() == [1, 2, 3]
    assert reader.read(first)[0].tolist() == [3, 1, 3]
    assert [one["a"] for one in parsed] == [3, 1, 2]


def test_a_damaged_line_is_named_by_its_number(reader: DistinctLines, tmp_path: Path) -> None:
    reader.read(written(tmp_path / "x", [1, 2]))
    (tmp_path / "x").write_text('{"a": 1}\n{"a": 2}\n{"a": 3}\n{"a": \n{"a": 4}\n')
    with pytest.raises(SpecError, match="not valid JSON") as caught:
        reader.read(tmp_path / "x")
    assert str(caught.value.where) == f"{tmp_path / 'x'}:4"
    assert reader.read(written(tmp_path / "x", [2, 3]))[0].tolist() == [2, 3]
