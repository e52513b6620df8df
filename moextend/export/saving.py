"""Writes extended models as folders that transformers loads after `moextend.register_auto_classes()`."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from moextend.errors import InputError
from moextend.export.auto import MoextendConfig
from moextend.export.prompts import save_tokenizer
from moextend.export.stock import stock_model
from moextend.extension import align, store, tensor_files
from moextend.extension.card import read_extension
from moextend.extension.folder import INPUTS, contents
from moextend.model.base_name import base_parts
from moextend.model.fingerprint import tensors_digest
from moextend.model.multimodal import MultimodalLM
from moextend.moe import attach
from moextend.moe.strengths import below_one
from moextend.util import files
from moextend.util.environment import __version__

BASE, EXTENSIONS, PROJECTORS = "base", "extensions", "projectors"
"""Folders in the folder of an extended model."""


def save_model(
    model: MultimodalLM,
    folder: str | Path,
    *,
    base: str | None = None,
    with_base: bool = False,
    revision: str | None = None,
    encoders: Mapping[str, str] | None = None,
    resize: str | None = None,
    active: Sequence[str] | None = None,
) -> None:
    """Writes a model with its extensions; `moextend.load_model` and `AutoModelForCausalLM` load it.

    After `moextend.register_auto_classes()`, `AutoModelForCausalLM.from_pretrained(folder)` loads the language model
    with its extensions.
    The folder is complete or absent.

    Args:
        folder: a new folder.
        base: name that the base is loaded by; it may be left out if the base is copied.
        with_base: copies the base, instead of its name.
        revision: of a base from the hub.
        encoders: modality -> name of its encoder, for the modalities that the model was loaded with.
        resize: as in `moextend.load`.
        active: extensions that compute after loading, each with its strength now; None: the active ones.

    Raises:
        InputError: the folder is not empty, the base or an encoder has no name, or a quantised base is to be copied.
    """
    if not (base or with_base):
        raise InputError(
            "the base has no name to load it by.",
            where="save_model",
            hint="Give base=NAME, or with_base=True.",
        )
    scope = attach.scope_of(model.lm)
    named = _encoders(model, encoders or {})
    with files.new_folder(Path(folder)) as made:
        if with_base:
            copy_base(model, made / BASE)
        for name in named:
            align.save_projector(model, made / PROJECTORS / name, modality=name)
        listed = [_save(model, name, place, made) for place, name in enumerate(scope.known, 1)]
        if model.tokenizer is not None:
            save_tokenizer(model, made)
        if getattr(model.lm, "generation_config", None) is not None:
            model.lm.generation_config.save_pretrained(made)
        computing = list(scope.active if active is None else active)
        _write_config(
            made, strengths=below_one(scope.strengths, computing),
            base=base or "", base_copied=with_base, revision=revision, base_dtype=model.base_dtype,
            base_fingerprint=model.base_fingerprint(), extensions=listed, encoders=named, resize=resize,
            active=computing,
            chat=None if model.tokenizer is None else model.chat is not None,
        )  # fmt: skip


def copy_base(model: MultimodalLM, folder: Path) -> None:
    """Writes the base of an extended model as a stock checkpoint."""
    if getattr(model.lm.config, "quantization_config", None) is not None:
        raise InputError(
            "a quantised base cannot be copied.",
            where="save_model",
            hint="Name it instead: base=NAME, or of a command without --with-base.",
        )
    folder.mkdir()
    with attach.reaching(model.lm, ()):
        stock_model(model.lm).save(folder)
    if model.tokenizer is not None:
        model.tokenizer.save_pretrained(folder)


def _write_config(folder: Path, **values: Any) -> None:
    config = MoextendConfig(moextend_version=__version__, **values)
    config.architectures = ["AutoModelForCausalLM"]  # transformers serve takes that attribute of transformers
    config.save_pretrained(folder)


def _save(model: MultimodalLM, name: str, place: int, made: Path) -> dict[str, str]:
    """Writes extension `name` into the folder, as it is in memory; returns its entry in the config."""
    scope = attach.scope_of(model.lm)
    known, digest = scope.folders.get(name), store.digest_of(model, name)
    own = f"{place:02d}-{re.sub(r'[^A-Za-z0-9_-]', '_', name)}"
    folder = made / EXTENSIONS / own
    if known is not None and _is_same(model, known, digest):
        folder.mkdir(parents=True)
        for file in contents(known).own:
            if file not in (*INPUTS, "log.jsonl"):
                shutil.copyfile(known / file, folder / file)
    else:
        try:
            store.save_extension(model, name, folder=folder)
        finally:
            if known is None:
                scope.folders.pop(name, None)
            else:
                scope.folders[name] = known
    return {"name": name, "folder": own, "mode": scope.mode, "digest": digest}


def _is_same(model: MultimodalLM, folder: Path, digest: str) -> bool:
    """Whether a folder holds an extension with these weights, of the base as it is in memory."""
    if not tensor_files.is_complete(folder):
        return False
    base = base_parts(read_extension(folder).base)[0]
    if base != base_parts(model.base_fingerprint())[0]:
        return False
    return tensors_digest(tensor_files.load_tensors(folder)[0]) == digest


def _encoders(model: MultimodalLM, named: Mapping[str, str]) -> dict[str, str]:
    """Modality -> encoder, for the modalities that the model was loaded with; the others are in the extensions."""
    loaded = [name for name, modality in model.modalities.items() if modality.added is None]
    missing = [name for name in loaded if name not in named]
    if missing:
        raise InputError(
            f"the {missing[0]} encoder has no name to load it by.",
            where="save_model",
            hint=f"Give encoders={{'{missing[0]}': NAME}}.",
        )
    return {name: named[name] for name in loaded}
