"""The folder of one run, which the planner, the worker and the report share.

runs/<sequence>/<method>-s<seed>[-<order>][-<mode>]/
  config.json       config of the run (identity, id), paths of its specs, environment
  scores.jsonl      one line per cell of the matrix, with the id of the run; the last line of a cell counts
  facts.json        facts that the run records (task identity, majority answers, cost of the base, plug-ins)
  status.json       see progress.py
  stages/<t>-<task>/    weights and files of stage t; cost.json: its costs; routing.json: experts that the tasks use
  predictions/          one line per item

Formats: records.py, config.py, score/records.py, score/predictions.py; docs/files.md is generated from them.
"""

from __future__ import annotations

import json
import os
import re
import socket
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from moextend.bench.run import removal
from moextend.bench.run.cell import Key, line_of, parse_cell
from moextend.bench.run.config import ConfigFile, RunConfig, differences, grows, slug
from moextend.bench.run.environment import environment
from moextend.bench.run.records import RoutingReport, RunFacts, StageCost
from moextend.bench.score.records import Cell
from moextend.errors import InputError, RunConflict, SpecError, UnknownName
from moextend.util import files

__all__ = ["Cell", "Key", "RunConfig", "RunDir", "find_runs", "open_run", "open_runs", "slug"]

RESTORE = "Put the file back as it was, or remove the folder of this run and run again."
RECORDS = ("config.json", "scores.jsonl", "status.json")
"""Files that mark a folder as a run."""
COST = "cost.json"
FACTS = "facts.json"
ROUTING = "routing.json"


class RunDir:
    """The folder of one run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def config_path(self) -> Path:
        """File with the config of the run."""
        return self.folder / "config.json"

    @cached_property
    def config(self) -> RunConfig:
        """Config of the run; InputError if it is missing or broken."""
        return self._first_record.config(self.config_path)

    @cached_property
    def id(self) -> str:
        """Unique id of the run, also among runs of the same config; "" for runs of early versions."""
        return self._first_record.id

    @cached_property
    def _first_record(self) -> ConfigFile:
        """Content of config.json when it was first read; the identity of a run does not change."""
        return self._record()

    def _record(self) -> ConfigFile:
        path = self.config_path
        if not path.is_file():
            raise InputError(
                "not a run folder: no config.json.",
                where=str(self.folder),
                hint="Check the path; if the file is lost, put it back, or remove the folder.",
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
        return self._record().environments

    def record_environment(self, **more: Any) -> None:
        """Records the environment of the run if it differs from the last one."""
        record, now = self._record(), environment(**more)
        history = record.environments
        last = history[-1] if history else {}
        if any(last.get(key, ...) != value for key, value in now.items()):
            noted = [*history, {"at": time.strftime("%Y-%m-%dT%H:%M:%S%z"), **now}]
            record.model_copy(update={"environments": noted}).write(self.config_path)

    def append_cell(self, cell: Cell) -> None:
        """Appends a line to scores.jsonl and syncs it to disk."""
        files.append_lines(self.folder / "scores.jsonl", [line_of(cell, self.id)])

    def cells(self) -> dict[Key, Cell]:
        """(stage, task) -> its last cell; InputError if a line is not a cell."""
        path = self.folder / "scores.jsonl"
        found: dict[Key, Cell] = {}
        for number, record in enumerate(files.read_lines(path), 1):
            cell = parse_cell(record, f"{path}:{number}", self.id)
            found[cell.stage, cell.task] = cell
        return found

    def drop_cells(self, stale: Collection[Key]) -> None:
        """Removes cells from scores.jsonl, so that they are scored again."""
        path = self.folder / "scores.jsonl"
        kept = [record for record in files.read_lines(path) if (record["stage"], record["task"]) not in stale]
        files.write_lines(path, kept)

    def reads_line(self, line: bytes) -> bool:
        """Whether a line of scores.jsonl is a cell of this run."""
        try:
            parse_cell(json.loads(line), "", self.id)
        except (ValueError, RecursionError, SpecError):
            return False
        return True

    def stage_folder(self, stage: int, task: str) -> Path:
        """Folder of stage `stage`; created if missing."""
        return self._made(self.folder / "stages" / f"{stage}-{slug(task)}")

    @property
    def predictions(self) -> Path:
        """Folder of the predictions; created if missing."""
        return self._made(self.folder / "predictions")

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
        return RunFacts.read(self.folder / FACTS) or RunFacts()

    def write_facts(self, **facts: Any) -> None:
        """Adds or replaces facts, field by field."""
        path = self.folder / FACTS
        RunFacts.parse({**self.facts().model_dump(), **facts}, where=str(path)).write(path)

    def write_cost(self, stage: int, task: str, cost: StageCost) -> None:
        """Writes the costs of a stage."""
        cost.write(self.stage_folder(stage, task) / COST)

    def costs(self) -> dict[int, StageCost]:
        """Stage -> its costs; stages without costs are left out."""
        found = {stage: StageCost.read(path) for stage, path in self._of_stages(COST)}
        return {stage: cost for stage, cost in found.items() if cost is not None}

    def routing(self) -> dict[int, RoutingReport]:
        """Stage -> its routing report (see diagnostics.py); stages without one are left out."""
        found = {stage: RoutingReport.read(path) for stage, path in self._of_stages(ROUTING)}
        return {stage: report for stage, report in found.items() if report is not None}

    def _of_stages(self, name: str) -> Iterator[tuple[int, Path]]:
        """(stage, path) of the files `name` in the folders of the stages."""
        for path in sorted(self.folder.glob(f"stages/*/{name}")):
            if re.match(r"[0-9]+-", path.parent.name):
                yield int(path.parent.name.partition("-")[0]), path

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Context with the lock of the run; RunConflict with the process that holds it."""
        from filelock import FileLock, Timeout

        owner, lock = self.folder / "owner.json", FileLock(self.folder / ".lock")
        try:
            with files.disk_errors(self.folder):
                lock.acquire(timeout=0)
        except Timeout as error:
            raise RunConflict(
                f"another process is working on this run{_owner(owner)}.",
                where=str(self.folder),
                hint="Wait for it, stop it, or use another --runs folder.",
            ) from error
        try:
            files.write_json(owner, {"pid": os.getpid(), "host": socket.gethostname()})
            yield
        finally:
            owner.unlink(missing_ok=True)
            lock.release()


