"""Upcycling: a dense language model -> an equivalent Mixture of Experts of a stock transformers class.

Every expert of a layer starts as a copy of the layer's MLP ("Sparse Upcycling", arXiv 2212.05055). The weights of the
chosen experts sum to one, so the mixture equals the MLP. This needs an MoE class with the same other parts (attention,
norms, rotary embedding, multipliers) as the dense class: `counterpart` knows them, and all other models are refused.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn

from moextend.errors import InputError
from moextend.model.multimodal import MultimodalLM
from moextend.moe.sites import Site, count_chosen, count_experts, find_sites

SUPPORTED = ("granite", "llama", "mistral", "olmo2", "qwen2", "qwen3")
"""`model_type` of the dense configs with an equivalent MoE class."""
_OWN = ("model_type", "architectures", "transformers_version", "layer_types", "quantization_config")
"""Settings of a dense config that are not copied."""


@dataclass(frozen=True)
class Counterpart:
    """The MoE class for a dense one."""

    family: str
    """`model_type` of the MoE class."""
    count: str = "num_local_experts"
    """Key of the number of experts in its config."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Its config settings that the dense config does not have."""


def counterpart(config: Any) -> Counterpart:
    """MoE class for a dense model's config; InputError if no class is equivalent."""
    if getattr(config, "mlp_bias", False):
        raise _refusal(config, "its MLPs have biases, and no such MoE class has experts with biases")
    kinds = set(getattr(config, "layer_types", None) or ())
    gated = {"moe_intermediate_size": getattr(config, "intermediate_size", 0), "norm_topk_prob": True}
    match config.model_type:
        case "llama" if config.attention_bias:
            # Mixtral's attention has no biases. Granite's is Llama's where its multipliers are neutral.
            width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
            return Counterpart("granitemoe", settings={"attention_multiplier": int(width) ** -0.5})
        case "llama" | "mistral":
            return Counterpart("mixtral")
        case "granite":
            return Counterpart("granitemoe")
        case "qwen2":  # no shared expert: its output is zero whatever its gate says
            own = {
                "shared_expert_intermediate_size": 0,
                "qkv_bias": True,
                "layer_types": list(config.layer_types),
            }
            return Counterpart("qwen2_moe", "num_experts", {**gated, **own})
        case "qwen3" if len(kinds) > 1:
            raise _refusal(config, "Qwen3-MoE has one kind of attention for all layers, this model has two")
        case "qwen3":
            own = {"use_sliding_window": kinds == {"sliding_attention"}}
            return Counterpart("qwen3_moe", "num_experts", {**gated, **own})
        case "olmo2":
            return Counterpart("flex_olmo", "num_experts", {"norm_topk_prob": True})
    experts = hasattr(config, "num_experts_per_tok")
    unknown = "no MoE class is known whose other parts are the same"
    raise _refusal(config, "it has experts already" if experts else unknown)


def upcycle(
    model: MultimodalLM,
    *,
    experts: int,
    top_k: int = 2,
    router_std: float = 0.02,
    seed: int = 0,
    keep_dense: bool = True,
    on_layer: Callable[[int, int], None] | None = None,
) -> MultimodalLM:
    """The model with its dense language model upcycled; tokenizer, encoders and projectors are kept.

    See `upcycle_lm` for the arguments.
    """
    lm = upcycle_lm(
        model.lm, experts=experts, top_k=top_k, router_std=router_std, seed=seed,
        keep_dense=keep_dense, on_layer=on_layer,
    )  # fmt: skip
    encoders = {name: modality.encoder for name, modality in model.modalities.items()}
    made = MultimodalLM(lm, model.tokenizer, encoders=encoders)
    for name, modality in model.modalities.items():
        made.modalities[name].projector.load_state_dict(modality.projector.state_dict())
        made.modalities[name].projector.aligned = modality.projector.aligned
        made.modalities[name].features = modality.features
    return made.to(model.device)


def upcycle_lm(
    dense: Any,
    *,
    experts: int,
    top_k: int = 2,
    router_std: float = 0.02,
    seed: int = 0,
    keep_dense: bool = True,
    on_layer: Callable[[int, int], None] | None = None,
) -> Any:
    """A stock MoE model with the logits of `dense`, up to rounding of the experts' weights.

    Args:
        dense: a causal LM of transformers, of a family in `SUPPORTED`.
        experts: experts per layer, 2 or more; each is a copy of the layer's MLP.
        top_k: experts per token.
        router_std: standard deviation of the router's rows, which are drawn from N(0, router_std^2) with `seed`.
        keep_dense: False frees the tensors of `dense` layer by layer, so that it cannot be used afterwards. The memory
            needed is then that of the new model and of one dense layer.
        on_layer: called with (layers done, all layers).

    Raises:
        InputError: no stock class is equivalent, the weights are quantised, or the numbers do not fit.
    """
    check_numbers(experts, top_k)
    _refuse_quantised(dense)
    goal = counterpart(dense.config)
    moe = _empty(dense, goal, experts, top_k)
    sites, layers = find_sites(moe), dense.model.layers
    assert len(sites) == len(layers), "every layer of the counterpart has experts"
    _refuse_strangers(dense, moe)
    generator = torch.Generator().manual_seed(seed)
    for site, layer in zip(sites, layers, strict=True):
        rows = torch.randn(cast(Tensor, site.router.weight).shape, generator=generator) * router_std
        _fill(site, layer.mlp, rows)
        if not keep_dense:
            del layer.mlp
        if on_layer:
            on_layer(site.layer + 1, len(sites))
    for name, parameter in dense.named_parameters():
        if ".mlp." not in name:
            _place(moe, name, parameter.detach().clone() if keep_dense else parameter.detach())
    for name, parameter in moe.named_parameters():
        if ".shared_expert" in name:  # of Qwen2-MoE
            _place(moe, name, torch.zeros(parameter.shape, dtype=dense.dtype, device=dense.device))
    moe.tie_weights()
    rotary = moe.model.rotary_emb
    moe.model.rotary_emb = type(rotary)(moe.config).to(dense.device)
    assert not any(tensor.is_meta for tensor in (*moe.parameters(), *moe.buffers())), "all is filled"
    moe.generation_config = copy.deepcopy(dense.generation_config)
    if dense.device.type == "cpu":
        moe.set_experts_implementation("eager")
    return moe.eval()


