"""Logits at chosen positions are those of the family's own forward pass."""

import pytest
import torch

from moextend import heads

from .toy_families import CONFIGS, build, class_of, config_of, family

MORE = {"granitemoe": {"logits_scaling": 3.0}, "granitemoehybrid": {"logits_scaling": 3.0}}


WITH_HEAD = [name for name in CONFIGS if class_of(config_of(name)).__name__.endswith("ForCausalLM")]


@pytest.mark.parametrize("name", WITH_HEAD)
def test_the_head_is_the_familys_own(name: str) -> None:
    model = build(name, **MORE[name]) if name in MORE else family(name)
    ids = torch.randint(3, 64, (2, 7), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = model(ids).logits
        hidden = model.model(ids).last_hidden_state
    chosen = torch.tensor([[True, False, True, False, False, True, True]] * 2)
    torch.testing.assert_close(heads.logits(model, hidden), expected, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(heads.logits(model, hidden[chosen]), expected[chosen], atol=1e-5, rtol=1e-4)
