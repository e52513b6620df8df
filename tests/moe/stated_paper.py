"""A second implementation of paper routing for every family: scores, biases, groups and scales of its router."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Plain:
    """A family's scoring in words of its definition."""

    score: str = "softmax"
    normalise: bool = True
    bias: str = ""
    """Where the correction bias is, in the router or (with block.) in its block."""
    bias_on: str = "score"
    groups: str = ""
    """How a group of experts is scored: the sum of its best two, or its best one."""
    scale: str = ""
    plus: float = 0.0
    rows: str = "weight"


V3 = Plain(
    "sigmoid", True, "e_score_correction_bias", groups="two", scale="routed_scaling_factor", plus=1e-20
)


V2 = Plain(normalise=False, scale="routed_scaling_factor")


OWN = Plain("score_fn", bias="e_score_correction_bias", scale="routed_scaling_factor", plus=1e-20)


SOFTMAX = Plain()


PARTIAL = Plain(normalise=False)


STATED = {
    "afmoe": Plain("sigmoid", bias="block.expert_bias", scale="route_scale", plus=1e-20, rows="gate.weight"),
    "aria_text": SOFTMAX,
    "axk1": V3,
    "axk2": V3,
    "bailing_hybrid": V3,
    "beam": Plain("sigmoid", bias="e_score_correction_bias", groups="two", plus=1e-20),
    "cohere2_moe": SOFTMAX,
    "deepseek_ocr2_text": V2,
    "deepseek_v2": Plain(normalise=False, scale="routed_scaling_factor", groups="one"),
    "deepseek_v3": V3,
    "deepseek_v32": V3,
    "diffusion_gemma_text": Plain(rows="proj.weight"),
    "dots1": Plain("sigmoid", False, "e_score_correction_bias", groups="two", scale="routed_scaling_factor"),
    "dots3_note_text": V3,
    "ernie4_5_moe": Plain(bias="moe_statics.e_score_correction_bias"),
    "ernie4_5_vl_moe_text": Plain(bias="moe_statics.e_score_correction_bias"),
    "exaone_moe": V3,
    "flex_olmo": PARTIAL,
    "flint": Plain("sigmoid"),
    "gemma4_text": Plain(rows="proj.weight"),
    "glm4_moe": V3,
    "glm4_moe_lite": V3,
    "glm4v_moe_text": V3,
    "glm5_next_text": V3,
    "glm_moe_dsa": V3,
    "gpt_oss": SOFTMAX,
    "granitemoe": SOFTMAX,
    "granitemoe_swa": SOFTMAX,
    "granitemoehybrid": SOFTMAX,
    "granitemoeshared": SOFTMAX,
    "hunyuan_v1_moe": Plain(rows="wg.weight"),
    "hy_v3": Plain(
        "sigmoid", bias="block.e_score_correction_bias", scale="router_scaling_factor", plus=1e-20
    ),
    "hy_v4": V3,
    "hy_v4_vl_text": V3,
    "inkling2_loop_text": OWN,
    "inkling2_text": OWN,
    "jamba": PARTIAL,
    "kimi_linear": V3,
    "kolibri1": Plain("sigmoid", False, "e_score_correction_bias", "logit"),
    "laguna": Plain("sigmoid", bias="e_score_correction_bias"),
    "lara_mini": SOFTMAX,
    "lfm2_moe": Plain("sigmoid", bias="block.expert_bias", scale="routed_scaling_factor", plus=1e-6),
    "longcat_flash": Plain(
        normalise=False,
        bias="e_score_correction_bias",
        scale="routed_scaling_factor",
        rows="classifier.weight",
    ),
    "llama4_text": Plain("sigmoid", False),
    "mellum": SOFTMAX,
    "mimo_v2_flash": V3,
    "minimax": SOFTMAX,
    "minimax_m2": Plain("sigmoid", bias="block.e_score_correction_bias"),
    "minimax_m3_vl_text": Plain("sigmoid", bias="e_score_correction_bias"),
    "mistral4": Plain(groups="two", scale="routed_scaling_factor", plus=1e-20),
    "mistral_large4_text": Plain(groups="two", scale="routed_scaling_factor", plus=1e-20),
    "mixtral": SOFTMAX,
    "muse_spark_text": Plain(
        "sigmoid", bias="e_score_correction_bias", scale="routed_scaling_factor", plus=1e-15
    ),
    "nemotron_h": V3,
    "olmoe": PARTIAL,
    "openai_privacy_filter": SOFTMAX,
    "phimoe": Plain(normalise=False),
    "qwen2_moe": PARTIAL,
    "qwen3_5_moe_text": SOFTMAX,
    "qwen3_moe": SOFTMAX,
    "qwen3_next": SOFTMAX,
    "qwen3_omni_moe_talker_text": PARTIAL,
    "qwen3_omni_moe_text": SOFTMAX,
    "qwen3_vl_moe_text": SOFTMAX,
    "qwen4_exp_text": SOFTMAX,
    "solar_open": V3,
    "step3p5": Plain("sigmoid", bias="e_score_correction_bias"),
    "unlimited_ocr_text": V2,
}


