"""The folder of one run, which the planner, the worker and the report share.

runs/<sequence>/<method>-s<seed>[-<order>][-<mode>]/
  config.json       config of the run (identity, id), paths of its specs, environment
  scores.jsonl      one line per cell of the matrix, with the id of the run; the last line of a cell counts
  parity.jsonl      checks of the servers that scored cells, if any did
  facts.json        facts that the run records (task identity, majority answers, cost of the base, inputs)
  status.json       see progress.py
  stages/<t>-<task>/    weights and files of stage t; cost.json: its costs; routing.json: experts that the tasks use
  predictions/          one line per item
  code/                 of a run from a pack: the plug-in that trained it, which nothing runs

Formats: records.py, config.py, score/records.py, score/lines.py; a page of the site is generated from them. Each line
of scores.jsonl and parity.jsonl is a record, the id of its run, and a digest of both.
"""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from moextend.bench.run.config import ConfigFile, RunConfig, places_now, slug
from moextend.bench.run.progress import LEASE, read_status
from moextend.bench.run.records import Kept, OfRun, RoutingReport, RunFacts, StageCost
from moextend.bench.score.records import Cell, Parity
from moextend.errors import InputError, RunBusy, RunConflict, SpecError, UnknownName, listed
from moextend.util import files, lease, processes
from moextend.util.environment import environment

__all__ = [
    "Cell", "Key", "RunConfig", "RunDir", "find_run", "find_runs", "line_of", "locked", "parse_cell", "run_name",
    "signed", "slug",
]  # fmt: skip

RESTORE = "Restore the original file, or remove the folder of this run and run again."
TO_GET = "Remove {}, and unpack a pack that has them or run it again."
"""Hint for a run from a pack that left out what is needed."""
SCORES = "scores.jsonl"
RECORDS = ("config.json", SCORES, "status.json")
"""Files that mark a folder as a run."""
COST = "cost.json"
FACTS = "facts.json"
ROUTING = "routing.json"
PARITY = "parity.jsonl"
PREDICTIONS = "predictions"
PACK = ".tar.zst"
"""Suffix of a pack of runs (see pack.py)."""
DIGEST = "digest"
"""Key of the digest of all other keys of a line."""
Key = tuple[int, str]
"""A cell: (stage, task)."""
C = TypeVar("C", bound=Cell)
R = TypeVar("R", bound=OfRun)


