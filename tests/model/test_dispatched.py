"""A model that is spread over devices after its extensions are in it answers as on one device."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from accelerate import dispatch_model

import moextend
from moextend import MultimodalLM, Prompt, generate
from moextend.model.generation import choice_likelihoods
from tests.toys import picture, toy_model

PLACES = {
    "model.embed_tokens": "cpu", "model.layers.0": "cpu", "model.layers.1": "disk", "model.layers.2": "disk",
    "model.norm": "cpu", "model.rotary_emb": "cpu", "lm_head": "cpu",
}  # fmt: skip
PROMPTS = [Prompt(f"<image> w{i}", (picture(i * 20, 9),)) for i in range(4)]


def answers(model: MultimodalLM) -> tuple[list[str], list[tuple[float, ...]]]:
    return (
        generate(model, PROMPTS, max_new_tokens=4, batch_size=2),
        choice_likelihoods(model, PROMPTS, [["w1", "w2"]] * 4, batch_size=4),
    )


@pytest.mark.parametrize("mode", ["exact", "paper"])
def test_layers_on_disk_answer_with_their_extensions(tmp_path: Path, mode: str) -> None:
    model = toy_model()
    without = answers(model)
    moextend.attach(model.lm, "a", {0: [1], 2: [0]}, mode=mode)  # type: ignore[arg-type]
    drawn = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in moextend.new_parameters(model.lm, "a").values():
            parameter.add_(torch.randn(parameter.shape, generator=drawn))
    expected = answers(model)
    assert expected != without
    dispatch_model(model.lm, PLACES, main_device="cpu", offload_dir=str(tmp_path))
    assert {parameter.device.type for parameter in model.lm.parameters()} == {"cpu", "meta"}
    assert answers(model) == expected
    moextend.activate(model.lm, [])
    assert answers(model) == without
