"""The MoE families of transformers: where each router's rows are, how it scores, and what can be extended.

`exact` routing asks little of a router: it stands beside it. `paper` routing repeats the router's own scoring over
more experts, and a row of FAMILIES says how that router scores, or why its scoring cannot take in new experts.
A router that no row names is extended in `exact` routing if its rows are a matrix called ``weight``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from moextend.errors import InputError
from moextend.moe.constants import held


@dataclass(frozen=True)
class Scoring:
    """How a router turns logits into a choice of k experts and their weights.

    The scores are p = softmax(logits) or p = score(logits); the k largest p + bias are chosen; a chosen expert weighs
    p, divided by the sum of the k where they are normalised, times scale and its own gain.
    """

    normalise: bool
    """The k chosen weights are made to sum to one."""
    score: Callable[[Tensor], Tensor] | None = None
    """Scores expert by expert (a sigmoid); None is a softmax over all experts."""
    bias: Tensor | None = None
    """[m], added to the scores for the choice only."""
    bias_on_logits: bool = False
    """The choice is made by logits, with the bias if there is one."""
    limited: bool = False
    """The router chooses from some groups of its experts only."""
    scale: float = 1.0
    gain: Tensor | None = None
    """[m], a factor on the weight of each expert."""
    eps: float = 0.0
    """Added to the sum that the weights are divided by."""
    floor: float = 0.0
    """Least value of that sum."""
    choose: Callable[[Tensor], tuple[Tensor, Tensor]] | None = None
    """The family's own choice, logits [T, n] -> (weights, index), for what fits no rule above."""

    @property
    def keeps_order(self) -> bool:
        """New experts leave the order of the old ones: not where a bias is added to softmax scores, which shrink."""
        return self.bias is None or self.score is not None or self.bias_on_logits


@dataclass(frozen=True)
class Family:
    """One router class of transformers."""

    router: str
    """Name of the router's class."""
    model: str
    """The `model_type` that uses it."""
    says: str
    """The scoring in words."""
    scoring: Callable[[Any, Sequence[Any]], Scoring] | None = None
    """Reads the scoring from a router and from what its block hands it beside the hidden states."""
    refused: str = ""
    """Why `paper` routing cannot extend it."""
    rows: str = "weight"
    """Where the router's row matrix [m, H] is."""
    features: Callable[[Any, Tensor], Tensor] | None = None
    """What the rows are multiplied with, from the router's inputs [T, H]; None: the inputs."""
    logits: Callable[[Any, Tensor], Tensor] | None = None
    """The base's logits from the features; None: the router returns them first."""
    bend: Callable[[Any, Tensor], Tensor] | None = None
    """What the router does to row products to make them logits; None: nothing."""


def _softmax(normalise: bool | str, **more: Any) -> Callable[[Any, Sequence[Any]], Scoring]:
    return _rule(None, normalise, **more)


def _sigmoid(normalise: bool | str, **more: Any) -> Callable[[Any, Sequence[Any]], Scoring]:
    return _rule("sigmoid", normalise, **more)


def _rule(
    score: str | None,
    normalise: bool | str,
    *,
    scale: str = "",
    bias: str = "",
    gain: str = "",
    floor: str = "",
    **fixed: Any,
) -> Callable[[Any, Sequence[Any]], Scoring]:
    """A scoring whose parts are attributes of the router, named here; bias "given" is what the block hands over."""

    def read(router: Any, given: Sequence[Any]) -> Scoring:
        shift = (given[0] if given else None) if bias == "given" else _at(router, bias) if bias else None
        return Scoring(
            normalise=bool(getattr(router, normalise)) if isinstance(normalise, str) else normalise,
            score=_score(router, score),
            scale=float(getattr(router, scale)) if scale else 1.0,
            bias=None if shift is None else shift.detach().flatten(),
            gain=_at(router, gain).detach() if gain else None,
            floor=float(getattr(router, floor)) if floor else 0.0,
            **fixed,
        )

    return read


def _score(router: Any, name: str | None) -> Callable[[Tensor], Tensor] | None:
    if name is None:
        return None
    return Tensor.sigmoid if name == "sigmoid" else cast(Callable[[Tensor], Tensor], getattr(router, name))


def _at(module: Any, path: str) -> Any:
    return reduce(getattr, path.split("."), module)


def _cohere(router: Any, given: Sequence[Any]) -> Scoring:
    if router.expert_selection_fn == "softmax":
        return Scoring(normalise=True)
    return Scoring(normalise=bool(router.norm_topk_prob), score=Tensor.sigmoid)


def _privacy_filter(router: Any, given: Sequence[Any]) -> Scoring:
    return Scoring(normalise=True, scale=1 / router.top_k)


