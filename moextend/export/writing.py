"""Writes the stock checkpoint of an extended model and says what it lacks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from moextend.errors import InputError, RunFailed
from moextend.export.prompts import save_tokenizer, set_ends
from moextend.export.stock import state_of, stock_model
from moextend.extension import store
from moextend.extension.card import Card, read_extension
from moextend.model import lm_head
from moextend.model.multimodal import MultimodalLM
from moextend.util import files
from moextend.util.environment import __version__

TOKENS = 64
STEP = 7919
"""Distance of consecutive ids in the vocabulary; a prime, so that few are met twice."""
ALLOWED = 1e-4
"""Largest difference of logits in float32, as a share of the largest logit; a wrong checkpoint differs by far more."""

EXACT = ("float32", "float64")
"""Number types of a base in which new weights, which are float32, are not rounded."""
RECORD = "moextend_export.json"
"""What was exported, as information for users; transformers does not read it."""


@torch.no_grad()
def sample_logits(lm: Any) -> Tensor:
    """Logits [1, T, vocabulary] (float32, on the CPU) of fixed ids, which spread over the vocabulary."""
    return lm(input_ids=_ids(lm).to(lm.device)).logits.float().cpu()  # type: ignore[no-any-return]


def _ids(lm: Any) -> Tensor:
    """Ids [1, T] without those that the config names, such as the place of an image."""
    size = lm.get_input_embeddings().weight.shape[0]
    config = lm_head.text_config(lm.config)
    named = {**config.to_dict(), **lm.config.to_dict()}
    special = {
        value
        for key, value in named.items()
        if key.endswith(("token_id", "token_index"))
        if isinstance(value, int)
    }
    spread = (number * STEP % size for number in range(size))
    count = min(TOKENS, getattr(config, "max_position_embeddings", None) or TOKENS)
    return torch.tensor([list(islice((each for each in spread if each not in special), count))])


def largest_difference(folder: Path, expected: Tensor, like: Any, *, rounded: bool) -> float:
    """Largest difference of logits between the checkpoint in `folder`, loaded by plain transformers, and `expected`.

    Args:
        like: the class that loads it (the one of the base).
        rounded: new weights were rounded to the base's number type, so that any difference is accepted.

    Raises:
        RunFailed: tensors are missing, or the logits differ by more than rounding.
    """
    lm, found = like.from_pretrained(folder, output_loading_info=True)
    if missing := sorted(found["missing_keys"]):
        raise RunFailed(f"the written checkpoint lacks {missing[0]}.", where=str(folder))
    lm.set_experts_implementation("eager")  # as moextend.load does on a CPU
    difference = float((sample_logits(lm.eval()) - expected).abs().max())
    if not rounded and not difference <= ALLOWED * max(1.0, float(expected.abs().max())):
        raise RunFailed(
            f"the written checkpoint computes other logits than the model (difference {difference:.1e}).",
            where=str(folder),
            hint="Nothing was kept. Export with --as moextend, and report this base.",
        )
    return difference


@dataclass(frozen=True)
class Written:
    """What was written."""

    folder: Path
    files: int
    bytes: int
    parameters: int
    experts: int
    """New experts in the checkpoint, in all layers together."""
    difference: float
    """Largest difference of logits between the checkpoint and the model, on fixed ids."""


def save_stock(
    model: MultimodalLM,
    folder: str | Path,
    *,
    release: bool = False,
    reference: Tensor | None = None,
) -> Written:
    """Writes a model with its active extensions as a checkpoint that plain transformers loads, and its tokenizer.

    The folder is complete or absent: it appears after the checkpoint was loaded and its logits were compared with those
    of `model`. Encoders and projectors are not part of it.

    Args:
        folder: a new folder.
        release: frees the experts of `model` on the way, which cannot be used afterwards; less memory is needed.
        reference: logits to compare with (`sample_logits`), before adapters were merged; None: those of `model`.

    Raises:
        InputError: no class of transformers computes exactly the same (the message says which setting stands in the
            way), or the folder is not empty.
        RunFailed: the checkpoint computes other logits.
    """
    folder, lm = Path(folder), model.lm
    dtype = str(lm.dtype).removeprefix("torch.")
    expected = sample_logits(lm) if reference is None else reference
    scope, kind = state_of(lm), type(lm)
    facts = [{"name": name, "digest": store.digest_of(model, name)} for name in scope.active]
    with files.new_folder(folder) as made:
        stock = stock_model(lm, release=release)
        if stock.skeleton.generation_config is not None:
            set_ends(model, stock.skeleton.generation_config)
        stock.save(made)
        save_tokenizer(model, made)
        sizes = [path.stat().st_size for path in made.glob("*.safetensors")]
        counts = len(sizes), sum(sizes), stock.skeleton.num_parameters(), stock.added
        record = {
            "form": "stock", "base": model.base_fingerprint(), "extensions": facts, "dtype": dtype,
            "new_experts": stock.added, "version": __version__,
        }  # fmt: skip
        files.write_json(made / RECORD, record)
        rounded = bool(scope.active) and dtype not in EXACT
        del stock
        return Written(folder, *counts, largest_difference(made, expected, kind, rounded=rounded))


def dtype_of(cards: Sequence[Card]) -> str:
    """Number type of the base that the extensions were made on."""
    return next((card.base_dtype for card in cards if card.base_dtype), "float32")


def check_rounding(own: str, wanted: str | None) -> None:
    """Raises InputError if a checkpoint of the base's number type would round the new weights unasked.

    Args:
        own: number type of the base in the training. wanted: the one that the user names.
    """
    if wanted is None and own not in EXACT:
        raise InputError(
            f"the base is {own}, and the new experts are float32: rounded to {own} they compute other logits.",
            where="--dtype",
            hint=f"Accept that with --dtype {own}, or write all weights as float32: --dtype float32.",
        )


def notes_of(model: MultimodalLM) -> list[str]:
    """What users of a stock checkpoint of `model` must know: every input reaches the new experts, no encoder."""
    found = []
    for name in state_of(model.lm).active:
        folder = store.handle(model, name).folder
        made = None if folder is None else read_extension(folder).made
        scope = str(made.recipe.get("scope", "")) if made else ""
        if scope in ("own", "auto"):
            found.append(
                f"extension '{name}' was made with scope={scope}, for inputs of its own; in the checkpoint every input "
                "reaches it."
            )
    if model.modalities:
        names = ", ".join(model.modalities)
        found.append(f"the checkpoint reads text only: encoders and projectors ({names}) are not part of it.")
    return found
