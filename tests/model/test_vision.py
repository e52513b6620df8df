"""Loading of image encoders, and their tokens."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import moextend
from moextend.model.vision import load_encoder
from tests.toys import noise


def test_the_encoder_sees_the_same_in_a_model_that_trains() -> None:
    model = moextend.load("tiny", vision="tiny")
    encoder: Any = model.modalities["image"].encoder
    drawn = random.Random(0)
    images = [noise(drawn) for _ in range(64)]
    before = encoder(images)
    model.train()
    assert not any(module.training for module in encoder.modules())
    assert torch.equal(encoder(images), before)


@pytest.mark.parametrize("name", ["tiny", "timm:test_efficientnet"])
def test_how_images_become_square(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The sides of a wide image are cut off, or seen, depending on the pre-processing."""
    if name.startswith("timm"):
        import timm

        weights = tmp_path / "weights.pt"
        torch.save(timm.create_model("test_efficientnet").state_dict(), weights)
        name = f"{name}/{weights}"
    wide = Image.new("RGB", (400, 100), (0, 0, 0))
    wide.paste((255, 255, 255), (0, 0, 100, 100))
    seen = {}
    prints = set()
    for resize in ("shortest", "longest", "squash"):
        encoder = load_encoder(name, resize=resize)
        pixels = encoder.preprocess(wide)
        seen[resize] = float(pixels[:, pixels.shape[1] // 2].max()), pixels
        prints.add(encoder.fingerprint())
    assert seen["shortest"][0] < seen["squash"][0], "the white end is cut off"
    assert seen["longest"][0] == pytest.approx(seen["squash"][0], abs=0.2)
    assert len(prints) == 3, "features of one way are never taken for those of another"
