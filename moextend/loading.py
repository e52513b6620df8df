"""Loads a base: a model of the package, a local folder, or a hub id; the same code for all three."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from moextend import content
from moextend.chat import chat_of
from moextend.errors import InputError
from moextend.multimodal import MultimodalLM
from moextend.vision import load_encoder


def load(
    model: str,
    *,
    vision: str | None = None,
    revision: str | None = None,
    dtype: str = "float32",
    device: str = "cpu",
    chat: bool | None = None,
    trust_remote_code: bool = False,
) -> MultimodalLM:
    """The base model with its tokenizer and, where `vision` names one, its image encoder; all frozen.

    Args:
        model: a model of the package ("tiny"), a local folder, or a hub id.
        vision: an encoder of the package ("tiny"), a local folder, or one of open_clip or timm
            ("ViT-L-14-336/openai", "hf-hub:...", "timm:..."; see docs/vision.md).
        chat: whether prompts are put into the tokenizer's chat template; None: where it has one.

    Raises:
        InputError: the model or encoder cannot be found or loaded, or its chat template not used.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source = _source(model)
    options: dict[str, Any] = {"revision": revision, "trust_remote_code": trust_remote_code}
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, **options)
        lm = AutoModelForCausalLM.from_pretrained(source, dtype=getattr(torch, dtype), **options)
    except (OSError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        raise InputError(
            f"cannot be loaded as a language model ({first})",
            where=f"model '{model}'",
            mend="Name a model of the package (tiny), a folder saved by transformers, or a hub id.",
        ) from error
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    if device == "cpu":
        # The grouped kernels of CPU builds wait for each other by spinning, which other processes pay for.
        lm.set_experts_implementation("eager")
    loaded = MultimodalLM(lm, tokenizer, load_encoder(vision) if vision else None).to(device)
    loaded.chat = chat_of(tokenizer, chat)
    return loaded


def _source(model: str) -> Path | str:
    packaged = content.package_folder("registry") / "models" / model / "lm"
    if packaged.is_dir():
        return packaged
    return Path(model) if Path(model).is_dir() else model
