"""The MoE families of transformers: how their routers score experts, and what is known of a router.

`exact` routing adds new experts to the router's own choice and needs only its rows. `paper` routing repeats the
router's scoring over more experts, so it needs a row of the table, which says how, or why it cannot. A router without
a row is extended in `exact` routing if its rows are a matrix with the name ``weight``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from moextend.errors import InputError
from moextend.moe.kernels import held
from moextend.moe.scoring import (
    Family,
    Scoring,
    attribute_at,
    cohere,
    gemma_features,
    gemma_logits,
    multiply,
    phimoe,
    privacy_filter,
    rule,
    sigmoid,
    softcap,
    softmax,
)  # fmt: skip

_BIASED = "sigmoid, correction bias, top-k, renormalised"
_SCALE, _BIAS = {"scale": "routed_scaling_factor"}, {"bias": "e_score_correction_bias"}
_LIMITED: dict[str, Any] = {**_SCALE, "limited": True}
_always, _flag, _bare = softmax(True), softmax("norm_topk_prob"), softmax(False)
_flint = sigmoid("norm_topk_prob")
BY_LOGITS = (_always, _flag, _bare, _flint, privacy_filter, cohere)


def _rows(says: str, scoring: Any, *names: str, **more: Any) -> dict[str, Family]:
    """Rows of families with the same scoring; `names`: router class and model type of each."""
    pairs = [name.split() for name in names]
    return {router: Family(router, model, says, scoring, **more) for router, model in pairs}


FAMILIES = {
    **_rows(
        "softmax, top-k, renormalised", _always, "MixtralTopKRouter mixtral", "MiniMaxTopKRouter minimax",
        "Qwen3_5MoeTopKRouter qwen3_5_moe_text", "Qwen3VLMoeTextTopKRouter qwen3_vl_moe_text",
    ),
    **_rows("softmax, top-k, renormalised", _always, "HunYuanMoEV1Gate hunyuan_v1_moe", rows="wg.weight"),
    **_rows(
        "softmax, top-k, renormalised if norm_topk_prob", _flag, "OlmoeTopKRouter olmoe",
        "FlexOlmoTopKRouter flex_olmo", "Qwen2MoeTopKRouter qwen2_moe", "Qwen3MoeTopKRouter qwen3_moe",
        "Qwen3NextTopKRouter qwen3_next", "Qwen4ExpTextTopKRouter qwen4_exp_text",
        "Qwen3OmniMoeThinkerTextTopKRouter qwen3_omni_moe_text",
        "Qwen3OmniMoeTalkerTextTopKRouter qwen3_omni_moe_talker_text", "MellumTopKRouter mellum",
        "LaraMiniTopKRouter lara_mini",
    ),
    **_rows("softmax, top-k", _bare, "JambaTopKRouter jamba"),
    **_rows(
        "top-k, softmax of the k", _always, "GraniteMoeTopKRouter granitemoe",
        "GraniteMoeSharedTopKRouter granitemoeshared", "GraniteMoeHybridTopKRouter granitemoehybrid",
        "GraniteMoeSWATopKRouter granitemoe_swa", "AriaTextTopKRouter aria_text",
    ),
    **_rows("top-k, softmax of the k; rows have biases", _always, "GptOssTopKRouter gpt_oss"),
    **_rows(
        "top-k, softmax of the k, divided by k; rows have biases", privacy_filter,
        "OpenAIPrivacyFilterTopKRouter openai_privacy_filter",
    ),
    **_rows(
        "top-k, softmax of the k; or sigmoid, renormalised if norm_topk_prob", cohere,
        "Cohere2MoeTopKRouter cohere2_moe",
    ),
    **_rows(
        "softmax, limited to groups, scaled", softmax(False, **_LIMITED), "DeepseekV2TopkRouter deepseek_v2",
        "DeepseekOcr2TextTopkRouter deepseek_ocr2_text", "UnlimitedOcrTextTopkRouter unlimited_ocr_text",
    ),
    **_rows(
        "softmax, limited to groups, renormalised if norm_topk_prob, scaled",
        softmax("norm_topk_prob", **_LIMITED, eps=1e-20), "Mistral4TopkRouter mistral4",
    ),
    **_rows(
        "softmax, limited to groups, renormalised, scaled", softmax(True, **_LIMITED, eps=1e-20),
        "MistralLarge4TextTopkRouter mistral_large4_text",
    ),
    **_rows(
        "softmax, correction bias, renormalised",
        softmax(True, bias="moe_statics.e_score_correction_bias", floor="norm_min"),
        "Ernie4_5_MoeTopKRouter ernie4_5_moe", "Ernie4_5_VLMoeMoeTopKRouter ernie4_5_vl_moe_text",
    ),
    **_rows(
        "softmax, correction bias, scaled; some experts are the identity", softmax(False, **_SCALE, **_BIAS),
        "LongcatFlashTopkRouter longcat_flash", rows="classifier.weight",
    ),
    **_rows(
        "normed inputs, softmax, renormalised, a scale for each expert", softmax(True, gain="per_expert_scale"),
        "Gemma4TextRouter gemma4_text", "DiffusionGemmaTextRouter diffusion_gemma_text", rows="proj.weight",
        features=gemma_features, logits=gemma_logits,
    ),
    **_rows("sparsemixer, one expert after the other", phimoe, "PhimoeTopKRouter phimoe"),
    **_rows(
        "sigmoid, correction bias, limited to groups, renormalised if norm_topk_prob, scaled",
        sigmoid("norm_topk_prob", **_LIMITED, **_BIAS, eps=1e-20), "AXK1TopkRouter axk1", "AXK2TopkRouter axk2",
        "BailingHybridTopkRouter bailing_hybrid", "DeepseekV3TopkRouter deepseek_v3",
        "DeepseekV32TopkRouter deepseek_v32", "Dots1TopkRouter dots1", "Dots3NoteTextTopkRouter dots3_note_text",
        "ExaoneMoeTopkRouter exaone_moe", "Glm4MoeTopkRouter glm4_moe", "Glm4MoeLiteTopkRouter glm4_moe_lite",
        "Glm4vMoeTextTopkRouter glm4v_moe_text", "Glm5NextTextTopkRouter glm5_next_text",
        "GlmMoeDsaTopkRouter glm_moe_dsa", "HYV4TopkRouter hy_v4", "HYV4VLTopkRouter hy_v4_vl_text",
        "KimiLinearTopkRouter kimi_linear", "MiMoV2FlashTopkRouter mimo_v2_flash", "NemotronHTopkRouter nemotron_h",
        "SolarOpenTopkRouter solar_open",
    ),
    **_rows(
        "sigmoid, correction bias, limited to groups, renormalised if norm_topk_prob",
        sigmoid("norm_topk_prob", **_BIAS, limited=True, eps=1e-20), "BeamTopKRouter beam",
    ),
    **_rows(
        f"{_BIASED}, scaled", sigmoid(True, scale="route_scale", bias="given", eps=1e-20),
        "AfmoeTokenChoiceRouter afmoe", rows="gate.weight",
    ),
    **_rows(
        f"{_BIASED}, scaled", sigmoid(True, scale="router_scaling_factor", bias="given", eps=1e-20),
        "HYV3TopKRouter hy_v3",
    ),
    **_rows(_BIASED, sigmoid(True, bias="given"), "MiniMaxM2TopKRouter minimax_m2"),
    **_rows(
        _BIASED, sigmoid(True, **_BIAS), "MiniMaxM3VLTopKRouter minimax_m3_vl_text", "Step3p7TopKRouter step3p5"
    ),
    **_rows(
        "sigmoid, correction bias, renormalised if norm_topk_prob, scaled",
        sigmoid("norm_topk_prob", **_SCALE, bias="given", eps=1e-6), "Lfm2MoeTopKRouter lfm2_moe",
    ),
    **_rows("sigmoid, top-k, renormalised if norm_topk_prob", _flint, "FlintTopKRouter flint"),
    **_rows(
        "top-k of logits and correction bias, sigmoid, renormalised if norm_topk_prob",
        sigmoid("norm_topk_prob", **_BIAS, bias_on_logits=True), "Kolibri1TopKRouter kolibri1",
    ),
    **_rows(
        f"soft-capped logits, {_BIASED}", sigmoid(True, **_BIAS), "LagunaTopKRouter laguna", bend=softcap
    ),
    **_rows(
        f"multiplied logits, {_BIASED}, scaled", sigmoid(True, **_SCALE, **_BIAS, eps=1e-15),
        "MuseSparkTopkRouter muse_spark_text", bend=multiply,
    ),
    **_rows(
        "scoring_func, correction bias, renormalised, scaled", rule("score_fn", True, **_SCALE, **_BIAS, eps=1e-20),
        "DeepseekV4TopKRouter deepseek_v4", "Inkling2TopKRouter inkling2_text",
        "Inkling2LoopTopKRouter inkling2_loop_text",
    ),
    **_rows(
        "top-k, sigmoid; weights scale the inputs of experts, which compute every token",
        rule("sigmoid", False, bias_on_logits=True), "Llama4Router llama4_text",
    ),
    **_rows(
        "experts fixed by the token", None, "DeepseekV4HashRouter deepseek_v4",
        refused="its experts are fixed by the token's id, so that new ones cannot compete for a token",
    ),
    **_rows(
        "sigmoid, correction bias, renormalised together with the shared experts", None,
        "InklingTopkRouter inkling_text",
        refused="its shared experts are weighed together with the chosen ones, so that a new expert would change "
        "them too",
    ),
    **_rows(
        "an MLP over a state that passes from layer to layer", None, "ZayaRouter zaya", rows="down_proj.weight",
        refused="its router is an MLP over a state that passes from layer to layer: no expert has a row to copy",
    ),
}  # fmt: skip
"""Router class -> family."""

EAGER_WITHOUT_SENTINEL = {
    "GptOssExperts", "OpenAIPrivacyFilterExperts", "NemotronHExperts", "LongcatFlashExperts",
}  # fmt: skip
"""Experts classes with an eager loop that fails for the id m (one past the last expert); the others skip that id."""

NEEDS_TWO_SLOTS = {"LongcatFlashExperts"}
"""Experts classes with a loop that fails for one expert and one slot."""

NOT_FUSED = {
    "DbrxFFN": "DBRX keeps all experts in flat matrices inside another module",
    "JetMoeMoE": "JetMoE sorts tokens into its experts' linear layers itself",
    "NllbMoeSparseMLP": "NLLB-MoE keeps one module per expert",
    "SwitchTransformersSparseMLP": "Switch Transformers keeps one module per expert",
    "DogeCDMoE": "Doge's experts are single rows of an embedding",
}
"""MoE blocks without stacked (3-D) expert tensors -> why they cannot be extended."""


def family_of(router: nn.Module) -> Family:
    """Row of `router`; for an unknown router a row that works in `exact` routing only."""
    for kind in type(router).__mro__:
        if kind.__name__ in FAMILIES:
            return FAMILIES[kind.__name__]
    kind = type(router)
    return Family(kind.__name__, "", "", refused=f"it does not know the router {kind.__name__}")


def scoring_of(router: nn.Module, given: Sequence[Any] = ()) -> Scoring:
    """Scoring of `router`; `given`: the arguments that its block passes besides the hidden states.

    Raises:
        InputError: `paper` routing cannot repeat the scoring.
    """
    family = family_of(router)
    if family.scoring is None:
        raise InputError(
            f"routing 'paper' cannot extend {family.router}: {family.refused}.",
            hint="Use routing 'exact', which extends every family. docs/families.md lists what 'paper' extends.",
        )
    return family.scoring(router, given)


def chooses_by_logits(router: nn.Module) -> bool:
    """Whether the router returns logits and chooses the k largest of them, without a bias."""
    return family_of(router).scoring in BY_LOGITS


def rows_of(router: nn.Module) -> Tensor | None:
    """Row matrix [m, H] of a router; None for a module without one, which is not a router."""
    try:
        rows = attribute_at(router, family_of(router).rows)
    except AttributeError:
        return None
    return rows if isinstance(rows, Tensor) and rows.dim() == 2 else None


def features(router: nn.Module, x: Tensor) -> Tensor:
    """Features [T, H] that the rows are multiplied with, for router inputs x [T, H]."""
    make = family_of(router).features
    return x if make is None else make(router, x)


def chosen_experts(router: nn.Module, out: Any) -> Tensor:
    """Experts [T, k] that `router` chose, from its output `out`."""
    if len(out) > 2:
        return cast(Tensor, out[2])
    return cast(Tensor, out[1].topk(cast(int, router.top_k), dim=-1)[1])


def with_parents(values: Tensor, parents: Sequence[int]) -> Tensor:
    """Values [m + n]: those of the base's experts [m], then those of the new experts' parents."""
    return torch.cat([values, values[held(parents, values.device)]])
