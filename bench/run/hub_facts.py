"""Facts about a base on the hub that are read before its weights: config, size and number type. A few kilobytes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CONFIG, INDEX, WHOLE = "config.json", "model.safetensors.index.json", "model.safetensors"
TYPES = {"F64": "float64", "F32": "float32", "BF16": "bfloat16", "F16": "float16"}
"""Number types of safetensors -> torch's names."""


@dataclass(frozen=True)
class HubFacts:
    """What the hub says about the weights of a model."""

    bytes: int | None = None
    """Of all weights. None: not known."""
    dtype: str | None = None
    """Most common number type of the first file. None: not known."""


def has_config(name: str, revision: str | None) -> bool:
    """Whether the config of a model of the hub is in the cache, or could be downloaded into it now."""
    return _file(name, CONFIG, revision) is not None


def weights_cached(name: str, revision: str | None) -> bool:
    """Whether all weights of a model are in the cache."""
    from huggingface_hub import try_to_load_from_cache

    def cached(file: str) -> bool:
        return isinstance(try_to_load_from_cache(name, file, revision=revision), str)

    if any(map(cached, (WHOLE, "pytorch_model.bin"))):
        return True
    index = try_to_load_from_cache(name, INDEX, revision=revision)
    return isinstance(index, str) and all(map(cached, _shards(Path(index))))


def weights_of(name: str, revision: str | None) -> HubFacts:
    """Size and number type of the weights, from the index of their files and the header of the first one.

    A header is read by a range request: no weights are downloaded.
    """
    index = _file(name, INDEX, revision)
    size, first = None, WHOLE
    if index is not None:
        size, first = _total(index), next(iter(_shards(index)), WHOLE)
    try:
        from huggingface_hub import HfApi

        found: Any = HfApi().parse_safetensors_file_metadata(name, first, revision=revision)
    except Exception:  # offline, gated, or not of safetensors: the size of the files is what is known
        return HubFacts(size)
    if index is None:
        size = sum(tensor.data_offsets[1] - tensor.data_offsets[0] for tensor in found.tensors.values())
    kinds = found.parameter_count
    return HubFacts(size, TYPES.get(max(kinds, key=lambda kind: kinds[kind])) if kinds else None)


def _file(name: str, file: str, revision: str | None) -> Path | None:
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    try:
        cached = try_to_load_from_cache(name, file, revision=revision)
        if isinstance(cached, str):
            return Path(cached)
        return Path(hf_hub_download(name, file, revision=revision, etag_timeout=5))
    except Exception:  # offline, gated, misspelt, without such a file: a run says which
        return None


def _total(index: Path) -> int | None:
    try:
        return int(json.loads(index.read_text(encoding="utf-8"))["metadata"]["total_size"])
    except (ValueError, KeyError, TypeError):
        return None


def _shards(index: Path) -> list[str]:
    try:
        return sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError):
        return [INDEX + ": damaged"]
