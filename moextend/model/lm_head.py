"""The parts of a causal LM that compute text: its decoder, its config, and the logits of its last hidden states.

An LM's own forward pass applies the head to all positions; here the caller applies it to predicted positions only. The
steps of some families around the head are repeated here, and a test compares both for every family. A composite
(Gemma 4, Qwen3-VL, ...) has a text model and towers for images or sound: this module uses its text model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

from moextend.errors import InputError


def auto_class(config: Any) -> Any:
    """Class of transformers that loads a checkpoint with this config as a language model.

    A text model if transformers has one for the config, else the composite around it (Qwen3-VL, GLM-4V, ...).

    Raises:
        InputError: transformers has no class for it with next-token prediction.
    """
    from transformers import (
        MODEL_FOR_CAUSAL_LM_MAPPING,
        MODEL_FOR_MULTIMODAL_LM_MAPPING,
        AutoModelForCausalLM,
        AutoModelForMultimodalLM,
        GenerationMixin,
    )

    kind = type(config)
    if kind in MODEL_FOR_CAUSAL_LM_MAPPING or not kind.__module__.startswith("transformers."):
        return AutoModelForCausalLM  # also for code that a checkpoint brings along
    found: Any = MODEL_FOR_MULTIMODAL_LM_MAPPING.get(kind, None)
    if found is None or not issubclass(found, GenerationMixin):
        what = "no language model" if found is None else f"{found.__name__}, which is not a language model,"
        raise InputError(
            f"transformers has {what} for it that generates token by token.",
            where=f"model type '{config.model_type}'",
            hint="Name a checkpoint of a causal language model.",
        )
    return AutoModelForMultimodalLM


def talking_config(config: Any) -> Any:
    """Config of the language model in a checkpoint's config: the thinker of Qwen-Omni, else all of it."""
    return getattr(config, "thinker_config", None) or config


def text_config(config: Any) -> Any:
    """Config of the text model: the config itself, or a part of a composite's config."""
    return config.get_text_config(decoder=True)


def decoder(lm: Any) -> Any:
    """Module from ids or embeddings to last hidden states, without head and towers."""
    return _decoder_and_head(lm)[0]


def cache_name(lm: Any) -> str:
    """Name of the argument of `decoder(lm)` for the cache: it was renamed in transformers 5.24."""
    return "cache" if "cache" in signature(decoder(lm).forward).parameters else "past_key_values"


def prefix(lm: Any) -> str:
    """What the names of `decoder(lm)`'s modules and parameters begin with in the LM: "model.", "" for all."""
    inner = decoder(lm)
    name = next((name for name, module in lm.named_modules() if module is inner), "")
    return f"{name}." if name else ""


def without_towers(lm: Any) -> Callable[[str], bool]:
    """Whether a parameter of the LM, by its name, is of the decoder or the head; those of towers never compute."""
    inside, head = prefix(lm), _decoder_and_head(lm)[1]
    own = next((f"{name}." for name, module in lm.named_modules() if module is head), None)
    return lambda name: name.startswith(inside) or (own is not None and name.startswith(own))


def attention_blocks(lm: Any) -> list[str]:
    """Names of the attention modules of a language model, linear attention included, without those of towers."""
    inside, kinds = prefix(lm), {name: type(module).__name__ for name, module in lm.named_modules()}
    return [
        name
        for name, kind in kinds.items()
        if name.startswith(inside)
        and (name.endswith("_attn") or ("Attention" in kind and not kind.endswith("Layer")))  # Jamba's layers
    ]


def logits(lm: Any, hidden: Tensor) -> Tensor:
    """Logits [..., vocabulary] for last hidden states [..., H] of `decoder(lm)`; InputError if there is no head."""
    config, head = text_config(lm.config), _decoder_and_head(lm)[1]
    if head is None:
        raise InputError(
            "has no language-model head.",
            where=f"model '{type(lm).__name__}'",
            hint="Load it with AutoModelForCausalLM; a text model without a class for that, with its composite.",
        )
    width = getattr(config, "logits_mup_width_multiplier", None)  # Inkling
    out: Tensor = head(hidden if width is None else hidden / width)
    if (scale := getattr(config, "logits_scaling", None)) is not None:  # Granite
        out = out / scale
    if (scale := getattr(config, "logit_scale", None)) is not None:  # Cohere
        out = out * scale
    if (scale := getattr(config, "output_multiplier", None)) is not None:  # Muse Spark
        out = out * scale
    if (cap := getattr(config, "final_logit_softcapping", None)) is not None:  # Gemma
        out = torch.tanh(out.float() / cap) * cap
    kept = getattr(config, "unpadded_vocab_size", None)
    return out if kept is None else out[..., :kept]


def needs_ids(lm: Any) -> bool:
    """Whether the LM needs token ids and not only their embeddings.

    DeepSeek-V4 assigns experts by id, Gemma has more embeddings in each layer, and the composite of Gemma 4 cannot
    generate from embeddings.
    """
    prepare = getattr(lm, "prepare_inputs_for_generation", None)  # a model without a head has none
    return layers_need_ids(lm) or (
        prepare is not None and "inputs_embeds" not in signature(prepare).parameters
    )


def layers_need_ids(lm: Any) -> bool:
    """Whether a layer reads token ids (DeepSeek-V4), or an embedding of its own of them (Gemma)."""
    by_token = any(isinstance(getattr(module, "tid2eid", None), Tensor) for module in lm.modules())
    return by_token or bool(getattr(text_config(lm.config), "hidden_size_per_layer_input", 0))


def _decoder_and_head(lm: Any) -> tuple[Any, Any]:
    """Decoder and head; the text model of some composites is a causal LM with a head (Nemotron Omni)."""
    inner, head = lm.get_decoder(), lm.get_output_embeddings()
    if (own := inner.get_output_embeddings()) is not None:
        inner, head = inner.model, own
    return inner, head


class NotAbove(ValueError):
    """An LM cannot start above its lowest layers; the text says why."""


def decoder_layers(lm: Any) -> list[nn.Module]:
    """Layers of the decoder, lowest first; NotAbove if it has no list of them."""
    found = getattr(decoder(lm), "layers", None)
    if not isinstance(found, nn.ModuleList):
        raise NotAbove("it has no list of decoder layers")
    return list(found)


@contextmanager
def caught(layer: nn.Module) -> Iterator[list[Tensor]]:
    """Context that yields the output [B, T, ...] of a layer after a forward pass; NotAbove if it is no tensor."""
    states: list[Tensor] = []

    def catch(layer: nn.Module, args: Any, out: Any) -> None:
        if not isinstance(out, Tensor):
            raise NotAbove("its layers pass on more than one tensor")
        states.append(out.detach())

    hook = layer.register_forward_hook(catch)
    try:
        yield states
    finally:
        hook.remove()


@contextmanager
def handing_in(skipped: Sequence[nn.Module], states: Tensor) -> Iterator[None]:
    """Context in which the skipped layers compute nothing, and the last of them returns `states`."""

    def through(hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return hidden_states

    def given(*args: Any, **kwargs: Any) -> Tensor:
        return states

    before = [layer.__dict__.get("forward") for layer in skipped]
    for layer in skipped:
        layer.forward = given if layer is skipped[-1] else through
    try:
        yield
    finally:
        for layer, own in zip(skipped, before, strict=True):
            del layer.forward
            if own is not None:
                layer.forward = own


def close(one: Tensor, other: Tensor) -> bool:
    """Whether two results are equal up to rounding of sums in another order."""
    most = float(one.abs().max()) if one.numel() else 0.0
    return torch.allclose(one, other, rtol=0, atol=1e-3 * most)