def at(module: Any, path: str) -> Any:
    for part in path.split("."):
        module = getattr(module, part)
    return module


def dot(row: Tensor, x: Tensor) -> float:
    return sum((a * b for a, b in zip(row.tolist(), x.tolist(), strict=True)), 0.0)


def logits_of(name: str, router: Any, stated: Plain, x: Tensor, parts: list[Any]) -> list[float]:
    if "gemma" in name:
        root = math.sqrt(sum(v * v for v in x.tolist()) / len(x) + router.eps)
        x = x.double() / root * router.scale.double() / math.sqrt(len(x))
    rows = [
        *at(router, stated.rows)[: len(at(router, stated.rows))],
        *(row for part in parts for row in part.rows),
    ]
    found = [dot(row.detach().double(), x.double()) for row in rows]
    own = getattr(router, "bias", None)
    if own is not None:
        biases = [*own.tolist(), *(b for part in parts for b in part.bias.tolist())]
        found = [value + b for value, b in zip(found, biases, strict=True)]
    if name == "laguna" and router.router_logit_softcapping > 0:
        cap = router.router_logit_softcapping
        found = [cap * math.tanh(value / cap) for value in found]
    if name == "muse_spark_text":
        found = [value * router.output_multiplier for value in found]
    return found


def scores_of(router: Any, how: str, logits: list[float]) -> list[float]:
    if how == "softmax":
        top = max(logits)
        powers = [math.exp(value - top) for value in logits]
        return [value / sum(powers) for value in powers]
    if how == "sigmoid":
        return [1 / (1 + math.exp(-value)) for value in logits]
    return [float(router.score_fn(torch.tensor(value, dtype=torch.float64))) for value in logits]


def best(values: dict[int, float], k: int) -> list[int]:
    return sorted(values, key=lambda e: -values[e])[:k]


def sparsemixer(logits: list[float], eps: float) -> dict[int, float]:
    """PhiMoE's choice of two experts, outside training (arXiv 2409.12136): weights by the experts that come near."""
    weights: dict[int, float] = {}
    for _ in range(2):
        left = {e: value for e, value in enumerate(logits) if e not in weights}
        winner = best(left, 1)[0]
        near = [e for e in left if (left[winner] - left[e]) / max(abs(logits[e]), left[winner]) <= 2 * eps]
        weights[winner] = math.exp(left[winner]) / sum(math.exp(left[e]) for e in near)
    return weights


def stated_weights(
    name: str, router: Any, block: Any, stated: Plain, x: Tensor, parts: list[Any], k: int
) -> dict[int, float]:
    """Expert -> weight, for one token."""
    logits = logits_of(name, router, stated, x, parts)
    scores = scores_of(router, stated.score, logits)
    total, m = len(scores), len(scores) - sum(len(part.rows) for part in parts)
    parents = [parent for part in parts for parent in part.parents]
    changed, width = list(scores), m
    for part in parts:
        width += len(part.rows)
        inner = [dot(row.double(), torch.tensor(scores[:width])) for row in part.calibration.inner.weight]
        inner = [value * 0.5 * (1 + math.erf(value / math.sqrt(2))) for value in inner]
        for e in range(width):
            changed[e] += dot(part.calibration.outer.weight[e].double(), torch.tensor(inner))
    if name == "phimoe":
        chosen = sparsemixer(logits, router.router_jitter_noise)
        return {e: max(w + changed[e] - scores[e], 1e-6) for e, w in chosen.items()}
    merit = dict(enumerate(logits if stated.bias_on == "logit" else scores))
    if stated.bias:
        home = block if stated.bias.startswith("block.") else router
        bias = at(home, stated.bias.removeprefix("block.")).flatten().tolist()
        for e in range(total):
            merit[e] += bias[e] if e < m else bias[parents[e - m]]
    if stated.groups and (router.num_group or 1) > 1:
        size = m // router.num_group
        groups = {g: [merit[e] for e in range(g * size, (g + 1) * size)] for g in range(router.num_group)}
        of = {g: sum(sorted(v)[-2:]) if stated.groups == "two" else max(v) for g, v in groups.items()}
        open_ = best(of, router.topk_group)
        merit = {e: v for e, v in merit.items() if e >= m or e // size in open_}  # new ones are always open
    top = best(merit, k)
    if stated.normalise:
        whole = sum(scores[e] for e in top) + stated.plus
        weights = {e: max(changed[e] / whole, 1e-6) for e in top}
        weights = {e: w / sum(weights.values()) for e, w in weights.items()}
    else:
        weights = {e: max(changed[e], 1e-6) for e in top}
    if stated.scale:
        weights = {e: w * getattr(router, stated.scale) for e, w in weights.items()}
    if "gemma" in name:
        gains = router.per_expert_scale.tolist()
        weights = {e: w * (gains[e] if e < m else gains[parents[e - m]]) for e, w in weights.items()}
    if name == "openai_privacy_filter":
        weights = {e: w / k for e, w in weights.items()}
    return weights
