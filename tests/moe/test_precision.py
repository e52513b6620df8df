"""The dtype of every product of experts, and synchronisation with the device in a forward pass."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from moextend import attach, new_parameters
from moextend.moe import kernels, routing
from moextend.moe.recipe import Mode
from moextend.moe.sites import find_sites
from tests.moe.test_families import use
from tests.moe.toy_families import VOCABULARY, build
from tests.toys import shake

IMPLEMENTATIONS = ("eager", "batched_mm", "grouped_mm")
IDS = torch.randint(3, VOCABULARY, (3, 8), generator=torch.Generator().manual_seed(1))
PRODUCTS = ("mm", "bmm", "addmm", "baddbmm", "_grouped_mm", "linear", "grouped_mm_fallback")


class Seen(TorchDispatchMode):
    """Keeps what was called inside: dtypes of matrix products, and what waits for the device."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.products: list[tuple[str, set[torch.dtype]]] = []
        self.waits: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.split("::")[1]
        if name in PRODUCTS:
            self.products.append(
                (name, {a.dtype for a in args if isinstance(a, Tensor) and a.is_floating_point()})
            )
        elif name in ("_local_scalar_dense", "item", "nonzero", "lift_fresh"):
            self.waits.append(name)  # lift_fresh: a tensor was made of data of the host
        elif name == "histc" and given(func, args, kwargs, "min") == given(func, args, kwargs, "max"):
            self.waits.append("histc without a range")
        return func(*args, **(kwargs or {}))

    @property
    def dtypes(self) -> set[torch.dtype]:
        return set().union(*(dtypes for _, dtypes in self.products))


def given(func: Any, args: Any, kwargs: Any, name: str) -> Any:
    names = [argument.name for argument in func._schema.arguments]
    return {**dict(zip(names, args, strict=False)), **(kwargs or {})}.get(name, 0)


def extended(name: str, mode: Mode, kernel: str, dtype: torch.dtype = torch.float32, **more: Any) -> Any:
    """A model with two extensions, the second of which learns."""
    lm = build(name, **more).to(dtype)
    layer = find_sites(lm)[-1].layer
    for extension, parents in (("a", (1,)), ("b", (2, 0))):
        attach(lm, extension, {layer: parents}, mode=mode)
        shake(lm, extension)
    use(lm, kernel)
    return lm


def in_experts(lm: Any) -> tuple[Seen, Seen]:
    """What the experts of the last block call in a step, (forward, backward)."""
    experts: Any = find_sites(lm)[-1].experts
    seen, after, own, made = Seen(), Seen(), experts.forward, []

    def watched(*args: Any, **kwargs: Any) -> Tensor:
        with seen:
            made.append(own(*args, **kwargs))
        out: Tensor = made[0]
        return out

    experts.forward = watched
    try:
        out = lm(input_ids=IDS)[0]
    finally:
        del experts.forward
    if torch.is_grad_enabled():
        learning = [p for p in experts.parameters() if p.requires_grad]
        with after:
            slopes = torch.autograd.grad(made[0].float().square().mean(), learning, retain_graph=True)
        assert after.products and all(slope.isfinite().all() and slope.any() for slope in slopes)
        out.float().square().mean().backward()
        assert all(
            p.grad is not None and p.grad.dtype == torch.float32 for p in new_parameters(lm, "b").values()
        )
    assert seen.products
    return seen, after


@pytest.mark.parametrize(
    ("mode", "kernel", "device"),
    [
        ("exact", "eager", False),
        ("slot", "batched_mm", True),
        ("paper", "grouped_mm", False),
        ("exact", "grouped_mm", True),
    ],
)
def test_experts_compute_in_bfloat16_where_they_should(
    mode: Mode, kernel: str, device: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A float32 base with autocast, a bfloat16 base with and without, in training and at inference."""
    if device:
        monkeypatch.setattr(routing, "asks_device", lambda experts, device: False)
    for dtype, autocast in ((torch.float32, True), (torch.bfloat16, True), (torch.bfloat16, False)):
        lm = extended("mixtral", mode, kernel, dtype)
        for learning in (True, False):
            cast = torch.autocast("cpu", torch.bfloat16) if autocast else nullcontext()
            with kernels.experts_follow_autocast(), cast, torch.set_grad_enabled(learning):
                seen, after = in_experts(lm)
            assert seen.dtypes == {torch.bfloat16}, (dtype, autocast, learning, seen.products)
            assert after.dtypes <= {torch.bfloat16}, (dtype, autocast, after.products)
        assert {p.dtype for known in "ab" for p in new_parameters(lm, known).values()} == {torch.float32}


@pytest.mark.parametrize("kernel", IMPLEMENTATIONS)
def test_a_model_without_an_extension_follows_autocast_too(kernel: str) -> None:
    """Full fine-tuning and LoRA: all products of a step are bfloat16, those of the backward pass too."""
    lm = build("mixtral").requires_grad_(True)
    use(lm, kernel)
    forward, backward = Seen(), Seen()
    with kernels.experts_follow_autocast():
        with forward, torch.autocast("cpu", torch.bfloat16):
            loss = lm(IDS).logits.float().square().mean()
        with backward:
            loss.backward()
    assert not [one for one in forward.products + backward.products if one[1] != {torch.bfloat16}]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in lm.parameters())
    after = Seen()
    with after, torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        lm(IDS)
    plain = torch.float32 in after.dtypes
    assert plain == (kernel == "grouped_mm"), "left as it was behind the block"


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("mixtral", "exact"),
        ("mixtral", "slot"),
        ("mixtral", "paper"),
        ("ernie4_5_moe", "paper"),
        ("gemma4_text", "paper"),
    ],
)  # plain, with a bias, with gains
def test_the_path_of_a_gpu_asks_the_device_nothing(
    name: str, mode: Mode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routing, "asks_device", lambda experts, device: False)
    lm = extended(name, mode, "grouped_mm")
    site = find_sites(lm)[-1]
    router: Any = site.router
    x = torch.randn(12, 32, generator=torch.Generator().manual_seed(0))
    for learning in (True, False):
        with torch.set_grad_enabled(learning):
            _, weights, index = router(x)  # what is kept for later passes is made here
            site.experts(x, index, weights)
            with Seen() as seen:
                _, weights, index = router(x)[:3]
                out = site.experts(x, index, weights)
                if learning:
                    out.square().mean().backward()
        assert seen.products and not seen.waits, (learning, seen.waits)


@pytest.mark.parametrize(
    "mode", ["exact", *(pytest.param(mode, marks=pytest.mark.long) for mode in ("paper", "slot"))]
)
def test_the_extended_model_compiles_without_a_graph_break(mode: Mode) -> None:
    lm = build("mixtral", num_hidden_layers=1)
    use(lm, "batched_mm")  # the eager loop of transformers breaks the graph by itself
    attach(lm, "a", {0: [1, 3]}, mode=mode)
    shake(lm, "a")
    torch._dynamo.reset()
    compiled: Any = torch.compile(lm, fullgraph=True, backend="eager")
    with torch.no_grad():
        assert torch.allclose(
            compiled(IDS, use_cache=False).logits, lm(IDS, use_cache=False).logits, atol=1e-5
        )
    torch._dynamo.reset()