def _phimoe(router: Any, given: Sequence[Any]) -> Scoring:
    home = next(kind for kind in type(router).__mro__ if kind.__name__ == "PhimoeTopKRouter").__module__
    mixer = cast(Any, sys.modules[home]).sparsemixer

    def choose(logits: Tensor) -> tuple[Tensor, Tensor]:
        noise = router.router_jitter_noise
        return cast(
            tuple[Tensor, Tensor],
            mixer(logits, jitter_eps=noise, training=router.training, top_k=router.top_k),
        )

    return Scoring(normalise=False, choose=choose)


def _gemma_features(router: Any, x: Tensor) -> Tensor:
    return cast(Tensor, router.norm(x) * router.scale * router.scalar_root_size)


def _gemma_logits(router: Any, features: Tensor) -> Tensor:
    return F.linear(features, router.proj.weight)


def _softcap(router: Any, product: Tensor) -> Tensor:
    cap = router.router_logit_softcapping
    return (product / cap).tanh() * cap if cap > 0 else product


def _multiply(router: Any, product: Tensor) -> Tensor:
    return product * cast(float, router.output_multiplier)


_ALWAYS = "softmax, top-k, renormalised"
_FLAG = "softmax, top-k, renormalised if norm_topk_prob"
_AFTER = "top-k, softmax of the k"
_GROUPS = "sigmoid, correction bias, limited to groups, renormalised if norm_topk_prob, scaled"
_BIASED = "sigmoid, correction bias, top-k, renormalised"

_always = _softmax(True)
_flag = _softmax("norm_topk_prob")
_v2 = _softmax(False, scale="routed_scaling_factor", limited=True)
_v3 = _sigmoid(
    "norm_topk_prob",
    scale="routed_scaling_factor",
    bias="e_score_correction_bias",
    limited=True,
    eps=1e-20,
)
_own = _rule("score_fn", True, scale="routed_scaling_factor", bias="e_score_correction_bias", eps=1e-20)
_ernie = _softmax(True, bias="moe_statics.e_score_correction_bias", floor="norm_min")

