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
from moextend.bench.task import Data, TaskSpec


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
    context.sequence.alignments = (SimpleNamespace(task="captions", steps=400),)
    context.sequence.base.upcycle = None
    context.sequence.base.encoders_in.return_value = {}
    context.tasks = {"captions": TaskSpec(task="captions", version=1, kind="caption", data=Data(path="x"))}
    with Progress(tmp_path, [unit]) as progress:

        def advance() -> None:
            Progress.advance(progress)
            seen.append(progress.status().step)

        monkeypatch.setattr(progress, "advance", advance)
        models.base(context, progress)
    assert seen == [301, 302]
