"""Copies of FP8 experts have dequantised values; unreadable weights are refused by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import FineGrainedFP8Config
from transformers.integrations import finegrained_fp8
from transformers.integrations.mxfp4 import Mxfp4GptOssExperts, Mxfp4GptOssMLP

from moextend import attach, detach, load_extension, new_parameters, save_extension
from moextend.errors import InputError
from moextend.model.multimodal import MultimodalLM
from moextend.moe.recipe import Mode
from moextend.moe.sites import find_sites
from tests.moe.toy_families import build
from tests.toys import logits, toy_lm

BLOCK = (16, 16)
MODES = ("exact", "paper", "slot")


def values(codes: Tensor, scales: Tensor, block: tuple[int, int]) -> Tensor:
    """What the codes [N, K] of one expert stand for, number by number."""
    found = torch.empty(codes.shape)
    for n in range(codes.shape[0]):
        for k in range(codes.shape[1]):
            found[n, k] = float(codes[n, k]) * float(scales[n // block[0], k // block[1]])
    return found


def quantise(weights: Tensor, block: tuple[int, int], power: bool) -> tuple[Tensor, Tensor]:
    """Codes [E, N, K] and scales of their blocks, powers of two where asked."""
    rows, columns = (-(-size // step) for size, step in zip(weights.shape[1:], block, strict=True))
    scales = torch.empty(len(weights), rows, columns)
    codes = torch.empty(weights.shape, dtype=torch.float8_e4m3fn)
    for n in range(rows):
        for k in range(columns):
            place = (..., slice(n * block[0], (n + 1) * block[0]), slice(k * block[1], (k + 1) * block[1]))
            scale = weights[place].abs().amax((1, 2)) / 448
            scales[:, n, k] = scale.log2().ceil().exp2() if power else scale
            codes[place] = (weights[place] / scales[:, n, k, None, None]).to(torch.float8_e4m3fn)
    return codes, scales.to(torch.float8_e8m0fnu) if power else scales


def fp8(block: tuple[int, int] = BLOCK, power: bool = False) -> Any:
    """A model whose experts transformers has made FP8 ones, filled with the codes of random weights."""
    lm: Any = toy_lm()
    kept = [
        {key: p.detach().clone() for key, p in site.experts.named_parameters()} for site in find_sites(lm)
    ]
    settings = FineGrainedFP8Config(weight_block_size=block, scale_fmt="ue8m0" if power else "float")
    others = [name for name, m in lm.named_modules() if isinstance(m, nn.Linear)]
    finegrained_fp8.replace_with_fp8_linear(lm, others, settings)
    for site, weights in zip(find_sites(lm), kept, strict=True):
        assert type(site.experts).__name__ == "FP8Experts"
        for key, weight in weights.items():
            codes, scales = quantise(weight, block, power)
            setattr(site.experts, key, nn.Parameter(codes, requires_grad=False))
            setattr(site.experts, f"{key}_scale_inv", nn.Parameter(scales, requires_grad=False))
    lm.config.quantization_config = settings
    lm.set_experts_implementation("eager")
    return lm.eval()


@pytest.fixture
def on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The product of FP8 matrices, whose kernels need a GPU."""

    def linear(x: Tensor, weight: Tensor, scales: Tensor, block: Any, *rest: Any) -> Tensor:
        spread = scales.float().repeat_interleave(block[0], 0).repeat_interleave(block[1], 1)
        return F.linear(x, weight.float() * spread[: weight.shape[0], : weight.shape[1]])

    monkeypatch.setattr(finegrained_fp8, "fp8_linear", linear)


@pytest.mark.parametrize(
    ("mode", "block", "power"),
    [("exact", (16, 16), False), ("paper", (32, 8), True), ("slot", (20, 20), False)],
)
def test_a_copy_holds_the_values_of_its_source(mode: Mode, block: tuple[int, int], power: bool) -> None:
    lm = fp8(block, power)
    attach(lm, "a", {1: [2, 0]}, mode=mode)
    site = find_sites(lm)[1]
    base: Any = site.experts
    group = base.ext_groups["a"]
    assert {key for key, _ in group.named_parameters()} == {"gate_up_proj", "down_proj"}
    for place, source in enumerate((2, 0)):
        for key in ("gate_up_proj", "down_proj"):
            wanted = values(getattr(base, key)[source], getattr(base, f"{key}_scale_inv")[source], block)
            if key == "down_proj" and mode == "exact":
                wanted = torch.zeros_like(wanted)
            found = getattr(group, key)[place]
            assert found.dtype == torch.float32 and torch.equal(found, wanted), key


