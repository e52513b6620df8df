"""Packs whose runs stand beside those of a workspace: the published ones, and any that are named."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from moextend.bench.report.collect import Experiment
from moextend.bench.run.pack import read_manifest, unpack
from moextend.bench.run.rundir import PACK, RunDir, find_runs, run_name
from moextend.errors import InputError, UnknownName

HINT = "Name packs, which bench pack writes, or folders of them."
PUBLISHED = "published"
"""Name of the packs of this project."""
FOLDER = Path("docs", "results", "packs")
"""Where they are in a checkout."""


def published() -> list[Path]:
    """The published packs; empty where this package is not in a checkout."""
    return sorted((Path(__file__).resolve().parents[3] / FOLDER).glob(f"*{PACK}"))


def packs_in(paths: Sequence[Path]) -> list[Path]:
    """The packs among the paths and in the folders among them, each once, by name; InputError where there is none."""
    found: dict[Path, Path] = {}
    for path in paths:
        own = sorted(path.rglob(f"*{PACK}")) if path.is_dir() else [path]
        if not own:
            raise InputError(f"holds no pack ({PACK}).", where=str(path), hint=HINT)
        found |= {one.resolve(): one for one in own if one.resolve() not in found}
    return sorted(found.values(), key=lambda one: (one.name, str(one)))


def find_packs(names: Sequence[str], *, where: str) -> list[Path]:
    """The packs of these names: `published`, a pack, or a folder of packs.

    Raises:
        InputError: a folder holds no pack, or the published packs are not here.
    """
    if PUBLISHED in names and not published():
        hint = f"Name {FOLDER} of a clone or of the source distribution: {where} FOLDER."
        raise InputError("the published packs are not part of an installed wheel.", where=where, hint=hint)
    named = [path for name in names for path in (published() if name == PUBLISHED else [Path(name)])]
    return packs_in(named)


@contextmanager
def unpacked(packs: Sequence[Path], sequences: Collection[str], workspace: Path) -> Iterator[list[RunDir]]:
    """Context in which the runs of packs that have one of these sequences are unpacked, in a temporary folder.

    Args:
        sequences: empty: all.
        workspace: where their plug-ins, tasks and data are looked up.

    Raises:
        InputError: a file is no pack, or is damaged.
    """
    with TemporaryDirectory(prefix="moextend-packs-", ignore_cleanup_errors=True) as name:
        folders = [Path(name, str(number), "runs") for number in range(len(packs))]
        for path, folder in zip(packs, folders, strict=True):
            known = {run.partition("/")[0] for run in read_manifest(path).runs}
            if not sequences or known & set(sequences):
                unpack(path, folder, workspace)
        yield [run for folder in folders for run in find_runs(folder)]


@contextmanager
def beside(
    runs: Path, names: Sequence[str], packs: Sequence[Path], workspace: Path
) -> Iterator[tuple[list[RunDir], list[RunDir]]]:
    """Context with the named runs below `runs`, and with them and those of packs of the same sequences, in one order.

    A name may also be a sequence that only packs have; without names and own runs, all of the packs are meant.

    Raises:
        UnknownName: neither has a run of a name.
    """
    if not packs:
        yield (own := find_runs(runs, names)), own
        return
    known, others = {run.folder: run for run in ([] if names else find_runs(runs))}, dict[str, UnknownName]()
    for name in names:
        try:
            known |= {run.folder: run for run in find_runs(runs, [name])}
        except UnknownName as error:
            others[name] = error
    sequences = {folder.parent.name for folder in known} | others.keys()
    with unpacked(packs, sequences, workspace) as found:
        for name in others.keys() - {run.folder.parent.name for run in found}:
            raise others[name]
        same = {_identity(run) for run in known.values()}
        new = [run for run in found if _identity(run) not in same]
        yield [*known.values()], sorted([*known.values(), *new], key=lambda run: run_name(run.folder))


def _identity(run: RunDir) -> str:
    """Digest of the config of a run, its folder if it is damaged, which the report then says."""
    try:
        return run.config.digest
    except InputError:
        return str(run.folder)


def note_own(experiments: Sequence[Experiment], own: Sequence[RunDir]) -> None:
    """Notes in experiments with runs of packs which runs are own ones."""
    folders = {run.folder for run in own}
    for experiment in experiments:
        seeds: dict[str, tuple[set[int], set[int]]] = {}
        for result in experiment.results:
            mine, every = seeds.setdefault(result.config.method, (set(), set()))
            every.add(result.config.seed)
            mine |= {result.config.seed} if result.run.folder in folders else set()
        named = [
            method if mine == every else f"{method} (seed {', '.join(map(str, sorted(mine)))})"
            for method, (mine, every) in seeds.items()
            if mine
        ]
        experiment.own = f"Of this workspace: {'; '.join(named) or 'none'}. Other runs are of packs."
