"""Opens data sets of the hub by name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from moextend.data.digests import FileDigests
from moextend.data.table import ArrowTable
from moextend.errors import InputError, MoextendError, UnknownName
from moextend.util import foreign, hub_errors
from moextend.util.files import digest, exists, stamp
from moextend.util.quiet import quiet_datasets, quiet_loggers

_COMMIT = re.compile(r"[0-9a-f]{40}")
READERS = frozenset({"arrow", "csv", "json", "parquet", "text"})
"""Names of `datasets` for local files."""
_WHEN_LOADED = {"split", "verification_mode", "keep_in_memory", "save_infos", "streaming", "num_proc"}
"""Options of `load_dataset` that do not concern the files."""


def open_hub(
    name: str, split: str, config: str | None = None, revision: str | None = None, *, where: str
) -> ArrowTable:
    """Rows of a split of a hub data set, in the user's cache of `datasets`."""
    return ArrowTable(_load(name, split, config, revision, where), f"hub:{name} ({split})", None)


@lru_cache(maxsize=16)
def _load(name: str, split: str, config: str | None, revision: str | None, where: str) -> Any:
    import datasets

    try:
        with quiet_datasets(), quiet_loggers("datasets", "huggingface_hub"):
            rows = datasets.load_dataset(name, config, split=split, revision=revision)
            return _at_commit(rows, name, revision)
    except Exception as error:  # of datasets, of the hub, and of its HTTP library
        known = _reason(error, name, revision, where)
        if known is None and isinstance(error, ValueError):
            splits = _splits(name, config, revision)
            if splits and split not in splits:
                raise UnknownName("split", split, splits, where=where) from error
            what = f"the hub data set '{name}' cannot be opened ({error})."
            known = InputError(what, where=where, hint="Name its config under data.config.")
        if known is None and isinstance(error, ConnectionError | FileNotFoundError):
            known = _unknown(name, f"the hub has no such data set ({error})", where)
        raise known or foreign.explained(error, where=where) from error


def _unknown(name: str, what: str, where: str) -> InputError:
    return InputError(
        f"no file or folder '{name}', and {what}.",
        where=where,
        hint="Check the path or the id; offline, download it first, or name a local folder.",
    )


def check_access(name: str, revision: str | None, *, where: str) -> None:
    """Raises InputError if the hub has no such data set or revision, or not for this user.

    It asks only for a data set of which nothing is prepared on this machine. A hub that fails or cannot be reached is
    no error here.
    """
    if is_prepared(name):
        return
    known = _refusal(name, revision, where)
    if isinstance(known, InputError):
        raise known


def is_prepared(name: str) -> bool:
    """Whether `datasets` has made files of a hub data set on this machine, of whatever config and commit."""
    import datasets

    return (Path(datasets.config.HF_DATASETS_CACHE) / name.replace("/", "___")).is_dir()


def _reason(error: Exception, name: str, revision: str | None, where: str) -> MoextendError | None:
    """Why a hub data set was not opened; None if the hub is not the reason."""
    from datasets.exceptions import DatasetNotFoundError

    known = hub_errors.of_hub(error, name, "dataset", revision=revision, where=where)
    if known is None and isinstance(error, DatasetNotFoundError):  # `datasets` drops the cause
        known = _refusal(name, revision, where) or _unknown(
            name, f"the hub has no such data set ({error})", where
        )
    return known


def _refusal(name: str, revision: str | None, where: str) -> MoextendError | None:
    """Asks the hub for a data set; the error that it answers, or None."""
    from huggingface_hub import HfApi

    try:
        hub_errors.ask(name, "dataset", revision=revision)
        with quiet_loggers("huggingface_hub"):
            HfApi().auth_check(name, repo_type="dataset")
    except Exception as error:
        return hub_errors.of_hub(error, name, "dataset", revision=revision, where=where)
    return None


