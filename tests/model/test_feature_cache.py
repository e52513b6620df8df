"""Image features are computed once, and a batch is in host memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from moextend import Conversation, ImageRef, MultimodalLM, Settings, extend, train
from moextend.model import feature_cache
from moextend.model.feature_cache import BATCH, FOLDER, Recent, kept_features
from tests.toys import ToyEncoder, picture, toy_model

DATA = [Conversation(((f"<image> w{i % 7}", f"w{i % 5 + 40}"),), (picture(i * 9),)) for i in range(24)]
SHORT = Settings(steps=12, batch_size=4, learning_rate=1e-2, checkpoint_steps=5)


class Counted(ToyEncoder):
    """Keeps what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[ImageRef] = []

    def forward(self, images: Sequence[ImageRef]) -> Tensor:
        self.seen += dict.fromkeys(images)
        return super().forward(images)


@pytest.fixture
def counted() -> tuple[MultimodalLM, Counted]:
    model = toy_model()
    model.modalities["image"].encoder = encoder = Counted()
    return model, encoder


def test_the_encoder_computes_full_batches_for_small_steps(model: MultimodalLM, tmp_path: Path) -> None:
    class Sizes(ToyEncoder):
        def __init__(self) -> None:
            super().__init__()
            self.batches: list[int] = []

        def forward(self, images: Sequence[ImageRef]) -> Tensor:
            self.batches.append(len(set(images)))
            return super().forward(images)

    model.learn_only(["modalities.image.projector.outer.bias"])
    for steps, batches in ((12, [16, 8]), (2, [8])):  # only what is drawn
        model.modalities["image"].encoder = encoder = Sizes()
        train(model, DATA, SHORT.model_copy(update={"steps": steps}), folder=tmp_path / "t")
        assert encoder.batches == batches and BATCH == 16


def test_all_of_a_call_encodes_an_image_once(counted: tuple[MultimodalLM, Counted], tmp_path: Path) -> None:
    model, encoder = counted
    extend(model, "mine", DATA, folder=tmp_path, probe_steps=3, settings=SHORT)
    assert len(encoder.seen) == len(set(encoder.seen)) == 24, "probe, training and statistics"
    assert model.modalities["image"].features is None and not (tmp_path / FOLDER).exists()


def test_an_interrupted_call_finds_its_features_again(
    counted: tuple[MultimodalLM, Counted], tmp_path: Path
) -> None:
    model, encoder = counted
    model.learn_only(["modalities.image.projector.outer.bias"])

    def stop(done: int, total: int) -> None:
        if done == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(model, DATA, SHORT, folder=tmp_path, on_step=stop)
    assert model.modalities["image"].features is None and len(encoder.seen) == 24
    train(model, DATA, SHORT, folder=tmp_path)
    assert len(encoder.seen) == 24


def test_no_disk_is_used_without_an_image_and_never_more_than_the_limit(
    model: MultimodalLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = [row.media[0] for row in DATA]
    expected = ToyEncoder()(images)
    with kept_features(model, tmp_path):
        assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(feature_cache, "DISK", 10 * (4 * 8 * 4 + 60))
    with kept_features(model, tmp_path):
        see = model.modalities["image"].see
        assert all(torch.equal(torch.stack(list(see(images))), expected) for _ in range(2))
        (data,) = tmp_path.glob(f"{FOLDER}/*/features.bin")
        assert data.stat().st_size == 10 * 4 * 8 * 4


def test_recent_features_are_bounded(model: MultimodalLM) -> None:
    encoder = Counted()
    images = [row.media[0] for row in DATA]
    see = Recent(encoder, limit=10 * 4 * 8 * 4)
    assert torch.equal(torch.stack(see([images[3], *images])), ToyEncoder()([images[3], *images]))
    assert len(encoder.seen) == 24
    see(images[-10:])
    assert len(encoder.seen) == 24
    see(images[:1])
    assert len(encoder.seen) == 25