class RunDir:
    """The folder of one run; of several processes that work on it only the first one writes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def create(self) -> None:
        """Creates the folder if it is missing."""
        self._made(self.folder)

    @property
    def config_path(self) -> Path:
        """File with the config of the run."""
        return self.folder / "config.json"

    @cached_property
    def config(self) -> RunConfig:
        """Config of the run, for the workspace in which it lies; InputError if it is missing or broken."""
        found = self.config_file.config(self.config_path)
        return found.model_copy(update={"places": places_now(found.places, self.folder)})

    @cached_property
    def id(self) -> str:
        """Unique id of the run, also among runs of the same config."""
        return self.config_file.id

    @cached_property
    def config_file(self) -> ConfigFile:
        """Content of config.json when it was first read; the identity of a run does not change."""
        return self.read_config_file()

    def read_config_file(self) -> ConfigFile:
        """Content of config.json as it is now; InputError if it is missing or broken."""
        path = self.config_path
        if not path.is_file():
            raise InputError(
                "not a run folder: no config.json.",
                where=str(self.folder),
                hint="Check the path. If the file is lost, restore it, or remove the folder.",
            )
        try:
            record = files.read_json(path)
        except SpecError as error:
            raise SpecError(error.what, where=error.where, hint=RESTORE) from error
        try:
            return ConfigFile.parse(record, where=str(path))
        except SpecError as error:
            raise SpecError(f"holds no config: {error.what}", where=str(path), hint=RESTORE) from error

    @property
    def environments(self) -> list[dict[str, Any]]:
        """What the run was made with: versions, commit and machine, one entry each time that they changed."""
        return self.read_config_file().environments

    @property
    def left_out(self) -> list[Kept]:
        """What the pack that the run is from left out; empty for other runs."""
        return read_status(self.folder).left_out

    def check_has(self, *wanted: Kept) -> None:
        """Raises InputError if the run is from a pack that left out some of `wanted`."""
        if lacking := [kind for kind in self.left_out if kind in wanted]:
            raise InputError(
                f"is from a pack without {listed(lacking)}.",
                where=str(self.folder),
                hint=TO_GET.format(self.folder),
            )

    def record_environment(self, **more: Any) -> None:
        """Records the environment of the run if it differs from the last one."""
        if not processes.is_first():
            return
        record, now = self.read_config_file(), environment(**more)
        history = record.environments
        last = history[-1] if history else {}
        if any(last.get(key, ...) != value for key, value in now.items()):
            noted = [*history, {"at": time.strftime("%Y-%m-%dT%H:%M:%S%z"), **now}]
            record.model_copy(update={"environments": noted}).write(self.config_path)

    def append_cell(self, cell: Cell) -> None:
        """Appends a line to scores.jsonl and syncs it to disk."""
        if processes.is_first():
            files.append_lines(self.folder / SCORES, [line_of(cell, self.id)])

    def cells(self, *, left_out: Collection[Kept] | None = None) -> dict[Key, Cell]:
        """(stage, task) -> its last cell, without predictions that a pack left out.

        Args:
            left_out: what the run's status says of it, if it was read already.

        Raises:
            InputError: a line is not a cell.
        """
        path = self.folder / SCORES
        bare = "predictions" in (self.left_out if left_out is None else left_out)
        found: dict[Key, Cell] = {}
        for number, record in enumerate(files.read_lines(path), 1):
            cell = parse_cell(record, f"{path}:{number}", self.id, Cell)
            found[cell.stage, cell.task] = cell.model_copy(update={"predictions": None}) if bare else cell
        return found

    def append_parity(self, parity: Parity) -> str:
        """Appends a line to parity.jsonl, synced to disk; returns its digest, by which cells name it."""
        line = signed({**parity.model_dump(), "run": self.id})
        files.append_lines(self.folder / PARITY, [line])
        return str(line[DIGEST])

    def parities(self) -> dict[str, Parity]:
        """Digest -> parity check of this run; lines that are damaged or of another run are left out."""
        path, found = self.folder / PARITY, dict[str, Parity]()
        for line in path.read_bytes().split(b"\n") if path.is_file() else ():
            with suppress(ValueError, RecursionError, SpecError, AttributeError):
                record = json.loads(line)
                if record.get("run") == self.id and record == signed(record):
                    found[record[DIGEST]] = Parity.parse(_values(record), where=str(path))
        return found

    def stage_folder(self, stage: int, task: str) -> Path:
        """Folder of stage `stage`; created if missing."""
        return self._made(self.folder / "stages" / f"{stage}-{slug(task)}")

    @property
    def predictions(self) -> Path:
        """Folder of the predictions; created if missing."""
        return self._made(self.folder / PREDICTIONS)

    @property
    def log(self) -> Path:
        """File with the standard error of the worker."""
        return self.folder / "worker.log"

    @staticmethod
    def _made(folder: Path) -> Path:
        with files.disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        return folder

    def facts(self) -> RunFacts:
        """Facts that the run recorded; empty at first."""
        return RunFacts.read_of(self.id, self.folder / FACTS) or RunFacts()

    def write_facts(self, **facts: Any) -> None:
        """Adds or replaces facts, field by field."""
        if not processes.is_first():
            return
        path = self.folder / FACTS
        RunFacts.parse({**self.facts().model_dump(), **facts, "run": self.id}, where=str(path)).write(path)

    def write_cost(self, stage: int, task: str, cost: StageCost) -> None:
        """Writes the costs of a stage."""
        if processes.is_first():
            cost.model_copy(update={"run": self.id}).write(self.stage_folder(stage, task) / COST)

    def costs(self) -> dict[int, StageCost]:
        """Stage -> its costs; stages without costs are left out."""
        return self._of_stages(COST, StageCost)

    def routing(self) -> dict[int, RoutingReport]:
        """Stage -> its routing report (see diagnostics.py); stages without one are left out."""
        return self._of_stages(ROUTING, RoutingReport)

    def _of_stages(self, name: str, kind: type[R]) -> dict[int, R]:
        """Stage -> file `name` in its folder."""
        found: dict[int, R] = {}
        for path in sorted(self.folder.glob(f"stages/*/{name}")):
            number, dash, _ = path.parent.name.partition("-")
            if number.isdecimal() and dash and (record := kind.read_of(self.id, path)):
                found[int(number)] = record
        return found

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Context with the lease of the run; see `locked`."""
        with locked([self]):
            yield


@contextmanager
def locked(runs: Sequence[RunDir]) -> Iterator[None]:
    """Context in which this process alone works on the runs; every change of their files checks that it still does.

    Raises:
        RunBusy: another process holds one of them; named.
        LeaseLost: this process was suspended or cut off from the disk for too long; also in the block.
    """
    try:
        leases = lease.acquire_all([run.folder / LEASE for run in runs])
    except lease.Held as held:
        raise RunBusy(
            f"another process is working on this run ({held.holder}).",
            where=str(held.path.parent),
            hint="Wait for it, or stop it: moextend bench cancel.",
        ) from held
    with ExitStack() as stack:
        for mine in leases:
            stack.enter_context(mine)
        for run, mine in zip(runs, leases, strict=True):
            stack.enter_context(files.guarded(run.folder, mine.check))
        yield


