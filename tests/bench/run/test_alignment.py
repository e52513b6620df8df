"""The alignment of a projector within a run."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest

import moextend
import moextend.training.loop
from moextend.bench.run import alignment, models
from moextend.bench.run.progress import Progress, Unit
from moextend.bench.sequence import Align
from moextend.bench.task import Data, TaskSpec
from moextend.data.examples import Columns


def test_the_alignment_shows_its_true_step_after_a_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def align(*_: object, on_step: Callable[[int, int], None], **__: object) -> None:
        for done in (301, 302):
            on_step(done, 400)

    unit, seen = Unit("align", 0, "captions", 400), list[int]()
    monkeypatch.setattr(alignment, "align", align)
    monkeypatch.setattr(moextend, "load", lambda *_, **__: SimpleNamespace(modalities={}))
    for name in ("conversations", "data_digest"):
        monkeypatch.setattr(models, name, lambda *_: "")
    monkeypatch.setattr(models, "base_revision", lambda *_: None)
    monkeypatch.setattr(models, "encoder_revisions", lambda *_: nullcontext())
    context = MagicMock()
    context.config.device = "cpu"
    context.sequence.align = (SimpleNamespace(task="captions", steps=400),)
    context.sequence.base.upcycle = None
    context.sequence.base.model = "tiny"
    context.sequence.base.encoders_in.return_value = {}
    context.tasks = {"captions": TaskSpec(task="captions", version=1, kind="caption", data=Data(path="x"))}
    with Progress(tmp_path, [unit]) as progress:

        def advance(steps: int = 1) -> None:
            Progress.advance(progress, steps)
            if steps:
                seen.append(progress.status().step)

        monkeypatch.setattr(progress, "advance", advance)
        models.base(context, progress)
    assert seen == [301, 302]


def test_other_columns_or_rows_of_the_captions_are_another_projector(monkeypatch: pytest.MonkeyPatch) -> None:
    names: list[str] = []
    monkeypatch.setattr(alignment, "align", lambda *_, data_name, **__: names.append(data_name))
    monkeypatch.setattr(models, "data_digest", lambda *_: "of the files")
    monkeypatch.setattr(models, "conversations", lambda *_: [])
    base = TaskSpec(task="captions", version=1, kind="caption", data=Data(path="x"))
    for change in (
        {},
        {"licence": "CC0"},
        {"columns": Columns(answer="long")},
        {"data": Data(path="x", shuffle=True)},
        {"prompt": "<image> Say it:"},
    ):
        context = MagicMock()
        context.tasks = {"captions": base.model_copy(update=change)}
        models._align(
            context, MagicMock(), Align(task="captions", steps=1, batch_size=1, learning_rate=1e-3), None
        )
    assert names[0] == names[1] and len(set(names)) == 4
