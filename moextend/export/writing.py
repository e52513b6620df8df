"""Writes the stock checkpoint of an extended model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from moextend.errors import RunFailed
from moextend.export import shards
from moextend.export.exact import state_of
from moextend.export.notes import EXACT
from moextend.export.prompts import save_tokenizer, set_ends
from moextend.export.stock import stock_model
from moextend.extension.store import digest_of
from moextend.model import lm_head
from moextend.model.multimodal import MultimodalLM
from moextend.util import files
from moextend.util.release import __version__

TOKENS = 64
STEP = 7919
"""Distance of consecutive ids in the vocabulary; a prime, so that few are met twice."""
ALLOWED = 1e-4
"""Largest difference of logits in float32, as a share of the largest logit; a wrong checkpoint differs by far more."""


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
    """New experts in the checkpoint, in all layers together; without those that are never chosen."""
    padded: int
    """Experts that can never be chosen."""
    difference: float | None
    """Largest difference of logits between the checkpoint and the model, on fixed ids; None: not compared."""


def save_stock(
    model: MultimodalLM,
    folder: str | Path,
    *,
    max_shard_size: str = shards.SHARD,
    release: bool = False,
    compare: bool = True,
    reference: Tensor | None = None,
    on_shard: Callable[[int, int], None] | None = None,
) -> Written:
    """Writes a model with its active extensions as a checkpoint that plain transformers loads, and its tokenizer.

    The folder is complete or absent. Encoders and projectors are not part of it.

    Args:
        folder: a new folder.
        max_shard_size: largest file ("5GB").
        release: frees the experts of `model` on the way, which cannot be used afterwards; less memory is needed.
        compare: loads the checkpoint and compares its logits with those of `model` before the folder appears.
        reference: logits to compare with (`sample_logits`), before adapters were merged; None: those of `model`.
        on_shard: called with (files written, all files).

    Raises:
        InputError: no class of transformers computes exactly the same (the message says which setting stands in the
            way), or the folder is not empty.
        RunFailed: the checkpoint computes other logits.
    """
    folder, lm = Path(folder), model.lm
    dtype = str(lm.dtype).removeprefix("torch.")
    expected = reference if reference is not None else sample_logits(lm) if compare else None
    scope, kind = state_of(lm), type(lm)
    facts = [{"name": name, "digest": digest_of(model, name)} for name in scope.active]
    with files.new_folder(folder) as made:
        stock = stock_model(lm, release=release)
        if stock.skeleton.generation_config is not None:
            set_ends(model, stock.skeleton.generation_config)
        plan = shards.plan(stock, max_shard_size)
        shards.write(plan, stock.skeleton, made, on_shard)
        save_tokenizer(model, made)
        written = Written(
            folder, len(plan.split), plan.bytes, plan.parameters, stock.added, stock.padded, None
        )
        record = {
            "form": "stock", "base": model.base_fingerprint(), "extensions": facts, "dtype": dtype,
            "new_experts": stock.added, "never_chosen": stock.padded, "version": __version__,
        }  # fmt: skip
        files.write_json(made / RECORD, record)
        if expected is not None:
            rounded = bool(scope.active) and dtype not in EXACT
            del plan, stock
            found = largest_difference(made, expected, kind, rounded=rounded)
            written = replace(written, difference=found)
    return written
