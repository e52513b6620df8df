"""Loads audio towers from checkpoints of transformers: safetensors only, and no code of a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, cast

import numpy as np
import torch

from moextend.errors import InputError
from moextend.model.audio_towers import Clap, Spectrogram, TransformersTower, Waves, Whisper
from moextend.util import hub_errors
from moextend.util.quiet import quiet_loggers

KINDS: dict[str, type[TransformersTower]] = {
    "whisper": Whisper,
    "wav2vec2": Waves,
    "hubert": Waves,
    "wavlm": Waves,
    "audio-spectrogram-transformer": Spectrogram,
    "clap": Clap,
    "clap_audio_model": Clap,
}
"""`model_type` of a config -> tower."""
_CHANGING = ("_name_or_path", "architectures", "dtype", "torch_dtype", "transformers_version")
"""Keys of a config that do not change the frames."""


def load_tower(source: str, config: Mapping[str, Any], revision: str | None, where: str) -> TransformersTower:
    """Tower of a folder or hub id, whose config.json holds `config`.

    Raises:
        InputError: of another kind, its extractor or weights are missing or do not fit, or no safetensors.
    """
    import transformers

    kind = KINDS.get(str(config.get("model_type")))
    if kind is None:
        raise InputError(
            f"holds a model of type '{config.get('model_type')}', which is not a supported audio encoder.",
            where=where,
            hint=f"Supported: {', '.join(KINDS)}.",
        )
    extractor = _extractor(getattr(transformers, kind.extractor_class), source, revision, where)
    alone = kind.own_class.partition(":")[2]
    own = bool(alone) and alone in (config.get("architectures") or ())
    reader = (
        resolve_name(f"transformers.{kind.own_class}") if own else getattr(transformers, kind.model_class)
    )
    with quiet_loggers("transformers"):
        model, info = _weights(reader, source, revision, where)
    needed = ("",) if own else kind.parts
    missing = sorted(name for name in info["missing_keys"] if name.startswith(needed))
    missing = [name for name in missing if not name.endswith("masked_spec_embed")]
    if missing:
        raise InputError(
            f"the checkpoint lacks {len(missing)} tensors, which would be random ({missing[0]}, ...).",
            where=where,
            hint="Compare config.json with the weights, or copy the checkpoint again.",
        )
    facts = {key: value for key, value in config.items() if key not in _CHANGING}
    try:
        tower = kind(model.eval(), extractor, facts)
        with torch.no_grad():
            found = tower.frames(np.zeros(tower.rate // 5, np.float32))
        assert found.shape == (tower.length(tower.rate // 5), tower.width), f"it gives {list(found.shape)}"
    except (
        ArithmeticError,
        AssertionError,
        AttributeError,
        LookupError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:
        raise InputError(
            f"its preprocessor_config.json does not fit its model ({_first(error)}).",
            where=where,
            hint="Copy both files from the same checkpoint.",
        ) from error
    return tower


def _extractor(reader: Any, source: str, revision: str | None, where: str) -> Any:
    try:
        return reader.from_pretrained(source, revision=revision, trust_remote_code=False)
    except (OSError, ValueError, TypeError, KeyError) as error:
        if not Path(source).exists() and (known := hub_errors.of_hub(error, source, where=where)):
            raise known from error
        raise InputError(
            f"its preprocessor_config.json is missing or cannot be read ({_first(error)}).",
            where=where,
            hint="An encoder needs config.json, model.safetensors and preprocessor_config.json; "
            f"{reader.__name__}().save_pretrained(folder) writes the last.",
        ) from error


def _weights(reader: Any, source: str, revision: str | None, where: str) -> tuple[Any, dict[str, Any]]:
    try:
        return cast(
            tuple[Any, dict[str, Any]],
            reader.from_pretrained(
                source,
                revision=revision,
                use_safetensors=True,
                trust_remote_code=False,
                dtype=torch.float32,
                output_loading_info=True,
            ),
        )
    except Exception as error:  # of transformers, safetensors and their downloads
        if not Path(source).exists() and (known := hub_errors.of_hub(error, source, where=where)):
            raise known from error
        binary = Path(source, "pytorch_model.bin").exists() or "cannot be loaded with `safetensors`" in str(
            error
        )
        raise InputError(
            "has no weights as safetensors."
            if binary
            else f"its weights cannot be loaded ({_first(error)}).",
            where=where,
            hint="Files of pickle (.bin) may run programs and are not read. Save the model again with transformers "
            "(save_pretrained writes model.safetensors)."
            if binary
            else "Check the files, or the name and the connection.",
        ) from error


def _first(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:200].rstrip(".")
