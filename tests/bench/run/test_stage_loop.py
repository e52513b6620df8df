"""Media are encoded before a training that uses all of them."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import moextend
from moextend.bench.methods.method import Stage
from moextend.bench.run import stage_loop
from moextend.bench.run.progress import Unit
from moextend.model.feature_cache import store_features
from moextend.training.settings import Training
from tests.data.small import png


@pytest.mark.parametrize(("steps", "known"), [(2, 0), (3, 6)])
def test_a_training_over_all_data_finds_its_features(
    steps: int, known: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two conversations a step: three steps use all six of them, and two do not."""
    model = moextend.load("tiny", vision="tiny")
    store_features(model, tmp_path)
    data = [
        moextend.Conversation((("<image>", "red"),), (moextend.ImageRef(png(shade)),)) for shade in range(6)
    ]
    found: list[int] = []

    def training(model: Any, data: Sequence[Any], settings: Any, **more: Any) -> Any:
        found.append(sum(len(path.read_bytes().splitlines()) for path in tmp_path.rglob("names.txt")))
        return SimpleNamespace(micro_batch=None, flops=None)

    monkeypatch.setattr(stage_loop, "train", training)
    settings = Training(steps=steps, batch_size=2, learning_rate=1e-3)
    context: Any = SimpleNamespace(sequence=SimpleNamespace(train=settings), micro_batch=None)
    progress: Any = SimpleNamespace(
        follow=lambda unit: None, finish=lambda unit: None, advance=lambda steps: None
    )
    stage = Stage(1, "colour", data, [], [], seed=0, folder=tmp_path)
    unit, watch = Unit("train", 1, "colour", steps), SimpleNamespace(tick=lambda: None)
    loop = stage_loop.StageLoop(context, progress, model, stage, {"train": unit}, watch)  # type: ignore[arg-type]
    loop()
    assert found == [known]
