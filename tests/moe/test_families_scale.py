"""Memory of an extension, compilation, and blocks of real widths."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from transformers.initialization import no_init_weights

from moextend import (
    activate,
    attach,
    detach,
    new_parameters,
)
from moextend.moe.recipe import Mode
from moextend.moe.sites import find_sites
from tests.moe.test_families import shake
from tests.moe.toy_families import build, class_of, config_of, outputs

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


def test_the_measure_of_memory_sees_a_copy() -> None:
    with Live() as live:
        a = torch.zeros(1000)
        b = a.clone()
        del b
        a.clone()
    assert live.most == 8000


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


def test_a_compiled_block_has_the_same_gradients(compiler: None) -> None:
    lm = build("mixtral", num_hidden_layers=1)
    lm.set_experts_implementation("batched_mm")
    attach(lm, "a", {0: [1, 3]}, mode="paper")
    shake(lm, "a")
    block, new = find_sites(lm)[0].block, list(new_parameters(lm, "a").values())
    x = torch.randn(2, 5, 32, generator=torch.Generator().manual_seed(1))
    compiled = torch.compile(block, fullgraph=True, backend="aot_eager")
    plain = torch.autograd.grad(block(x).square().mean(), new)
    found = torch.autograd.grad(compiled(x).square().mean(), new)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(plain, found, strict=True))


# Real widths.

HEADS = {"num_attention_heads": 8, "num_key_value_heads": 8, "num_hidden_layers": 1, "vocab_size": 64}


WIDTHS: dict[str, dict[str, Any]] = {
    "mixtral": {"hidden_size": 4096, "intermediate_size": 14336, "num_local_experts": 2, "head_dim": 128},
    "olmoe": {
        "hidden_size": 2048, "intermediate_size": 1024, "num_experts": 16, "num_local_experts": 16,
        "num_experts_per_tok": 8,
    },
    "qwen3_moe": {
        "hidden_size": 2048, "moe_intermediate_size": 768, "num_experts": 16, "num_local_experts": 16,
        "num_experts_per_tok": 8, "head_dim": 128,
    },
    "deepseek_v3": {
        "hidden_size": 7168, "moe_intermediate_size": 2048, "n_routed_experts": 4, "first_k_dense_replace": 0,
        "num_local_experts": 4, "n_group": 2, "topk_group": 1,
    },
    "gpt_oss": {
        "hidden_size": 2880, "intermediate_size": 2880, "num_local_experts": 8, "num_experts_per_tok": 4,
        "head_dim": 64, "layer_types": ["full_attention"],
    },
    "glm4_moe": {
        "hidden_size": 4096, "moe_intermediate_size": 1408, "n_routed_experts": 6, "first_k_dense_replace": 0,
        "num_local_experts": 6, "head_dim": 128,
    },
}  # fmt: skip


def wide(name: str) -> Any:
    """A bfloat16 model of one layer at the family's real width, filled with a short random pattern."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with no_init_weights():
            config = config_of(name, **{**HEADS, **WIDTHS[name]})
            lm = class_of(config)(config).eval()
    finally:
        torch.set_default_dtype(before)
    pattern = torch.randn(4099, generator=torch.Generator().manual_seed(0)) * 0.05
    with torch.no_grad():
        for parameter in lm.parameters():
            count = parameter.numel()
            parameter.copy_(
                pattern.to(parameter.dtype).repeat(count // 4099 + 1)[:count].view(parameter.shape)
            )
    return lm.requires_grad_(False)


@pytest.mark.long  # blocks of up to a gigabyte and more
@pytest.mark.parametrize("name", WIDTHS)
def test_exact_at_real_widths(name: str) -> None:
    lm = wide(name)
    ids = torch.randint(3, 60, (2, 4), generator=torch.Generator().manual_seed(1))
    base = outputs(lm, ids)
    assert base.isfinite().all()
    attach(lm, "a", {0: [1]})
    assert torch.equal(outputs(lm, ids), base)
    with torch.no_grad():
        find_sites(lm)[0].experts.get_parameter("ext_groups.a.down_proj").fill_(0.01)
    assert not torch.equal(outputs(lm, ids), base)
    activate(lm, [])
    assert torch.equal(outputs(lm, ids), base)
    detach(lm, "a")
    attach(lm, "p", {0: [0]}, mode="paper")
    assert outputs(lm, ids).isfinite().all()
    detach(lm, "p")
    assert torch.equal(outputs(lm, ids), base)
