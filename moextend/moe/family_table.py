"""The MoE families of transformers, one row per router class, and the classes of experts that need special care.

A row says how its router scores experts, or why `paper` routing cannot add experts to that scoring.
"""

from __future__ import annotations

from moextend.moe.scoring import (
    Family,
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

_ALWAYS = "softmax, top-k, renormalised"
_FLAG = "softmax, top-k, renormalised if norm_topk_prob"
_AFTER = "top-k, softmax of the k"
_GROUPS = "sigmoid, correction bias, limited to groups, renormalised if norm_topk_prob, scaled"
_BIASED = "sigmoid, correction bias, top-k, renormalised"

_always = softmax(True)
_flag = softmax("norm_topk_prob")
_v2 = softmax(False, scale="routed_scaling_factor", limited=True)
_v3 = sigmoid(
    "norm_topk_prob",
    scale="routed_scaling_factor",
    bias="e_score_correction_bias",
    limited=True,
    eps=1e-20,
)
_own = rule("score_fn", True, scale="routed_scaling_factor", bias="e_score_correction_bias", eps=1e-20)
_ernie = softmax(True, bias="moe_statics.e_score_correction_bias", floor="norm_min")

_bare = softmax(False)
_flint = sigmoid("norm_topk_prob")
BY_LOGITS = (_always, _flag, _bare, _flint, privacy_filter, cohere)

_V3_LIKE = {
    "AXK1TopkRouter": "axk1",
    "AXK2TopkRouter": "axk2",
    "BailingHybridTopkRouter": "bailing_hybrid",
    "DeepseekV3TopkRouter": "deepseek_v3",
    "DeepseekV32TopkRouter": "deepseek_v32",
    "Dots1TopkRouter": "dots1",
    "Dots3NoteTextTopkRouter": "dots3_note_text",
    "ExaoneMoeTopkRouter": "exaone_moe",
    "Glm4MoeTopkRouter": "glm4_moe",
    "Glm4MoeLiteTopkRouter": "glm4_moe_lite",
    "Glm4vMoeTextTopkRouter": "glm4v_moe_text",
    "Glm5NextTextTopkRouter": "glm5_next_text",
    "GlmMoeDsaTopkRouter": "glm_moe_dsa",
    "HYV4TopkRouter": "hy_v4",
    "HYV4VLTopkRouter": "hy_v4_vl_text",
    "KimiLinearTopkRouter": "kimi_linear",
    "MiMoV2FlashTopkRouter": "mimo_v2_flash",
    "NemotronHTopkRouter": "nemotron_h",
    "SolarOpenTopkRouter": "solar_open",
}

_TABLE = [
    Family("MixtralTopKRouter", "mixtral", _ALWAYS, _always),
    Family("MiniMaxTopKRouter", "minimax", _ALWAYS, _always),
    Family("Qwen3_5MoeTopKRouter", "qwen3_5_moe_text", _ALWAYS, _always),
    Family("Qwen3VLMoeTextTopKRouter", "qwen3_vl_moe_text", _ALWAYS, _always),
    Family("HunYuanMoEV1Gate", "hunyuan_v1_moe", _ALWAYS, _always, rows="wg.weight"),
    Family("OlmoeTopKRouter", "olmoe", _FLAG, _flag),
    Family("FlexOlmoTopKRouter", "flex_olmo", _FLAG, _flag),
    Family("Qwen2MoeTopKRouter", "qwen2_moe", _FLAG, _flag),
    Family("Qwen3MoeTopKRouter", "qwen3_moe", _FLAG, _flag),
    Family("Qwen3NextTopKRouter", "qwen3_next", _FLAG, _flag),
    Family("Qwen4ExpTextTopKRouter", "qwen4_exp_text", _FLAG, _flag),
    Family("Qwen3OmniMoeThinkerTextTopKRouter", "qwen3_omni_moe_text", _FLAG, _flag),
    Family("Qwen3OmniMoeTalkerTextTopKRouter", "qwen3_omni_moe_talker_text", _FLAG, _flag),
    Family("MellumTopKRouter", "mellum", _FLAG, _flag),
    Family("LaraMiniTopKRouter", "lara_mini", _FLAG, _flag),
    Family("JambaTopKRouter", "jamba", "softmax, top-k", _bare),
    Family("GraniteMoeTopKRouter", "granitemoe", _AFTER, _always),
    Family("GraniteMoeSharedTopKRouter", "granitemoeshared", _AFTER, _always),
    Family("GraniteMoeHybridTopKRouter", "granitemoehybrid", _AFTER, _always),
    Family("GraniteMoeSWATopKRouter", "granitemoe_swa", _AFTER, _always),
    Family("AriaTextTopKRouter", "aria_text", _AFTER, _always),
    Family("GptOssTopKRouter", "gpt_oss", f"{_AFTER}; rows have biases", _always),
    Family(
        "OpenAIPrivacyFilterTopKRouter",
        "openai_privacy_filter",
        f"{_AFTER}, divided by k; rows have biases",
        privacy_filter,
    ),
    Family(
        "Cohere2MoeTopKRouter",
        "cohere2_moe",
        f"{_AFTER}; or sigmoid, renormalised if norm_topk_prob",
        cohere,
    ),
    Family("DeepseekV2TopkRouter", "deepseek_v2", "softmax, limited to groups, scaled", _v2),
    Family("DeepseekOcr2TextTopkRouter", "deepseek_ocr2_text", "softmax, limited to groups, scaled", _v2),
    Family("UnlimitedOcrTextTopkRouter", "unlimited_ocr_text", "softmax, limited to groups, scaled", _v2),
    Family(
        "Mistral4TopkRouter",
        "mistral4",
        "softmax, limited to groups, renormalised if norm_topk_prob, scaled",
        softmax("norm_topk_prob", scale="routed_scaling_factor", limited=True, eps=1e-20),
    ),
    Family(
        "MistralLarge4TextTopkRouter",
        "mistral_large4_text",
        "softmax, limited to groups, renormalised, scaled",
        softmax(True, scale="routed_scaling_factor", limited=True, eps=1e-20),
    ),
    Family("Ernie4_5_MoeTopKRouter", "ernie4_5_moe", "softmax, correction bias, renormalised", _ernie),
    Family(
        "Ernie4_5_VLMoeMoeTopKRouter",
        "ernie4_5_vl_moe_text",
        "softmax, correction bias, renormalised",
        _ernie,
    ),
    Family(
        "LongcatFlashTopkRouter",
        "longcat_flash",
        "softmax, correction bias, scaled; some experts are the identity",
        softmax(False, scale="routed_scaling_factor", bias="e_score_correction_bias"),
        rows="classifier.weight",
    ),
    *(
        Family(
            router,
            model,
            "normed inputs, softmax, renormalised, a scale for each expert",
            softmax(True, gain="per_expert_scale"),
            rows="proj.weight",
            features=gemma_features,
            logits=gemma_logits,
        )
        for router, model in (
            ("Gemma4TextRouter", "gemma4_text"),
            ("DiffusionGemmaTextRouter", "diffusion_gemma_text"),
        )
    ),
    Family("PhimoeTopKRouter", "phimoe", "sparsemixer, one expert after the other", phimoe),
    *(Family(router, model, _GROUPS, _v3) for router, model in _V3_LIKE.items()),
    Family(
        "BeamTopKRouter",
        "beam",
        "sigmoid, correction bias, limited to groups, renormalised if norm_topk_prob",
        sigmoid("norm_topk_prob", bias="e_score_correction_bias", limited=True, eps=1e-20),
    ),
    Family(
        "AfmoeTokenChoiceRouter",
        "afmoe",
        f"{_BIASED}, scaled",
        sigmoid(True, scale="route_scale", bias="given", eps=1e-20),
        rows="gate.weight",
    ),
    Family(
        "HYV3TopKRouter",
        "hy_v3",
        f"{_BIASED}, scaled",
        sigmoid(True, scale="router_scaling_factor", bias="given", eps=1e-20),
    ),
    Family("MiniMaxM2TopKRouter", "minimax_m2", _BIASED, sigmoid(True, bias="given")),
    Family(
        "MiniMaxM3VLTopKRouter",
        "minimax_m3_vl_text",
        _BIASED,
        sigmoid(True, bias="e_score_correction_bias"),
    ),
    Family("Step3p7TopKRouter", "step3p5", _BIASED, sigmoid(True, bias="e_score_correction_bias")),
    Family(
        "Lfm2MoeTopKRouter",
        "lfm2_moe",
        "sigmoid, correction bias, renormalised if norm_topk_prob, scaled",
        sigmoid("norm_topk_prob", scale="routed_scaling_factor", bias="given", eps=1e-6),
    ),
    Family(
        "FlintTopKRouter",
        "flint",
        "sigmoid, top-k, renormalised if norm_topk_prob",
        _flint,
    ),
    Family(
        "Kolibri1TopKRouter",
        "kolibri1",
        "top-k of logits and correction bias, sigmoid, renormalised if norm_topk_prob",
        sigmoid("norm_topk_prob", bias="e_score_correction_bias", bias_on_logits=True),
    ),
    Family(
        "LagunaTopKRouter",
        "laguna",
        f"soft-capped logits, {_BIASED}",
        sigmoid(True, bias="e_score_correction_bias"),
        bend=softcap,
    ),
    Family(
        "MuseSparkTopkRouter",
        "muse_spark_text",
        f"multiplied logits, {_BIASED}, scaled",
        sigmoid(True, scale="routed_scaling_factor", bias="e_score_correction_bias", eps=1e-15),
        bend=multiply,
    ),
    Family(
        "DeepseekV4TopKRouter", "deepseek_v4", "scoring_func, correction bias, renormalised, scaled", _own
    ),
    Family(
        "DeepseekV4HashRouter",
        "deepseek_v4",
        "experts fixed by the token",
        refused="its experts are fixed by the token's id, so that new ones cannot compete for a token",
    ),
    Family(
        "Inkling2TopKRouter", "inkling2_text", "scoring_func, correction bias, renormalised, scaled", _own
    ),
    Family(
        "Inkling2LoopTopKRouter",
        "inkling2_loop_text",
        "scoring_func, correction bias, renormalised, scaled",
        _own,
    ),
    Family(
        "InklingTopkRouter",
        "inkling_text",
        "sigmoid, correction bias, renormalised together with the shared experts",
        refused="its shared experts are weighed together with the chosen ones, so that a new expert would change "
        "them too",
    ),
    Family(
        "ZayaRouter",
        "zaya",
        "an MLP over a state that passes from layer to layer",
        refused="its router is an MLP over a state that passes from layer to layer: no expert has a row to copy",
        rows="down_proj.weight",
    ),
    Family(
        "Llama4Router",
        "llama4_text",
        "top-k, sigmoid; weights scale the inputs of experts, which compute every token",
        rule("sigmoid", False, bias_on_logits=True),
    ),
]
FAMILIES = {family.router: family for family in _TABLE}
"""Router class -> family."""

EAGER_WITHOUT_SENTINEL = {
    "GptOssExperts",
    "OpenAIPrivacyFilterExperts",
    "NemotronHExperts",
    "LongcatFlashExperts",
}
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
