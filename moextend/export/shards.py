"""Checkpoints on disk: how tensors are named and split over files, and writing them."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from moextend.errors import InputError
from moextend.export.stock import StockModel
from moextend.util import files

SHARD = "5GB"
"""Largest file, unless a single tensor is larger."""
INDEX = "model.safetensors.index.json"


@dataclass(frozen=True)
class Planned:
    """A tensor of a checkpoint."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    bytes: int
    file: str


@dataclass(frozen=True)
class Plan:
    """A checkpoint: tensors with their names on disk, split over files."""

    tensors: dict[str, Tensor]
    split: dict[str, list[str]]
    """File -> names of its tensors."""

    def rows(self) -> list[Planned]:
        """All tensors, file by file."""
        found = [(file, name, self.tensors[name]) for file, names in self.split.items() for name in names]
        return [
            Planned(name, tuple(t.shape), str(t.dtype).removeprefix("torch."), t.nbytes, file)
            for file, name, t in found
        ]

    @property
    def bytes(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor.nbytes for tensor in self.tensors.values())

    @property
    def parameters(self) -> int:
        """Number of all entries."""
        return sum(math.prod(tensor.shape) for tensor in self.tensors.values())


def plan(model: StockModel, max_shard_size: str = SHARD) -> Plan:
    """The checkpoint of a stock model, with the names that its class has on disk; nothing is written or allocated.

    Raises:
        InputError: `max_shard_size` is no size.
    """
    largest = size_of(max_shard_size)
    from transformers.core_model_loading import revert_weight_conversion

    skeleton, left_out = model.skeleton, set(model.skeleton._keys_to_ignore_on_save or ())
    kept = {key: tensor for key, tensor in model.tensors.items() if key not in left_out}
    named = revert_weight_conversion(skeleton, _untied(kept, skeleton))
    return Plan(named, _split(named, largest))


def size_of(text: str) -> int:
    """Bytes of a size such as "5GB" (10^9 bytes each); InputError for another text."""
    found = re.fullmatch(r"([1-9][0-9]{0,11})(KB|MB|GB|TB)", text)
    if found is None:
        raise InputError(f"'{text}' is not a size.", where="max_shard_size", hint="Examples: 5GB, 500MB.")
    thousands = ("KB", "MB", "GB", "TB").index(found[2])
    return int(found[1] + "000" * (1 + thousands))


def _split(tensors: dict[str, Tensor], largest: int) -> dict[str, list[str]]:
    """File -> names, in order; a file is full before it would exceed `largest` bytes.

    Not by huggingface_hub, which counts a slice of a stack as the whole stack.
    """
    parts, size = [list[str]()], 0
    for name, tensor in tensors.items():
        if parts[-1] and size + tensor.nbytes > largest:
            parts.append([])
            size = 0
        parts[-1].append(name)
        size += tensor.nbytes
    if len(parts) == 1:
        return {"model.safetensors": parts[0]}
    return {
        f"model-{number:05d}-of-{len(parts):05d}.safetensors": names for number, names in enumerate(parts, 1)
    }


def write(
    found: Plan, skeleton: Any, folder: Path, on_shard: Callable[[int, int], None] | None = None
) -> None:
    """Writes the files of a checkpoint, its index if there are several, and its configs.

    on_shard: called with (files written, all files).
    """
    from safetensors.torch import save_file

    for done, (file, names) in enumerate(found.split.items(), 1):
        ready = {name: found.tensors[name].detach().cpu().contiguous() for name in names}
        with files.atomic(folder / file) as path:
            save_file(ready, path, metadata={"format": "pt"})
        del ready
        if on_shard:
            on_shard(done, len(found.split))
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