class LocalData:
    """Data sets of local files that `datasets` reads, with its cache below a folder.

    `datasets` finds what it has read by the path and the modification time of a file, which a copy may set. Here each
    content has a cache of its own.
    """

    def __init__(self, cache: Path) -> None:
        self.cache = cache
        self.stamps: dict[Path, str] = {}
        """Files that were read -> what they were."""

    def load(self, load_dataset: Any, *arguments: Any, **options: Any) -> Any:
        """What `load_dataset` makes of its arguments."""
        import datasets

        found = datasets.load_dataset_builder(
            *arguments, **{key: value for key, value in options.items() if key not in _WHEN_LOADED}
        ).config.data_files
        paths = sorted(Path(path) for split in (found or {}).values() for path in split if exists(path))
        content = self._digest(paths)
        place = self.cache / "rows" / content
        rows = load_dataset(*arguments, **{**options, "cache_dir": str(place)})
        self.stamps |= {path: stamp(path.stat()) for path in paths}
        return rows

    def is_as_read(self) -> bool:
        """Whether the files are those that were read."""
        return all(exists(path) and stamp(path.stat()) == known for path, known in self.stamps.items())

    def _digest(self, paths: Sequence[Path]) -> str:
        with FileDigests(self.cache) as known:
            return digest([known.of(path) for path in paths])


@contextmanager
def pinned(revisions: Mapping[str, str], local: LocalData) -> Iterator[dict[str, str]]:
    """Context in which `datasets` opens these revisions of hub data sets; yields the commits that it opens.

    Both are mappings from the name of a data set. Data in files of this machine are those of `local`.
    """
    import datasets

    own, opened = datasets.load_dataset, dict[str, str]()

    def load_dataset(path: str, *arguments: Any, revision: str | None = None, **options: Any) -> Any:
        if path in READERS or Path(path).is_dir():
            return local.load(own, path, *arguments, **options)
        # Configs of one data set are of one commit, also if the branch moves between two of them.
        wanted = revisions.get(path) or opened.get(path) or revision
        found = own(path, *arguments, revision=wanted, **options)
        if isinstance(found, datasets.DatasetDict):
            found = datasets.DatasetDict({key: _at_commit(rows, path, wanted) for key, rows in found.items()})
            files = [file["filename"] for rows in found.values() for file in rows.cache_files]
            if (commit := commit_of(map(Path, files))) is not None:
                opened[path] = commit
        return found

    datasets.load_dataset = load_dataset
    try:
        yield opened
    finally:
        datasets.load_dataset = own


def _at_commit(found: Any, name: str, revision: str | None) -> Any:
    """The split at the commit that was asked for: offline, `datasets` opens the one that it opened last.

    FileNotFoundError if that commit is not in the cache.
    """
    from datasets.packaged_modules.cache.cache import Cache

    files = [Path(file["filename"]) for file in found.cache_files]
    opened = commit_of(files)
    if opened is None or revision is None or not _COMMIT.fullmatch(revision) or opened == revision:
        return found
    config = files[0].parents[2]
    for folder in config.glob(f"*/{revision}"):
        builder = Cache(
            cache_dir=str(config.parents[1]), repo_id=name, dataset_name=name.rpartition("/")[2],
            config_name=config.name, version=folder.parent.name, hash=revision,
        )  # fmt: skip
        builder.download_and_prepare()
        return builder.as_dataset(split=str(found.split))
    raise FileNotFoundError(f"commit {revision} is not in the cache, which holds {opened}")


def _splits(name: str, config: str | None, revision: str | None, *, where: str | None = None) -> list[str]:
    """Names of the splits; none if they are not known. With `where`, what the hub refuses is raised."""
    import datasets

    try:
        with quiet_loggers("datasets", "huggingface_hub"):
            return list(datasets.get_dataset_split_names(name, config, revision=revision))
    except (ValueError, OSError) as error:
        if where and (known := _reason(error, name, revision, where)):
            raise known from error
        return []


def commit_of(files: Iterable[Path]) -> str | None:
    """Commit of the hub data set of cached files; `datasets` uses it as the folder name, also offline."""
    return next((path.parent.name for path in files if _COMMIT.fullmatch(path.parent.name)), None)


def hub_splits(name: str, *, where: str) -> list[str]:
    """Splits of a hub data set. Raises InputError if the hub has it not, and RunFailed if it cannot be reached."""
    found = _splits(name, None, None, where=where)
    if not found:
        raise _unknown(name, "the hub did not list its splits", where)
    return found
