"""A model is loaded to a GPU and trained there in bfloat16."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import moextend
from moextend import Conversation, Settings, attach, new_parameters, train
from tests.toys import picture

pytestmark = pytest.mark.gpu
DEVICE = "cuda"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_loaded_model_trains_two_steps_in_bfloat16(dtype: str, tmp_path: Path) -> None:
    model = moextend.load("tiny", vision="tiny", dtype=dtype, device=DEVICE)
    attach(model.lm, "a", {0: [1], 2: [0]})
    assert {p.device.type for p in model.parameters()} == {DEVICE}
    assert {p.dtype for p in model.lm.parameters() if not p.requires_grad} == {getattr(torch, dtype)}
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    new = {id(p) for p in new_parameters(model.lm, "a").values()}
    data = [Conversation((("<image> what color ?", "red"),), (picture(40 * i),)) for i in range(4)]
    settings = Settings(steps=2, batch_size=2, learning_rate=1e-2, warmup=0.0, bf16=True)
    report = train(model, data, settings, folder=tmp_path / "training")
    assert 0 < report.loss_last < 100
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    learning = {name for name, p in model.named_parameters() if id(p) in new}
    assert moved and moved <= learning, "what is frozen keeps its bits"
    assert all(
        p.isfinite().all() and p.dtype == torch.float32 for p in new_parameters(model.lm, "a").values()
    )