def folder_of(config: RunConfig, runs: Path) -> Path:
    """Folder of a run below `runs`; it may not exist."""
    return runs / slug(str(config.sequence["sequence"])) / config.slug


def open_run(config: RunConfig, runs: Path) -> RunDir:
    """Folder of `config` below `runs`, created if missing; see `open_runs`."""
    return open_runs([config], runs)[0]


def open_runs(
    configs: Sequence[RunConfig],
    runs: Path,
    *,
    must_be_free: Callable[[RunDir], bool] = lambda run: False,
    on_replace: Callable[[RunDir], None] = lambda run: None,
) -> list[RunDir]:
    """Folders of the configs below `runs`, created if missing.

    A config that only adds later stages or scored tasks takes over an existing folder with its results. A run of
    another config without any training is replaced, after a call of `on_replace`. Before anything is written, all
    folders are checked, and those that change or satisfy `must_be_free` are locked.

    Raises:
        RunConflict: a folder belongs to another config, has files without a config, or another process works on it.
    """
    opened = [(RunDir(folder_of(config, runs)), config) for config in configs]
    changing = []
    for run, config in opened:
        record = _fitting_record(run, config)
        if _wanted_record(record, config) != record or must_be_free(run):
            changing.append((run, config))
    with ExitStack() as locks:
        for run, _ in changing:
            run._made(run.folder)
            locks.enter_context(run.lock())
        # Again: another process may have written before the lock was held.
        records = [_fitting_record(run, config) for run, config in changing]
        for (run, config), record in zip(changing, records, strict=True):
            if not record and run.config_path.exists():
                on_replace(run)
                removal.clear(run)
            _write_config(run, record, _wanted_record(record, config))
    return [run for run, _ in opened]


def _fitting_record(run: RunDir, config: RunConfig) -> ConfigFile | None:
    """Content of config.json; None for a new folder, and for a run of another config without any training.

    Raises RunConflict if `config` does not fit the folder.
    """
    path = run.config_path
    if run.folder.exists() and not run.folder.is_dir():
        raise RunConflict(
            "is no folder.", where=str(run.folder), hint="Move it away, or use another --runs folder."
        )
    if not path.exists():
        if _holds_files(run.folder):
            raise RunConflict(
                "holds files of a run, but no config.json.",
                where=str(run.folder),
                hint="Put config.json back, use another --runs folder, or remove this folder.",
            )
        return None
    record = run._record()
    record.config(path)  # refuses one that was edited
    _check_kinds(run.folder)
    identity = _stored_identity(config)
    found = differences(record.identity, identity)
    if found and not grows(record.identity, identity):
        if removal.untrained(RunDir(run.folder)):  # a run of its own: what it reads of the old config is kept
            return None
        raise _conflict(run.folder, found)
    return record