@pytest.mark.usefixtures("on_cpu")
@pytest.mark.parametrize("mode", MODES)
def test_it_computes_learns_and_comes_off(mode: Mode, ids: Tensor, tmp_path: Path) -> None:
    lm = fp8()
    model = MultimodalLM(lm, tokenizer=None)
    base = logits(lm, ids)
    attach(lm, "a", {0: [1, 2, 3, 0]}, mode=mode)
    if mode != "paper":
        assert torch.equal(logits(lm, ids), base)
    lm(ids).logits.square().mean().backward()
    new = new_parameters(lm, "a")
    assert all(p.grad is not None and p.grad.isfinite().all() for p in new.values())
    assert any(bool(p.grad.any()) for key, p in new.items() if ".ext_groups." in key and p.grad is not None)
    with torch.no_grad():
        for p in new.values():
            p.add_(torch.randn(p.shape, generator=torch.Generator().manual_seed(1)) * 0.2)
    changed = logits(lm, ids)
    assert changed.isfinite().all() and not torch.equal(changed, base)
    save_extension(model, "a", folder=tmp_path)
    detach(lm, "a")
    assert torch.equal(logits(lm, ids), base)
    load_extension(model, tmp_path)
    assert torch.equal(logits(lm, ids), changed)


def codes(kind: torch.dtype) -> Callable[[Any], None]:
    def fill(site: Any) -> None:
        shape = site.experts.gate_up_proj.shape
        for key in ("gate_up_proj", "down_proj"):
            shape = getattr(site.experts, key).shape
            setattr(site.experts, key, nn.Parameter(torch.zeros(shape).to(kind), requires_grad=False))

    return fill


def packed_rows(site: Any) -> None:
    site.router.weight = nn.Parameter(torch.zeros(64, 1, dtype=torch.uint8), requires_grad=False)


class Wrapped(Tensor):
    """A tensor that says it is float32 and holds something else, as those of quantisation libraries do."""

    @staticmethod
    def __new__(cls: type[Wrapped], shape: torch.Size) -> Wrapped:
        made: Wrapped = Tensor._make_wrapper_subclass(cls, shape, dtype=torch.float32)
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        if "detach" in func.__name__:
            return Wrapped(args[0].shape)
        raise NotImplementedError(func)


def wrapped(site: Any) -> None:
    site.experts._parameters["down_proj"] = Wrapped(site.experts.down_proj.shape)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            codes(torch.uint8),
            r"model\.layers\.1\.mlp\.experts\.gate_up_proj holds uint8 \(quantisation 'mine'\)",
        ),
        (codes(torch.float8_e4m3fn), r"experts\.gate_up_proj holds float8_e4m3fn"),
        (packed_rows, r"the router of model\.layers\.1\.mlp holds uint8"),
        (wrapped, r"experts\.down_proj holds Wrapped"),
    ],
)
def test_what_cannot_be_read_is_refused_by_name(spoil: Callable[[Any], None], message: str) -> None:
    lm = toy_lm()
    spoil(find_sites(lm)[1])
    lm.config.quantization_config = {"quant_method": "mine"}
    before = {name: (type(m), {**vars(m)}.keys()) for name, m in lm.named_modules()}
    with pytest.raises(InputError, match=f"{message}.*cannot be copied.*Load the base in bfloat16"):
        attach(lm, "a", {0: [1], 1: [1]})
    assert {name: (type(m), {**vars(m)}.keys()) for name, m in lm.named_modules()} == before
    attach(lm, "a", {0: [1]})  # what is not quantised can be extended


def test_mxfp4_is_refused_with_the_way_out() -> None:
    lm = build("gpt_oss")
    for site in find_sites(lm):
        experts: Any = Mxfp4GptOssExperts(lm.config)
        for key in ("gate_up_proj", "down_proj"):  # the kernels keep codes in objects of their own
            delattr(experts, key)
            setattr(experts, key, object())
        lm.set_submodule(site.name, Mxfp4GptOssMLP(site.router, experts))
    lm.config.quantization_config = {"quant_method": "mxfp4"}
    with pytest.raises(InputError, match=r"quantisation 'mxfp4'.*dequantize=True.*Mxfp4Config"):
        attach(lm, "a", {0: [1]})
    assert not any(type(m).__name__.startswith("Extended") for m in lm.modules())
