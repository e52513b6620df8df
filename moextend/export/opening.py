"""Opens folders of extended models: the language model for transformers, or the model with its encoders."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError

from moextend.errors import InputError
from moextend.export.auto import FORMAT, MoextendConfig
from moextend.export.saving import BASE, EXTENSIONS, PROJECTORS
from moextend.extension import align, store
from moextend.extension.activate import activate
from moextend.extension.folder import MODEL_TYPE
from moextend.model import loading
from moextend.model.base_name import type_parts
from moextend.model.multimodal import MultimodalLM
from moextend.util import hub_errors

_HUB = ("cache_dir", "force_download", "local_files_only", "proxies", "token")
"""Options of `from_pretrained` that are for downloads."""
_OTHERS = ("adapter_kwargs", "subfolder", "gguf_file", "code_revision", "use_safetensors")
"""Options that say where in a folder stock weights lie."""


def open_lm(folder: str | Path, config: MoextendConfig | None, options: Mapping[str, Any]) -> Any:
    """The extended language model; see `MoextendForCausalLM.from_pretrained`."""
    given = {key: value for key, value in options.items() if not key.startswith("_")}
    downloads = {key: given[key] for key in _HUB if given.get(key) is not None}
    place = _local(folder, given.pop("revision", None), downloads)
    config = config or read_config(place)
    check(config, place)
    for key in ("attn_implementation", "experts_implementation"):  # the Auto classes leave them in the config
        given[key] = given.get(key) or getattr(config, f"_{key}")
    info, active, *asked = (
        given.pop(key, None) for key in ("output_loading_info", "active", "dtype", "torch_dtype", *_OTHERS)
    )
    wanted = str(asked[0] or asked[1] or "auto").removeprefix("torch.")
    own, quantized = type_parts(config.base_dtype)
    dtype = own if wanted == "auto" else wanted
    lm = loading.load_lm(
        base_of(config, place), revision=config.revision, dtype=getattr(torch, dtype), quantize=quantized,
        **{key: value for key, value in given.items() if value is not None},
    )  # fmt: skip
    if lm.device.type == "cpu" and given["experts_implementation"] is None:
        lm.set_experts_implementation(loading.CPU_EXPERTS)
    model = MultimodalLM(lm, None)
    _extend(model, config, place, allow_dtype=dtype != own, lm_only=True)
    activate(model, config.computing() if active is None else active)
    lm.eval()
    nothing = {key: set[str]() for key in ("missing_keys", "unexpected_keys", "mismatched_keys")}
    return (lm, nothing) if info else lm


def load_model(
    folder: str | Path,
    *,
    active: Sequence[str] | Mapping[str, float] | str | None = None,
    dtype: str | None = None,
    device: str = "cpu",
    attn_implementation: str | None = None,
    revision: str | None = None,
) -> MultimodalLM:
    """The model that `save_model` or `moextend export --as moextend` wrote: base, encoders, projectors, extensions.

    Args:
        folder: the folder, or a hub id of one.
        active: as in `moextend.activate` ("auto" infers the extension from each input); None: as it was saved.
        dtype: number type of the base; None: that of the training. Another one gives close, not equal results.
        device: as in `moextend.load`.
        attn_implementation: as in `moextend.load`.
        revision: of a folder on the hub.

    Raises:
        InputError: the folder is incomplete, the base is another one, or an extension cannot be attached.
        RunFailed: a download failed.
    """
    place = _local(folder, revision, {})
    config = read_config(place)
    model = load_base(place, config, dtype=dtype, device=device, attn_implementation=attn_implementation)
    own, _ = type_parts(config.base_dtype)
    _extend(model, config, place, allow_dtype=dtype not in (None, own), lm_only=False)
    activate(model, config.computing() if active is None else active)
    return model


def load_base(
    place: Path,
    config: MoextendConfig,
    *,
    dtype: str | None = None,
    device: str = "cpu",
    attn_implementation: str | None = None,
) -> MultimodalLM:
    """The base of a folder with its encoders and projectors, without the extensions; options as in `load_model`."""
    own, quantized = type_parts(config.base_dtype)
    model = loading.load(
        base_of(config, place),
        encoders=config.encoders,
        resize=config.resize,  # type: ignore[arg-type]
        revision=config.revision,
        dtype=dtype or own,
        quantize=cast(Any, quantized),
        device=device,
        attn_implementation=attn_implementation,
        chat=config.chat,
    )
    for name in config.encoders:
        align.load_projector(model, place / PROJECTORS / name, modality=name)
    return model


def read_config(place: Path) -> MoextendConfig:
    """Config of a folder; InputError if it is no such folder."""
    try:
        values, _ = MoextendConfig.get_config_dict(place)
        config = MoextendConfig.from_dict(values)
    except (OSError, ValueError, TypeError) as error:
        raise _no_folder(place) from error
    if values.get("model_type") != MODEL_TYPE:
        raise _no_folder(place)
    check(config, place)
    return config


def check(config: MoextendConfig, place: Path) -> None:
    """Raises InputError for a format of a later version, or names that are no folders."""
    if config.format != FORMAT:
        raise InputError(
            f"has format {config.format}, and this version of moextend reads format {FORMAT}.",
            where=str(place / "config.json"),
            hint="Use the version that wrote it, or export it again.",
        )
    for each in config.extensions:
        if not re.fullmatch(r"[\w-]+", str(each.get("folder", ""))):
            raise InputError(
                f"names an extension in '{each.get('folder')}', which is not the name of a folder.",
                where=str(place / "config.json"),
                hint="Export it again.",
            )


def _extend(
    model: MultimodalLM, config: MoextendConfig, place: Path, *, allow_dtype: bool, lm_only: bool
) -> None:
    for name, folder in extension_folders(config, place).items():
        store.load_extension(model, folder, name=name, allow_dtype=allow_dtype, lm_only=lm_only)


def extension_folders(config: MoextendConfig, place: Path) -> dict[str, Path]:
    """Extension of a folder -> its folder, oldest first."""
    return {each["name"]: place / EXTENSIONS / each["folder"] for each in config.extensions}


def base_of(config: MoextendConfig, place: Path) -> str:
    """What the base of a folder is loaded by: a folder in it, or its name."""
    return str(place / BASE) if config.base_copied else config.base


def _local(folder: str | Path, revision: str | None, downloads: Mapping[str, Any]) -> Path:
    """The folder on this machine; one of the hub is downloaded."""
    if Path(folder).is_dir():
        return Path(folder)

    try:
        return Path(snapshot_download(str(folder), revision=revision, **downloads))
    except Exception as error:
        if (failed := hub_errors.of_hub(error, str(folder), revision=revision)) is not None:
            raise failed from error
        if not isinstance(error, OSError | HFValidationError):
            raise
        raise _no_folder(folder) from error


def _no_folder(place: str | Path) -> InputError:
    return InputError(
        "holds no extended model.",
        where=str(place),
        hint="Name a folder that 'moextend export --as moextend' or moextend.save_model wrote.",
    )
