"""Commits of models on the Hugging Face Hub: which one is opened, and how to open the same one again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from moextend.data.hub import commit_of


def commit(name: str, revision: str | None = None) -> str | None:
    """Commit of a model on the hub that `revision` refers to now (None: its default branch).

    Without the hub it is the commit in the user's cache. None: not known; loading the model reports why.
    """
    from huggingface_hub import hf_hub_download

    try:
        return commit_of([Path(hf_hub_download(name, "config.json", revision=revision))])
    except Exception:  # offline, gated, misspelt: the same error ends the loading of the model, with a hint
        return None


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
