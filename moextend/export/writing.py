"""Writes the stock checkpoint of an extended model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from moextend.export import check, shards
from moextend.export.exact import state_of
from moextend.export.prompts import save_tokenizer, set_ends
from moextend.export.stock import EXACT, stock_model
from moextend.extension.store import digest_of
from moextend.model.multimodal import MultimodalLM
from moextend.util import files
from moextend.util.release import __version__

RECORD = "moextend_export.json"
"""What was exported, as information for users; transformers does not read it."""


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
        reference: logits to compare with (`check.sample_logits`), before adapters were merged; None: those of `model`.
        on_shard: called with (files written, all files).

    Raises:
        InputError: no class of transformers computes exactly the same (the message says which setting stands in the
            way), or the folder is not empty.
        RunFailed: the checkpoint computes other logits.
    """
    folder, lm = Path(folder), model.lm
    dtype = str(lm.dtype).removeprefix("torch.")
    expected = reference if reference is not None else check.sample_logits(lm) if compare else None
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
            found = check.compare(made, expected, kind, rounded=rounded)
            written = replace(written, difference=found)
    return written