_bare = _softmax(False)
_flint = _sigmoid("norm_topk_prob")
_BY_LOGITS = (_always, _flag, _bare, _flint, _privacy_filter, _cohere)

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
        _privacy_filter,
    ),
    Family(
        "Cohere2MoeTopKRouter",
        "cohere2_moe",
        f"{_AFTER}; or sigmoid, renormalised if norm_topk_prob",
        _cohere,
    ),
    Family("DeepseekV2TopkRouter", "deepseek_v2", "softmax, limited to groups, scaled", _v2),
    Family("DeepseekOcr2TextTopkRouter", "deepseek_ocr2_text", "softmax, limited to groups, scaled", _v2),
    Family("UnlimitedOcrTextTopkRouter", "unlimited_ocr_text", "softmax, limited to groups, scaled", _v2),
    Family(
        "Mistral4TopkRouter",
        "mistral4",
        "softmax, limited to groups, renormalised if norm_topk_prob, scaled",
        _softmax("norm_topk_prob", scale="routed_scaling_factor", limited=True, eps=1e-20),
    ),
    Family(
        "MistralLarge4TextTopkRouter",
        "mistral_large4_text",
        "softmax, limited to groups, renormalised, scaled",
        _softmax(True, scale="routed_scaling_factor", limited=True, eps=1e-20),
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
        _softmax(False, scale="routed_scaling_factor", bias="e_score_correction_bias"),
        rows="classifier.weight",
    ),
    *(
        Family(
            router,
            model,
            "normed inputs, softmax, renormalised, a scale for each expert",
            _softmax(True, gain="per_expert_scale"),
            rows="proj.weight",
            features=_gemma_features,
            logits=_gemma_logits,
        )
        for router, model in (
            ("Gemma4TextRouter", "gemma4_text"),
            ("DiffusionGemmaTextRouter", "diffusion_gemma_text"),
        )
    ),
    Family("PhimoeTopKRouter", "phimoe", "sparsemixer, one expert after the other", _phimoe),
    *(Family(router, model, _GROUPS, _v3) for router, model in _V3_LIKE.items()),
    Family(
        "BeamTopKRouter",
        "beam",
        "sigmoid, correction bias, limited to groups, renormalised if norm_topk_prob",
        _sigmoid("norm_topk_prob", bias="e_score_correction_bias", limited=True, eps=1e-20),
    ),
    Family(
        "AfmoeTokenChoiceRouter",
        "afmoe",
        f"{_BIASED}, scaled",
        _sigmoid(True, scale="route_scale", bias="given", eps=1e-20),
        rows="gate.weight",
    ),
    Family(
        "HYV3TopKRouter",
        "hy_v3",
        f"{_BIASED}, scaled",
        _sigmoid(True, scale="router_scaling_factor", bias="given", eps=1e-20),
    ),
    Family("MiniMaxM2TopKRouter", "minimax_m2", _BIASED, _sigmoid(True, bias="given")),
    Family(
        "MiniMaxM3VLTopKRouter",
        "minimax_m3_vl_text",
        _BIASED,
        _sigmoid(True, bias="e_score_correction_bias"),
    ),
    Family("Step3p7TopKRouter", "step3p5", _BIASED, _sigmoid(True, bias="e_score_correction_bias")),
    Family(
        "Lfm2MoeTopKRouter",
        "lfm2_moe",
        "sigmoid, correction bias, renormalised if norm_topk_prob, scaled",
        _sigmoid("norm_topk_prob", scale="routed_scaling_factor", bias="given", eps=1e-6),
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
        _sigmoid("norm_topk_prob", bias="e_score_correction_bias", bias_on_logits=True),
    ),
    Family(
        "LagunaTopKRouter",
        "laguna",
        f"soft-capped logits, {_BIASED}",
        _sigmoid(True, bias="e_score_correction_bias"),
        bend=_softcap,
    ),
    Family(
        "MuseSparkTopkRouter",
        "muse_spark_text",
        f"multiplied logits, {_BIASED}, scaled",
        _sigmoid(True, scale="routed_scaling_factor", bias="e_score_correction_bias", eps=1e-15),
        bend=_multiply,
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
        _rule("sigmoid", False, bias_on_logits=True),
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
"""Experts classes whose eager loop fails on the id behind the last expert, which the others leave out."""

NEEDS_TWO_SLOTS = {"LongcatFlashExperts"}
"""Experts classes whose loop fails for one expert and one slot."""

NOT_FUSED = {
    "DbrxFFN": "DBRX keeps all experts in flat matrices inside another module",
    "JetMoeMoE": "JetMoE sorts tokens into its experts' linear layers itself",
    "NllbMoeSparseMLP": "NLLB-MoE keeps one module an expert",
    "SwitchTransformersSparseMLP": "Switch Transformers keeps one module an expert",
    "DogeCDMoE": "Doge's experts are single rows of an embedding",
}
"""MoE blocks whose experts are no stack of 3-D tensors -> why they cannot be extended."""


def family_of(router: nn.Module) -> Family:
    """The row of `router`; for one that no row names, a row that `exact` routing can work with."""
    for kind in type(router).__mro__:
        if kind.__name__ in FAMILIES:
            return FAMILIES[kind.__name__]
    kind = type(router)
    return Family(kind.__name__, "", "", refused=f"it does not know the router {kind.__name__}")


def check_paper(router: nn.Module) -> None:
    """InputError where `paper` routing cannot repeat the scoring of `router`."""
    family = family_of(router)
    if family.scoring is None:
        raise InputError(
            f"routing 'paper' cannot extend {family.router}: {family.refused}.",
            hint="Use routing 'exact', which extends every family. docs/families.md lists what 'paper' extends.",
        )


def scoring_of(router: nn.Module, given: Sequence[Any] = ()) -> Scoring:
    """How `router` scores; `given` is what its block hands it beside the hidden states.

    Raises:
        InputError: `paper` routing cannot repeat it.
    """
    check_paper(router)
    scoring = family_of(router).scoring
    assert scoring is not None
    return scoring(router, given)


def chooses_by_logits(router: nn.Module) -> bool:
    """Whether the router returns logits whose k largest are chosen, with nothing added for the choice."""
    return family_of(router).scoring in _BY_LOGITS


def rows_of(router: nn.Module) -> Tensor | None:
    """The router's row matrix [m, H]; None for a module that has none and so is no router."""
    try:
        rows = _at(router, family_of(router).rows)
    except AttributeError:
        return None
    return rows if isinstance(rows, Tensor) and rows.dim() == 2 else None


def features(router: nn.Module, x: Tensor) -> Tensor:
    """What rows are multiplied with, [T, H], for router inputs x [T, H]."""
    make = family_of(router).features
    return x if make is None else make(router, x)


def chosen_experts(router: nn.Module, out: Any) -> Tensor:
    """The experts [T, k] that `router` chose when it returned `out`."""
    if len(out) > 2:
        return cast(Tensor, out[2])
    return cast(Tensor, out[1].topk(cast(int, router.top_k), dim=-1)[1])


def with_parents(values: Tensor, parents: Sequence[int]) -> Tensor:
    """Values of the base's experts [m] with those of new experts behind them: each has its parent's."""
    return torch.cat([values, values[held(parents, values.device)]])
