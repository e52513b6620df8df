"""The dtype of every product of experts, and synchronisation with the device in a forward pass."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from moextend import Conversation, Settings, attach, new_parameters, train
from moextend.moe import constants, kernels, routing
from moextend.moe.recipe import Mode
from moextend.moe.sites import find_sites
from tests.moe.test_families import KINDS, shake, use
from tests.moe.toy_families import VOCABULARY, build
from tests.toys import toy_model

MODES: tuple[Mode, ...] = get_args(Mode)
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


@pytest.mark.parametrize("device", [False, True], ids=["gathered", "on the device"])
@pytest.mark.parametrize("kernel", IMPLEMENTATIONS)
@pytest.mark.parametrize("mode", MODES)
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


@pytest.mark.parametrize("name", [name for name in KINDS if name != "muse_spark_text"])
def test_every_way_of_computing_knows_bfloat16(name: str) -> None:
    """New experts of a bfloat16 base compute in bfloat16, and near what float32 gives."""
    for kernel in IMPLEMENTATIONS:
        for mode in MODES if name not in ("llama4_text", "zaya") else MODES[:1]:
            lm = extended(name, mode, kernel, torch.bfloat16)
            with torch.no_grad():
                seen, _ = in_experts(lm) if name != "llama4_text" else (Seen(), Seen())
                out = lm(input_ids=IDS)[0]
            assert seen.dtypes <= {torch.bfloat16}, (kernel, mode)
            assert out.isfinite().all()
        if not lm._can_set_experts_implementation():
            break


@pytest.mark.parametrize("kernel", IMPLEMENTATIONS)
def test_without_autocast_float32_experts_are_what_they_were(kernel: str) -> None:
    lm = extended("mixtral", "paper", kernel)
    with torch.no_grad():
        plain = lm(IDS).logits
        with kernels.experts_follow_autocast():
            assert torch.equal(lm(IDS).logits, plain)
            seen, _ = in_experts(lm)
    assert seen.dtypes == {torch.float32}


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


@pytest.mark.parametrize("kernel", IMPLEMENTATIONS)
def test_lora_on_stacks_of_experts_follows_autocast(kernel: str) -> None:
    """Experts multiply in bfloat16; peft multiplies the two factors (baddbmm) in float32, which they stay."""
    from peft import LoraConfig, inject_adapter_in_model

    lm = build("mixtral").requires_grad_(False)
    use(lm, kernel)
    blocks, stacks = len(find_sites(lm)), ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
    inject_adapter_in_model(LoraConfig(r=2, target_modules=[], target_parameters=stacks), lm)
    factors = {n: p for n, p in lm.named_parameters() if p.requires_grad}
    assert len(factors) == 4 * blocks
    with torch.no_grad():
        for factor in factors.values():
            factor.normal_(0, 0.3)
    forward, backward = Seen(), Seen()
    with kernels.experts_follow_autocast():
        with forward, torch.autocast("cpu", torch.bfloat16):
            loss = lm(input_ids=IDS).logits.float().square().mean()
        with backward:
            loss.backward()
    assert {name for name, dtypes in forward.products if dtypes != {torch.bfloat16}} <= {"baddbmm"}
    assert forward.products and backward.products
    for name, factor in factors.items():
        assert factor.dtype == torch.float32
        assert factor.grad is not None and factor.grad.isfinite().all() and factor.grad.any(), name


@pytest.mark.parametrize("bf16", [True, False])
def test_training_computes_experts_in_the_dtype_of_its_settings(bf16: bool, tmp_path: Path) -> None:
    """Layers that are computed again in the backward pass too, and those that have no new expert."""
    model = toy_model()
    model.lm.set_experts_implementation("grouped_mm")
    attach(model.lm, "a", {1: [1, 2]})
    model.learn_only([f"lm.{name}" for name in new_parameters(model.lm, "a")])
    data = [Conversation(((f"w{i} w{i + 1}", f"w{i % 5}"),)) for i in range(4)]
    settings = Settings(steps=1, batch_size=2, learning_rate=1e-3, bf16=bf16, gradient_checkpointing=True)
    with Seen() as seen:
        train(model, data, settings, folder=tmp_path)
    grouped = [dtypes for name, dtypes in seen.products if name == "_grouped_mm"]
    assert len(grouped) > 6
    assert set().union(*grouped) == {torch.bfloat16 if bf16 else torch.float32}


@pytest.mark.parametrize("kernel", ["batched_mm", "grouped_mm"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["mixtral", "ernie4_5_moe", "gemma4_text"])  # plain, with a bias, with gains
def test_the_path_of_a_gpu_asks_the_device_nothing(
    name: str, mode: Mode, kernel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routing, "asks_device", lambda experts, device: False)
    lm = extended(name, mode, kernel)
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


def test_the_watch_sees_what_waits() -> None:
    ids = torch.tensor([0, 2])
    with Seen() as seen:
        bool(ids.any())
        torch.where(ids > 0)
        torch.tensor([1], device=ids.device)
        ids[[0, 1]]
        torch.histc(ids.float(), bins=1, min=0, max=0)
    assert {"_local_scalar_dense", "nonzero", "lift_fresh", "histc without a range"} <= set(seen.waits)


def test_where_slots_are_gathered() -> None:
    lm = extended("mixtral", "slot", "grouped_mm")
    experts = find_sites(lm)[-1].experts
    assert kernels.asks_device(experts, torch.device("cpu"))
    assert not kernels.asks_device(experts, torch.device("cuda"))
    use(lm, "eager")
    assert kernels.asks_device(experts, torch.device("cuda")), "the eager loop asks at any rate"


@pytest.fixture
def nothing_held(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(constants, "_HELD", {})
    yield


def test_constants_are_made_once_and_can_be_learned_through(nothing_held: None) -> None:
    device = torch.device("cpu")
    with torch.inference_mode():
        first = constants.held([2, 0], device)
    assert constants.held((2, 0), device) is first and first.tolist() == [2, 0]
    assert constants.held([0, 2], device) is not first
    values = torch.randn(3, requires_grad=True)
    values[first].sum().backward()
    assert values.grad is not None and values.grad.tolist() == [1, 0, 1]
