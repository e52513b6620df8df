"""Counted operations against operations from shapes."""

import pytest
import torch
import torch.nn.functional as F

import moextend
from moextend.training import flops


@pytest.mark.parametrize("implementation", ["eager", "grouped_mm", "batched_mm"])
def test_an_moe_forward_pass_costs_what_its_shapes_say(implementation: str) -> None:
    model = moextend.load("tiny").lm
    model.set_experts_implementation(implementation)
    c, rows, length = model.config, 8, 32
    tokens, hidden = rows * length, c.hidden_size
    width = hidden // c.num_attention_heads
    projections = 2 * hidden * (2 * c.num_attention_heads + 2 * c.num_key_value_heads) * width
    attention = 4 * length * c.num_attention_heads * width
    experts = c.num_experts_per_tok * 6 * hidden * c.intermediate_size
    router = 2 * hidden * c.num_local_experts
    per_token = c.num_hidden_layers * (projections + attention + experts + router) + 2 * hidden * c.vocab_size
    with torch.no_grad(), flops.Counter() as count:
        model(torch.randint(5, 100, (rows, length)))
    assert count.total == pytest.approx(tokens * per_token, rel=0.001)


def test_attention_backward_is_counted() -> None:
    q, k, v = (torch.randn(2, 3, 16, 8, requires_grad=True) for _ in range(3))
    with flops.Counter() as forward:
        out = F.scaled_dot_product_attention(q, k, v)
    with flops.Counter() as backward:
        torch.autograd.backward(out.sum())
    product = 2 * 2 * 3 * 16 * 16 * 8
    assert forward.total == 2 * product
    assert backward.total == 5 * product, "scores again, and four gradients"
