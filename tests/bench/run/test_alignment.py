"""The alignment of a projector within a run."""

from __future__ import annotations

from unittest.mock import MagicMock

import pytest

from moextend.bench.run import models, shared
from moextend.bench.sequence import Align
from moextend.bench.task import Data, TaskSpec
from moextend.data.examples import Columns


def test_other_columns_or_rows_of_the_captions_are_another_projector(monkeypatch: pytest.MonkeyPatch) -> None:
    names: list[str] = []
    monkeypatch.setattr(shared, "align", lambda *_, data_name, **__: names.append(data_name))
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
