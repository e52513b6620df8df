"""Parts of the model that a failed call must not change."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from moextend.moe.attach import scope_of


def snapshot(lm: nn.Module) -> dict[str, Any]:
    """Modules with their classes, attributes, children and hooks, tensors by identity, flags, scope and generator."""
    return {
        "modules": {
            name: (id(m), type(m), {**vars(m)}.keys(), list(m._modules), list(m._forward_hooks.values()))
            for name, m in lm.named_modules()
        },
        "tensors": {
            name: (id(t), t.requires_grad) for name, t in (*lm.named_parameters(), *lm.named_buffers())
        },
        "values": {name: tensor.clone() for name, tensor in lm.state_dict().items()},
        "scope": copy.deepcopy(vars(scope_of(lm))),
        "generator": torch.get_rng_state().tolist(),
    }


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    values = one["values"], other["values"]
    return (
        all(one[key] == other[key] for key in one if key != "values")
        and list(values[0]) == list(values[1])
        and all(torch.equal(value, values[1][name]) for name, value in values[0].items())
    )


@contextmanager
def unchanged(lm: nn.Module) -> Iterator[None]:
    """Whatever happens within, the model is afterwards what it was."""
    before = snapshot(lm)
    yield
    after = snapshot(lm)
    for key in before:
        assert key == "values" or before[key] == after[key], key
    assert same(before, after)
