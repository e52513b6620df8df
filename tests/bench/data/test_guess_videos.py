"""Tasks with videos, and with several media, guessed from their data."""

from pathlib import Path
from typing import Any

import pytest

from moextend.bench.data import guess_task
from moextend.bench.task import TaskSpec
from moextend.bench.workspace.new_task import as_yaml
from tests.data.small import WriteJsonl


def guess(data: Path, columns: dict[str, str], **how: Any) -> TaskSpec:
    return guess_task(str(data), name="mine", workspace=data.parent, columns=columns, **how)


def rows(**cells: Any) -> list[dict[str, Any]]:
    return [
        {name: value[i % len(value)] if isinstance(value, list) else value for name, value in cells.items()}
        for i in range(6)
    ]


BOTH = rows(image="p.png", sound="s.wav", question="what?", color=["red", "blue"], shape=["box", "ball"])


@pytest.mark.parametrize(
    ("columns", "encoders", "media"),
    [
        ({"image": "image", "answer": "color"}, None, {"image": "image"}),
        ({"audio": "sound", "answer": "shape"}, None, {"audio": "sound"}),
        ({"answer": "color"}, ["image", "audio"], {"image": "image", "audio": "sound"}),
        ({"answer": "color"}, ["image"], {"image": "image"}),
        ({"answer": "shape"}, ["audio"], {"audio": "sound"}),
        ({"answer": "shape"}, [], {"image": "image", "audio": "sound"}),
    ],
)
def test_media_that_are_not_named_or_not_read_are_left_out(
    columns: dict[str, str], encoders: Any, media: dict[str, str], tmp_path: Path, write_jsonl: WriteJsonl
) -> None:
    notes: list[str] = []
    path = write_jsonl(tmp_path / "both.jsonl", BOTH)
    task = guess(path, columns, encoders=encoders, on_note=notes.append)
    assert task.columns.by_modality == media
    assert all((f"<{name}>" in task.prompt) == (name in media) for name in ("image", "audio"))
    assert len(notes) == (len(encoders or []) == 1)


@pytest.mark.parametrize(
    ("name", "files", "video"),
    [
        ("clip", ["a.mp4", "b.gif", "c.webm"], True), ("clip", ["b.gif", "c.MOV"], True), ("x", ["a.mkv"], True),
        ("clip", ["a.gif"], True), ("image", ["a.gif"], False),
    ],
)  # fmt: skip
def test_videos_are_found_by_their_endings(
    name: str, files: list[str], video: bool, tmp_path: Path, write_jsonl: WriteJsonl
) -> None:
    path = write_jsonl(tmp_path / "v.jsonl", rows(**{name: files}, question="what?", color=["red", "blue"]))
    task = guess(path, {"answer": "color"})
    assert task.columns.by_modality == {"video" if video else "image": name}
    assert task.prompt.startswith("<video>\n{question}" if video else "<image>\n")
    assert ("image:" in as_yaml(task)) != video