def skeleton(dense: Any, experts: int, top_k: int) -> Any:
    """The model that `upcycle_lm` would return, on device meta: parameters have shapes and no memory."""
    check_numbers(experts, top_k)
    return _empty(dense, counterpart(dense.config), experts, top_k)


def parameter_counts(lm: Any) -> tuple[int, int]:
    """(number of parameters, number of parameters that one token uses)."""
    total = sum(parameter.numel() for parameter in lm.parameters())
    idle = 0
    for site in find_sites(lm):
        stacks = sum(p.numel() for p in site.experts.parameters(recurse=False) if p.dim() == 3)
        count = count_experts(site)
        idle += stacks // count * (count - count_chosen(site))
    return total, total - idle


def check_numbers(experts: int, top_k: int) -> None:
    """Raises InputError if the numbers of experts do not fit; needs no model."""
    if experts < 2 or not 1 <= top_k <= experts:
        raise InputError(
            f"{top_k} of {experts} experts per token are not possible.",
            where="upcycle",
            hint="Use at least 2 experts, and top_k from 1 to their number.",
        )


def _empty(dense: Any, goal: Counterpart, experts: int, top_k: int) -> Any:
    """The MoE model on device meta."""
    from transformers import AutoConfig, AutoModelForCausalLM

    settings = {key: value for key, value in dense.config.to_dict().items() if key not in _OWN}
    settings |= {**goal.settings, goal.count: experts, "num_experts_per_tok": top_k}
    config = AutoConfig.for_model(goal.family, **copy.deepcopy(settings))
    with torch.device("meta"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Initializing zero-element tensors")  # Qwen2-MoE's shared expert
        return AutoModelForCausalLM.from_config(
            config, dtype=dense.dtype, attn_implementation=dense.config._attn_implementation
        )


def _fill(site: Site, mlp: nn.Module, rows: Tensor) -> None:
    """Fills the experts with copies of a gated MLP: gate_up [E, 2 I, H] and down [E, H, I]."""
    copies = cast(int, site.experts.num_experts)
    parts = [
        cast(nn.Linear, getattr(mlp, name)).weight.detach() for name in ("gate_proj", "up_proj", "down_proj")
    ]
    stacks = {"gate_up_proj": torch.cat(parts[:2]), "down_proj": parts[2]}
    for name, stack in stacks.items():
        _place(site.experts, name, stack.repeat(copies, 1, 1))
    _place(site.router, "weight", rows.to(parts[0]))


def _place(model: nn.Module, name: str, tensor: Tensor) -> None:
    """Replaces the meta tensor `name`."""
    path, _, leaf = name.rpartition(".")
    module = model.get_submodule(path)
    place = module._parameters[leaf]
    assert place is not None and place.shape == tensor.shape, name
    module._parameters[leaf] = nn.Parameter(tensor.contiguous())


def _refuse_quantised(dense: Any) -> None:
    if getattr(dense.config, "quantization_config", None) or not all(
        parameter.is_floating_point() for parameter in dense.parameters()
    ):
        raise InputError(
            "the weights are quantised, and experts cannot be copied from packed blocks.",
            where="upcycle",
            hint="Load the model dequantised; moextend.load dequantises a .gguf file.",
        )


def _refuse_strangers(dense: Any, moe: Any) -> None:
    """Refuses a dense model with parameters that the counterpart does not have, such as an adapter's."""
    places = set(dict(moe.named_parameters(remove_duplicate=False)))
    for name, _ in dense.named_parameters():
        known = (".mlp.gate_proj.weight", ".mlp.up_proj.weight", ".mlp.down_proj.weight")
        if name not in places and not name.endswith(known):
            raise _refusal(dense.config, f"{type(moe).__name__} has no place for its parameter {name}")


def _refusal(config: Any, reason: str) -> InputError:
    return InputError(
        f"a {config.model_type} model cannot be upcycled: {reason}.",
        where="upcycle",
        hint=f"Supported: {', '.join(SUPPORTED)}; none with biases in its MLPs.",
    )