def _check_kinds(folder: Path) -> None:
    """Raises RunConflict if there is another object at the path of a file or folder of the run."""
    for path in (folder / "stages", folder / "predictions", *sorted(folder.glob("stages/*/*-in-flight"))):
        if path.exists() and not path.is_dir():
            raise RunConflict(
                "lies where a folder of the run belongs, and is none.", where=str(path), hint="Move it away."
            )
    for pattern in ("*", "stages/*/*", "predictions/*/*"):
        for path in sorted(folder.glob(pattern)):
            is_record = path.name == ".lock" or path.suffix in (".json", ".jsonl", ".log", ".safetensors")
            if is_record and path.exists() and not path.is_file():
                raise RunConflict(
                    "lies where a file of the run belongs, and is none.",
                    where=str(path),
                    hint="Move it away.",
                )


def _holds_files(folder: Path) -> bool:
    """Whether a folder has more files than an interrupt during its creation leaves."""
    if not folder.is_dir():
        return False
    return any(not path.name.startswith(".") and path.name != "owner.json" for path in folder.iterdir())


def _stored_identity(config: RunConfig) -> dict[str, Any]:
    # through JSON, so that tuples and paths compare as they are stored
    identity: dict[str, Any] = json.loads(json.dumps(config.identity(), default=str))
    return identity


def _wanted_record(record: ConfigFile | None, config: RunConfig) -> ConfigFile:
    """New content of config.json; equal to `record` if nothing changes."""
    identity = _stored_identity(config)
    return ConfigFile(
        # A record without an id is of an early version, and stays so: its scores name none, or one that is lost.
        id=record.id if record else uuid.uuid4().hex,
        digest=files.digest(identity), identity=identity, places=config.places, device=config.device,
        protocol=config.protocol, oracle=config.oracle or bool(record and record.oracle),
        environments=record.environments if record else [],
    )  # fmt: skip


def _write_config(run: RunDir, record: ConfigFile | None, wanted: ConfigFile) -> None:
    """Writes the config; a run with more stages or tasks than before is no longer done."""
    if wanted == record:
        return
    if record and (record.oracle != wanted.oracle or differences(record.identity, wanted.identity)):
        (run.folder / "status.json").unlink(missing_ok=True)
    wanted.write(run.config_path)
    run.record_environment()


def find_runs(runs: Path, names: Sequence[str] = ()) -> list[RunDir]:
    """Runs below `runs`, or those with these names: a path, `<sequence>/<run>`, `<run>` or `<sequence>`.

    A folder with scores or a status counts as a run even without config.json; reading its config then fails.
    """
    found = sorted({path.parent for name in RECORDS for path in runs.glob(f"*/*/{name}")})
    if not names:
        return [RunDir(folder) for folder in found]
    chosen: list[Path] = []
    for name in names:
        wanted = name.rstrip("/")
        same = [f for f in found if wanted in (f.name, f.parent.name, f"{f.parent.name}/{f.name}")]
        path = Path(name)
        if not same and (path / "config.json").is_file():
            same = [path]
        if not same and path.is_dir():
            same = [
                file.parent for file in sorted([*path.glob("*/config.json"), *path.glob("*/*/config.json")])
            ]
        if not same:
            known = {f"{f.parent.name}/{f.name}" for f in found}
            raise UnknownName("run", name, known, where=str(runs))
        chosen += same
    return [RunDir(folder) for folder in dict.fromkeys(chosen)]


def _conflict(folder: Path, found: list[tuple[str, Any, Any]]) -> RunConflict:
    shown = "; ".join(f"{place}: {_short(old)} there, {_short(new)} now" for place, old, new in found[:3])
    more = f"; and {len(found) - 3} more" if len(found) > 3 else ""
    return RunConflict(
        f"holds a run of another config ({shown}{more}).",
        where=str(folder),
        hint="Use another --runs folder or --workspace, or remove the run: "
        f"moextend bench remove-run {run_name(folder)}.",
    )


def run_name(folder: Path) -> str:
    """<sequence>/<run>, a name for `find_runs`."""
    return f"{folder.parent.name}/{folder.name}"


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "..."


def _owner(path: Path) -> str:
    try:
        owner = files.read_json(path)
        return f" (process {owner['pid']} on {owner['host']})"
    except (OSError, SpecError, KeyError, TypeError):
        return ""
