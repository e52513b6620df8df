"""Smaller micro-batches where memory is short: a batch is computed in parts, and the step stays the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from moextend.errors import InputError, RunFailed
from moextend.model.batches import labelled
from moextend.model.multimodal import MultimodalLM
from moextend.util import files

FILE = "micro_batch.json"
"""File in the folder of a training: rows of a forward pass in a process that fit; it outlives an interruption."""


def read(folder: Path) -> int | None:
    """The recorded number of rows; None without a readable record."""
    try:
        rows = files.read_json(folder / FILE)
    except (FileNotFoundError, InputError):
        return None
    return rows if isinstance(rows, int) and rows > 0 else None


def write(folder: Path, rows: int) -> None:
    """Records a number of rows."""
    files.write_json(folder / FILE, rows)


def split(inputs: Mapping[str, Any], rows: int, model: MultimodalLM) -> list[dict[str, Any]]:
    """The batch in parts of at most `rows` rows of nearly equal number, each with the features of its media."""
    total = len(inputs["input_ids"])
    count = -(-total // rows)
    if count == 1:
        return [dict(inputs)]
    bounds = [total * place // count for place in range(count + 1)]
    return [_part(inputs, start, end, model) for start, end in pairwise(bounds)]


def _part(inputs: Mapping[str, Any], start: int, end: int, model: MultimodalLM) -> dict[str, Any]:
    """The rows from `start` to `end` with the features of their media."""
    part: dict[str, Any] = {
        name: value[start:end] for name, value in inputs.items() if isinstance(value, Tensor)
    }
    features: dict[str, Tensor] = {}
    for name, own in inputs.get("features", {}).items():
        held = (inputs["input_ids"] == model.modalities[name].placeholder).sum(1)
        before, count = int(held[:start].sum()), int(held[start:end].sum())
        if count:
            features[name] = own[before : before + count]
    return {**part, "features": features} if features else part


def shares(parts: Sequence[Mapping[str, Any]]) -> list[float]:
    """Weights of the parts of a batch: their shares of the labelled tokens, or of the rows if none is labelled."""
    sizes = [labelled(part) for part in parts]
    if not any(sizes):
        sizes = [len(part["input_ids"]) for part in parts]
    return [size / sum(sizes) for size in sizes]


class Begin:
    """The state of a process at the beginning of an optimizer step, before anything random was drawn."""

    def __init__(self, state: Callable[[], Mapping[str, Tensor]] | None) -> None:
        """Args: state: that of an extra loss with random numbers."""
        self.batches: list[dict[str, Any]] = []
        """Batches of the step so far."""
        self._cpu = torch.get_rng_state()
        self._cuda = torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None
        self._drawn = copied(state()) if state else None

    def restore(self, load: Callable[[Mapping[str, Tensor]], None] | None) -> None:
        """Goes back to the beginning; `load` takes the state of the extra loss."""
        torch.set_rng_state(self._cpu)
        if self._cuda is not None:
            torch.cuda.set_rng_state(self._cuda)
        if load and self._drawn is not None:
            load(copied(self._drawn))


def copied(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A copy of a state."""
    return {name: tensor.clone() for name, tensor in state.items()}


def too_large(model: MultimodalLM, inputs: Mapping[str, Any] | None, problem: str) -> RunFailed:
    """Error for a training that does not fit even with one conversation at a time, with an estimate of its memory."""
    learning = sum(p.numel() for p in model.trainable().values())
    frozen = sum(p.numel() * p.element_size() for p in model.parameters() if not p.requires_grad)
    what = f"frozen weights {frozen / 1e9:.3g} GB"
    what += f", trained parameters with gradients and AdamW's moments {16 * learning / 1e9:.3g} GB"
    if inputs is not None:
        what += f", and the activations of one conversation of {inputs['input_ids'].shape[1]} tokens"
    more = ""
    if model.device.type == "cuda":
        free, total = torch.cuda.mem_get_info(model.device)
        more = f" The device has {total / 1e9:.3g} GB, {free / 1e9:.3g} of them free."
    alone = " with one conversation at a time" if inputs is not None else ""
    return RunFailed(
        f"out of memory{alone} ({problem}). Memory needed: {what}.{more}",
        where="training",
        hint="Set gradient_checkpointing: true; load the base in bfloat16 (dtype: auto, with bf16: true); use fewer "
        "layers or experts, a smaller rank, or shorter conversations; or a device with more memory (docs/gpu.md).",
    )
