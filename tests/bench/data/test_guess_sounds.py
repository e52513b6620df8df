"""Tasks with sounds, guessed from their data."""

from pathlib import Path
from typing import Any

import datasets
import pyarrow.parquet as pq
import pytest

from moextend.bench.data import check_task, guess_task
from moextend.bench.task import TaskSpec
from tests.data.small import WriteJsonl, png, wav

WORDS = ["low note", "a high note", "two notes", "no note", "four of them", "five"]


def guess(data: Path, workspace: Path, **columns: str) -> TaskSpec:
    return guess_task(str(data), name="mine", workspace=workspace, columns=columns)


def rows(**changes: Any) -> list[dict[str, Any]]:
    """Rows of sounds; a list in `changes` has a cell per row."""
    cells = {name: value if isinstance(value, list) else [value] * 6 for name, value in changes.items()}
    return [{name: values[i] for name, values in cells.items()} for i in range(6)]


PATHS = [f"s{i}.wav" for i in range(6)]


@pytest.mark.parametrize(
    ("cells", "found"),
    [
        ({"audio": PATHS, "question": "what?", "answer": "low"},
         ("vqa", "audio", "question", "answer", "exact@1", "<audio>\n{question}\nAnswer the question using a single")),
        ({"file": PATHS, "id": PATHS, "text": WORDS},
         ("caption", "file", None, "text", "wer@1", "<audio>\nTranscribe the speech.")),
        ({"path": PATHS, "sentence": WORDS, "age": "", "locale": "en"},
         ("caption", "path", None, "sentence", "wer@1", "<audio>\nTranscribe the speech.")),
        ({"clip": PATHS, "label": ["low", "high"] * 3},
         ("vqa", "clip", None, "label", "exact@1", "<audio>\nWhat is it?")),
        ({"wav": PATHS, "language": ["en", "fr"] * 3, "seconds": 1.0},
         ("vqa", "wav", None, "language", "exact@1", "<audio>\nWhat is it?")),
        ({"speech": PATHS, "caption": WORDS},
         ("caption", "speech", None, "caption", "cider@1", "<audio>\nDescribe the sound in one sentence.")),
        ({"a": PATHS, "text": WORDS, "image": "p.png", "question": "same?", "answer": ["yes", "no"] * 3},
         ("vqa", "a", "question", "answer", "exact@1", "<image>\n<audio>\n{question}\nAnswer")),
    ],
)  # fmt: skip
def test_columns_of_sounds(
    cells: dict[str, Any],
    found: tuple[str | None, ...],
    recordings: Path,
    write_jsonl: WriteJsonl,
    workspace: Path,
) -> None:
    (recordings / "p.png").write_bytes(png())
    path = write_jsonl(recordings / "mine.jsonl", rows(**cells))
    task = guess(path, workspace)
    columns = task.columns
    assert (task.kind, columns.audio, columns.question, columns.answer, task.scorer) == found[:5]
    assert task.prompt.startswith(str(found[5])) and (columns.image is not None) == ("image" in cells)
    assert task.data and (task.data.train, task.data.test) == ("all[train]", "all[test]")


def test_a_column_of_datasets_audio(tmp_path: Path, workspace: Path) -> None:
    name = "recording"
    encoded = {"bytes": datasets.Value("binary"), "path": datasets.Value("string")}
    features = datasets.Features({name: encoded, "label": datasets.ClassLabel(names=["low", "high"])})
    values = [{name: {"bytes": wav(i), "path": None}, "label": i % 2} for i in range(6)]
    table = datasets.Dataset.from_list(values, features=features).cast_column(name, datasets.Audio())
    for split in ("train", "test"):
        pq.write_table(table.data.table, tmp_path / f"{split}.parquet")
    task = guess(tmp_path, workspace)
    assert (task.columns.audio, task.columns.answer, task.kind, task.scorer) == (
        name,
        "label",
        "vqa",
        "exact@1",
    )
    assert check_task(task, workspace).answer == "low"
