"""Commits of models on the Hugging Face Hub: which one is opened, and how to open the same one again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from moextend.data.hub import commit_of
from moextend.util import downloads, hub_errors
from moextend.util.quiet import quiet_loggers


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


def check_downloads(name: str, revision: str | None = None) -> None:
    """Raises RunFailed if a file of a model in the cache differs from what the hub states; it is removed."""
    folder = snapshot(name, revision)
    if damaged := downloads.remove_damaged(folder) if folder else []:
        raise downloads.damage(damaged, where=f"model '{name}'")


def tidy(name: str) -> None:
    """Removes what killed downloads of a model left in the cache."""
    downloads.remove_stale(downloads.folder_of(name, "model"))


def snapshot(name: str, revision: str | None) -> Path | None:
    """Folder of a model's commit in the cache, which may be incomplete; None if its config is not there."""
    from huggingface_hub import try_to_load_from_cache

    try:
        found = try_to_load_from_cache(name, "config.json", revision=revision)
    except ValueError:  # no name of the hub
        return None
    return Path(found).parent if isinstance(found, str) else None


@contextmanager
def pinned(commits: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """Context in which encoders of the hub are opened at these commits; yields the commits that are opened.

    Both are mappings from a repository to its commit. Neither open_clip nor timm takes a commit for all of its names.
    """
    import open_clip.pretrained
    import timm.models._hub

    from moextend.model import audio

    opened: dict[str, str] = {}
    libraries: tuple[Any, ...] = (open_clip.pretrained, timm.models._hub, audio)
    with ExitStack() as stack:
        for module in libraries:
            stack.callback(setattr, module, "hf_hub_download", module.hf_hub_download)
            module.hf_hub_download = _pinning(module.hf_hub_download, commits, opened)
        yield opened


def _pinning(
    download: Callable[..., str], commits: Mapping[str, str], opened: dict[str, str]
) -> Callable[..., str]:
    def pinning(repo_id: str, *arguments: Any, revision: str | None = None, **options: Any) -> str:
        # Files of one model are of one commit, also if the branch moves between two of them.
        wanted = commits.get(repo_id) or opened.get(repo_id) or revision
        path = download(repo_id, *arguments, revision=wanted, **options)
        if (found := commit_of([Path(path)])) is not None:
            opened[repo_id] = found
        return path

    return pinning