def changed_since(run: RunDir, what: str) -> RunConflict:
    """The error for something that a run has used, and that changed."""
    return RunConflict(
        f"{what} changed after this run began.",
        where=str(run.folder),
        hint="Restore it, or remove this run or move it elsewhere.",
    )


def line_of(cell: Cell, run: str) -> dict[str, Any]:
    """The cell as a line of scores.jsonl."""
    unset = {name for name in ("batch_size", "backend", "parity") if getattr(cell, name) is None}
    return signed({**cell.model_dump(exclude=unset), "run": run})


def signed(record: dict[str, Any]) -> dict[str, Any]:
    """The record with a digest of all its other keys."""
    return {**record, DIGEST: files.digest({key: value for key, value in record.items() if key != DIGEST})}


def _values(record: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key not in ("run", DIGEST)}


def parse_cell(record: Any, where: str, run: str, kind: type[C]) -> C:
    """Cell of a kind from a line; SpecError if it is not one, was changed, or belongs to another run."""
    hint = "Remove the line, and run the same command again (moextend bench run): it scores what is missing."
    if not isinstance(record, dict):
        raise SpecError("not a scored cell.", where=where, hint=hint)
    if record.get("run", run) != run:
        raise SpecError("is a cell of another run.", where=where, hint=hint)
    if record.get(DIGEST) and record != signed(record):
        raise SpecError("was changed after it was scored.", where=where, hint=hint)
    try:
        cell = kind.parse(_values(record), where=where)
    except SpecError as error:
        raise SpecError(f"not a scored cell: {error.what}", where=where, hint=hint) from error
    if not record.get(DIGEST):
        raise SpecError("has no digest, so nothing shows that it was scored.", where=where, hint=hint)
    return cell


def _is_run(folder: Path) -> bool:
    """Whether a folder anywhere is that of a run: models have a config.json, too."""
    if any((folder / name).exists() for name in RECORDS[1:]):
        return True
    if not (folder / "config.json").is_file():
        return False
    try:
        found = files.read_json(folder / "config.json")
    except InputError:
        return True  # damaged: reading it says so
    return isinstance(found, dict) and not found.keys().isdisjoint(("identity", "digest", "sequence"))


def find_runs(runs: Path, names: Sequence[str] = ()) -> list[RunDir]:
    """Runs below `runs`, or those with these names: a path, `<sequence>/<run>`, `<run>` or `<sequence>`.

    A folder with scores or a status counts as a run even without config.json; reading its config then fails.
    """
    found = sorted({path.parent for name in RECORDS for path in runs.glob(f"*/*/{name}")})
    if not names:
        return [RunDir(folder) for folder in found]
    chosen: list[Path] = []
    for name in names:
        path, wanted = Path(name), name.rstrip("/")
        same = [f for f in found if wanted in (f.name, f.parent.name, run_name(f))]
        if not same and _is_run(path):
            same = [path]
        elif not same and path.is_dir():
            inside = {file.parent for record in RECORDS for file in path.glob(f"*/{record}")}
            inside |= {file.parent for record in RECORDS for file in path.glob(f"*/*/{record}")}
            same = sorted(filter(_is_run, inside))
            if not same:
                hint = "Name a folder of runs. A pack is unpacked first: moextend bench unpack PACK"
                raise InputError("holds no run.", where=name, hint=hint)
        elif not same and path.is_file():
            is_pack = path.name.endswith(PACK)
            hint = (
                f"Unpack it first: moextend bench unpack {name}"
                if is_pack
                else "Name a run or a folder of runs."
            )
            what = "is a pack of runs, not a run." if is_pack else "is a file, not a folder of runs."
            raise InputError(what, where=name, hint=hint)
        if not same:
            known = {run_name(f) for f in found} | {f.parent.name for f in found}
            raise UnknownName("run", name, known, where=str(runs))
        chosen += same
    return [RunDir(folder) for folder in dict.fromkeys(chosen)]


def find_run(runs: Path, name: str, *, where: str) -> RunDir:
    """The one run of this name, see `find_runs`; InputError if there are several."""
    found = find_runs(runs, [name])
    if len(found) > 1:
        some = ", ".join(run_name(run.folder) for run in found[:10])
        raise InputError(f"'{name}' names {len(found)} runs.", where=where, hint=f"Choose one: {some}.")
    return found[0]


def run_name(folder: Path) -> str:
    """<sequence>/<run>, a name for `find_runs`."""
    return f"{folder.parent.name}/{folder.name}"
