"""Memory of an extension, compilation, and blocks of real widths."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from moextend import (
    attach,
    new_parameters,
)
from moextend.moe.recipe import Mode
from tests.moe.toy_families import build
from tests.toys import shake

# Memory.


class Live(TorchDispatchMode):
    """Bytes of tensors made inside that live at the same time, at most."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.most = 0
        self.seen: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        given = {a.untyped_storage()._cdata for a in args if isinstance(a, Tensor)}
        for tensor in out if isinstance(out, (tuple, list)) else (out,):
            if not isinstance(tensor, Tensor):
                continue
            storage = tensor.untyped_storage()
            key, size = storage._cdata, storage.nbytes()
            if key in given or key in self.seen:
                continue
            self.seen.add(key)
            self.now += size
            self.most = max(self.most, self.now)
            weakref.finalize(storage, self.gone, key, size)
        return out

    def gone(self, key: int, size: int) -> None:
        self.seen.discard(key)
        self.now -= size


@pytest.mark.parametrize("mode", ["exact", "paper"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_attaching_takes_the_memory_of_the_new_parameters(mode: Mode, dtype: torch.dtype) -> None:
    lm = build("mixtral", hidden_size=128, intermediate_size=256).to(dtype)
    with Live() as live:
        attach(lm, "a", {0: [1], 1: [0, 3]}, mode=mode)
    new = sum(p.numel() * p.element_size() for p in new_parameters(lm, "a").values())
    assert new <= live.most <= 1.05 * new


# Compiled whole.


@pytest.fixture
def compiler() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize("mode", ["exact", "paper", "slot"])
def test_the_extended_model_compiles_without_a_graph_break(mode: Mode, ids: Tensor, compiler: None) -> None:
    lm = build("mixtral", num_hidden_layers=1)
    lm.set_experts_implementation("batched_mm")  # the eager loop of transformers breaks the graph by itself
    attach(lm, "a", {0: [1, 3]}, mode=mode)
    shake(lm, "a")
    compiled: Callable[..., Any] = torch.compile(lm, fullgraph=True, backend="eager")
    with torch.no_grad():
        assert torch.allclose(
            compiled(ids, use_cache=False).logits, lm(ids, use_cache=False).logits, atol=1e-5
        )


# Real widths.
