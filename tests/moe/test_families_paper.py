"""Paper routing of every family against its equations, written out token by token in plain Python.

What each family does is stated here again, from its definition in transformers and docs/method.md, and not read from
the table of moextend.moe.families.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from moextend import attach, detach
from moextend.errors import InputError
from moextend.moe.sites import find_sites
from tests.moe.stated_paper import PARTIAL, SOFTMAX, STATED, V2, V3, Plain, stated_weights
from tests.moe.test_families import PAPER, everywhere
from tests.moe.toy_families import VOCABULARY, build, family, outputs
from tests.toys import shake


def watch(model: nn.Module, module: nn.Module, ids: Tensor) -> tuple[tuple[Any, ...], Any]:
    """What a module is given and returns while the model computes ids."""
    seen: list[Any] = []
    hook = module.register_forward_hook(lambda m, args, out: seen.append((args, out)))
    outputs(model, ids)
    hook.remove()
    found: tuple[tuple[Any, ...], Any] = seen[-1]
    return found


def extended(lm: Any) -> Any:
    """The last block of a model with two trained extensions."""
    attach(lm, "a", everywhere(lm, 1), mode="paper")
    shake(lm, "a", 0.1)
    attach(lm, "b", everywhere(lm, 2, 0), mode="paper")
    shake(lm, "b", 0.1)
    return find_sites(lm)[-1]


def check_weights(name: str, lm: Any, site: Any, stated: Plain, ids: Tensor) -> None:
    parts = [site.router.ext_parts[part] for part in "ab"]
    (hidden, *_), (_, weights, index, *_) = watch(lm, site.router, ids)
    x = hidden.reshape(-1, hidden.shape[-1])
    for t in range(0, len(x), 2):
        expected = stated_weights(name, site.router, site.block, stated, x[t], parts, index.shape[1])
        found = {int(e): float(w) for e, w in zip(index[t], weights[t], strict=True)}
        assert found == pytest.approx(expected, abs=5e-5, rel=1e-4)
    first = site.router.ext_first
    assert (index >= first).any() and (index < first).any(), "only one kind of expert: the test shows little"


def check_experts(lm: Any, site: Any, ids: Tensor) -> None:
    """The output is the weighted sum of the chosen experts, each computed alone."""
    (h, index, weights), out = watch(lm, site.experts, ids)
    groups = [site.experts.ext_groups[part] for part in "ab"]
    homes = [(group, e) for group in groups for e in range(group.num_experts)]
    plain: Any = type(site.experts).__mro__[2]
    base, first = plain.forward, site.experts.ext_first
    for t in range(0, len(h), 7):
        expected = torch.zeros_like(h[t])
        for e, w in zip(index[t].tolist(), weights[t], strict=True):
            if e < first:
                alone = base(site.experts, h[t : t + 1], torch.tensor([[e, e]]), torch.tensor([[1.0, 0.0]]))
            else:
                group, place = homes[e - first]
                alone = group(h[t : t + 1], torch.tensor([[place]]), torch.ones(1, 1))
            expected += (w * alone[0]).detach()
        assert torch.allclose(out[t], expected, atol=2e-5, rtol=1e-4)


IDS = torch.randint(3, VOCABULARY, (4, 10), generator=torch.Generator().manual_seed(7))


@pytest.mark.parametrize("name", [name for name in PAPER if name != "llama4_text"])
def test_paper_routing_equals_the_equations(name: str) -> None:
    lm = family(name)
    try:
        site = extended(lm)
        check_weights(name, lm, site, STATED[name], IDS)
        check_experts(lm, site, IDS)
    finally:
        for part in "ba":
            if part in getattr(find_sites(lm)[-1].router, "ext_parts", {}):
                detach(lm, part)


V3_PLAIN = replace(V3, normalise=False)
OTHERS: dict[str, tuple[str, dict[str, Any], Plain]] = {
    "olmoe, renormalised": ("olmoe", {"norm_topk_prob": True}, SOFTMAX),
    "qwen2_moe, renormalised": ("qwen2_moe", {"norm_topk_prob": True}, SOFTMAX),
    "qwen3_moe, not renormalised": ("qwen3_moe", {"norm_topk_prob": False}, PARTIAL),
    "deepseek_v3, not renormalised": ("deepseek_v3", {"norm_topk_prob": False}, V3_PLAIN),
    "deepseek_v3, three of six groups": (
        "deepseek_v3",
        {
            "n_routed_experts": 12,
            "num_local_experts": 12,
            "n_group": 6,
            "topk_group": 3,
            "num_experts_per_tok": 4,
        },
        V3,
    ),
    "deepseek_v2, no groups": ("deepseek_v2", {"topk_method": "greedy"}, V2),
    "glm4_moe, scaled": ("glm4_moe", {"routed_scaling_factor": 2.5}, V3),
    "cohere2_moe, sigmoid": (
        "cohere2_moe",
        {"expert_selection_fn": "sigmoid", "norm_topk_prob": True},
        Plain("sigmoid"),
    ),
    "lfm2_moe, no bias": (
        "lfm2_moe",
        {"use_expert_bias": False},
        Plain("sigmoid", scale="routed_scaling_factor", plus=1e-6),
    ),
    "kolibri1, renormalised": (
        "kolibri1",
        {"norm_topk_prob": True},
        Plain("sigmoid", True, "e_score_correction_bias", "logit"),
    ),
    "phimoe, wide": ("phimoe", {"router_jitter_noise": 0.4}, Plain(normalise=False)),
}


@pytest.mark.parametrize(("name", "more", "stated"), OTHERS.values(), ids=OTHERS.keys())
def test_what_a_config_chooses_is_followed(name: str, more: dict[str, Any], stated: Plain) -> None:
    lm = build(name, **more)
    check_weights(name, lm, extended(lm), stated, IDS)


def test_paper_routing_of_llama_4_equals_the_equations() -> None:
    """Its router returns the weights of all experts, which scale their inputs; the block adds them up."""
    lm = build("llama4_text", num_experts_per_tok=2)
    site = extended(lm)
    parts = [site.router.ext_parts[part] for part in "ab"]
    groups = [site.experts.ext_groups[part] for part in "ab"]
    (hidden,), (out, _) = watch(lm, site.block, IDS)
    x = hidden.reshape(-1, hidden.shape[-1])
    won = 0

    def compute(home: Any, place: int, inputs: Tensor) -> Tensor:
        gate, up = (inputs @ home.gate_up_proj[place]).chunk(2)
        out: Tensor = (up * torch.nn.functional.silu(gate)) @ home.down_proj[place]
        return out

    homes = [(site.experts, e) for e in range(4)] + [
        (group, e) for group in groups for e in range(group.num_experts)
    ]
    for t in range(0, len(x), 3):
        stated = stated_weights("llama4_text", site.router, site.block, STATED["llama4_text"], x[t], parts, 2)
        won += sum(e >= 4 for e in stated)
        with torch.no_grad():
            expected = site.block.shared_expert(x[t : t + 1])[0]
            for e, weight in stated.items():
                expected = expected + compute(*homes[e], x[t] * weight)
        assert torch.allclose(out[t], expected, atol=2e-5, rtol=1e-4)
    assert won


def test_every_family_is_stated() -> None:
    assert set(STATED) == set(PAPER)


ONE = {"num_experts_per_tok": 1}


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("mixtral", {}),
        ("granitemoe", {}),
        ("qwen3_moe", {"norm_topk_prob": True}),
        ("gpt_oss", {}),
        ("deepseek_v3", {}),
    ],
)
def test_paper_routing_of_one_expert_with_weight_one_is_refused(name: str, more: dict[str, Any]) -> None:
    lm = build(name, **ONE, **more)
    layer = find_sites(lm)[-1].layer
    with pytest.raises(InputError, match="no gradient for rows and calibrations") as refused:
        attach(lm, "a", {layer: [0]}, mode="paper")
    assert refused.value.exit_code == 2 and "Use routing 'exact' or 'slot'" in str(refused.value.hint)
    for mode in ("exact", "slot"):
        attach(lm, "a", {layer: [0]}, mode=mode)
        detach(lm, "a")
