"""Checkpoints on disk: how tensors are named and split over files, and writing them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from moextend.export.stock import StockModel
from moextend.util import files

SHARD = 5_000_000_000
"""Bytes of the largest file, unless a single tensor is larger."""
INDEX = "model.safetensors.index.json"


@dataclass(frozen=True)
class Plan:
    """A checkpoint: tensors with their names on disk, split over files."""

    tensors: dict[str, Tensor]
    split: dict[str, list[str]]
    """File -> names of its tensors."""

    @property
    def bytes(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor.nbytes for tensor in self.tensors.values())

    @property
    def parameters(self) -> int:
        """Number of all entries."""
        return sum(math.prod(tensor.shape) for tensor in self.tensors.values())


def plan(model: StockModel) -> Plan:
    """The checkpoint of a stock model, with the names that its class has on disk; nothing is written."""
    from transformers.core_model_loading import revert_weight_conversion

    skeleton, left_out = model.skeleton, set(model.skeleton._keys_to_ignore_on_save or ())
    kept = {key: tensor for key, tensor in model.tensors.items() if key not in left_out}
    named = revert_weight_conversion(skeleton, _untied(kept, skeleton))
    return Plan(named, _split(named))


def _split(tensors: dict[str, Tensor]) -> dict[str, list[str]]:
    """File -> names, in order; a file is full before it would exceed `SHARD` bytes.

    Not by huggingface_hub, which counts a slice of a stack as the whole stack.
    """
    parts, size = [list[str]()], 0
    for name, tensor in tensors.items():
        if parts[-1] and size + tensor.nbytes > SHARD:
            parts.append([])
            size = 0
        parts[-1].append(name)
        size += tensor.nbytes
    if len(parts) == 1:
        return {"model.safetensors": parts[0]}
    return {
        f"model-{number:05d}-of-{len(parts):05d}.safetensors": names for number, names in enumerate(parts, 1)
    }


def write(found: Plan, skeleton: Any, folder: Path) -> None:
    """Writes the files of a checkpoint, its index if there are several, and its configs."""
    for file, names in found.split.items():
        ready = {name: found.tensors[name].detach().cpu().contiguous() for name in names}
        with files.atomic(folder / file) as path:
            save_file(ready, path, metadata={"format": "pt"})
        del ready
    if len(found.split) > 1:
        where = {name: file for file, names in found.split.items() for name in names}
        facts = {"total_parameters": found.parameters, "total_size": found.bytes}
        files.write_json(folder / INDEX, {"metadata": facts, "weight_map": dict(sorted(where.items()))})
    skeleton.config.architectures = [type(skeleton).__name__]
    skeleton.config.save_pretrained(folder)
    if skeleton.can_generate() and skeleton.generation_config is not None:
        skeleton.generation_config.save_pretrained(folder)


def _untied(tensors: dict[str, Tensor], skeleton: Any) -> dict[str, Tensor]:
    """Without the tensors that the class ties to another one, which it restores."""

    def restored(key: str, tensor: Tensor) -> bool:
        other = tensors.get(tied.get(key, ""))
        if other is None or tensor.shape != other.shape:
            return False
        return tensor.is_meta or tensor.data_ptr() == other.data_ptr()

    tied = dict(getattr(skeleton, "all_tied_weights_keys", None) or {})
    return {key: tensor for key, tensor in tensors.items() if not restored(key, tensor)}
