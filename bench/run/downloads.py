"""Where a base is, and what a command would download from the hub: files that are not in the cache, and their size."""

from __future__ import annotations

import json
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from moextend.bench.sequence import Base
from moextend.data.hub import is_prepared
from moextend.errors import MoextendError
from moextend.model import sources
from moextend.util import content, hub_errors
from moextend.util.hub_errors import Kind, of_hub

MB = 1e6
OTHERS = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.msgpack", "*.onnx", "*.gguf", "original/*", "onnx/*")
"""The same weights in other formats, which are not downloaded where there are safetensors."""
DOCUMENTS = (".*", "*.md", "LICENSE*", "*.png", "*.jpg", "*.jpeg", "*.pdf")
WEIGHTS = (".safetensors", ".bin", ".gguf")


def name_on_hub(base: Base, workspace: Path) -> str | None:
    """Name of a base that is on the hub; None for one on this machine, or in a package."""
    found = _place(base, workspace)
    return found if isinstance(found, str) else None


def local_bytes(base: Base, workspace: Path) -> int | None:
    """Bytes of the safetensors in the folder of a base on this machine; None if there are none."""
    found = _place(base, workspace)
    files = found.rglob("*.safetensors") if isinstance(found, Path) else ()
    return sum(file.stat().st_size for file in files) or None


def _place(base: Base, workspace: Path) -> Path | str | None:
    """Folder, file or name on the hub of a base; None for one of a package, or one that is still missing in data/."""
    name = base.found(workspace)
    return None if name in content.CARRIED or name in base.by_hand(workspace) else sources.find(name)


def download(name: str, kind: Kind, revision: str | None) -> list[dict[str, Any]]:
    """A download from the hub: {"what", "mb", "problem"}; none if everything is in the cache.

    `mb` is null if the hub does not tell, and `problem` is what it refuses, or why it cannot be asked.
    """
    record: dict[str, Any] = {"what": f"{kind} {name} from the hub", "mb": None, "problem": None}
    if kind == "dataset" and is_prepared(name):
        return []
    try:
        info = hub_errors.ask(name, kind, revision=revision, sizes=True)
    except Exception as error:  # offline, gated, misspelt
        if kind == "model" and _is_cached(name, revision):
            return []
        problem = of_hub(error, name, kind, revision=revision)
        return [{**record, "problem": None if problem is None else _shown(problem)}]
    files = _used(info.siblings or []) if kind == "model" else info.siblings or []
    missing = [file for file in files if not _cached(name, file.rfilename, kind, info.sha)]
    if not any(file.rfilename.endswith(WEIGHTS) for file in missing) and kind == "model":
        return []  # small files are not all needed
    record["mb"] = sum(file.size or 0 for file in missing) / MB
    return [{**record, "problem": _gate(name, kind) if info.gated else None}]


def _used(files: list[Any]) -> list[Any]:
    """Files of a model without documents, and without weights in other formats where there are safetensors."""
    read = [file for file in files if not any(fnmatch(file.rfilename, other) for other in DOCUMENTS)]
    if not any(file.rfilename.endswith(".safetensors") for file in read):
        return read
    return [file for file in read if not any(fnmatch(file.rfilename, other) for other in OTHERS)]


def has_config(name: str, revision: str | None) -> bool:
    """Whether the config of a model of the hub is in the cache, or could be downloaded into it now."""
    if sources.snapshot(name, revision) is not None:
        return True
    try:
        hub_errors.ask(name, "model", revision=revision)  # once: the download tries for half a minute
        return sources.commit(name, revision) is not None
    except Exception:  # offline, gated, misspelt: a run says which
        return False


def _is_cached(name: str, revision: str | None) -> bool:
    """Whether a model's config and all its weights are in the cache; the hub is not asked."""
    folder = sources.snapshot(name, revision)
    names = ("model.safetensors", "pytorch_model.bin")
    return folder is not None and any(_is_complete(folder / name) for name in names)


def _is_complete(weights: Path) -> bool:
    """Whether a file of weights is there, or all shards that its index names."""
    if weights.is_file():
        return True
    index = weights.with_name(f"{weights.name}.index.json")
    try:
        shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        return all((index.parent / shard).is_file() for shard in shards)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # none, or a damaged one
        return False


def _cached(name: str, file: str, kind: Kind, revision: str | None) -> bool:
    from huggingface_hub import try_to_load_from_cache

    try:
        return isinstance(try_to_load_from_cache(name, file, repo_type=kind, revision=revision), str)
    except ValueError:  # no name of the hub
        return False


def _gate(name: str, kind: Kind) -> str | None:
    """What the hub says to a user who may not download a gated repository; None if this one may."""
    from huggingface_hub import HfApi

    try:
        HfApi().auth_check(name, repo_type=kind)
    except Exception as error:
        problem = of_hub(error, name, kind)
        return None if problem is None else _shown(problem)
    return None


def _shown(problem: MoextendError) -> str:
    return f"{problem.what} {problem.hint or ''}".strip()
