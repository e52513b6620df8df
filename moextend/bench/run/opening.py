"""The folders of the runs of a command: new ones, ones with a config that fits, refused ones."""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from moextend.bench.run.complete import planned
from moextend.bench.run.config import ConfigFile, RunConfig, differences, grows, slug, without_notes
from moextend.bench.run.progress import LEASE
from moextend.bench.run.rundir import Key, RunDir, locked
from moextend.bench.tuned import NOT_STATED
from moextend.errors import InputError, RunConflict, SpecError
from moextend.util import files

KEPT = (LEASE, "job.json")
"""The lease of a run, and the record of the job that executes it."""


def untrained(run: RunDir) -> bool:
    """Whether the run has no files of a stage, not even a checkpoint, and no cell after stage 0."""
    if any(path.is_file() for path in run.folder.glob("stages/**/*")):
        return False
    try:
        return all(stage == 0 for stage, _ in run.cells())
    except SpecError:  # scores that cannot be read may be of a trained stage
        return False


def clear(run: RunDir) -> None:
    """Removes everything from the folder of a run; this process must hold its lease."""
    files.may_change(run.folder)
    with files.disk_errors(run.folder):
        for path in run.folder.iterdir():
            if path.name in KEPT:
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()


def folder_of(config: RunConfig, runs: Path) -> Path:
    """Folder of a run below `runs`; it may not exist."""
    return runs / slug(str(config.sequence["sequence"])) / config.slug


def named_apart(
    configs: Sequence[RunConfig], runs: Path, on_name: Callable[[str], None] = lambda words: None
) -> list[RunConfig]:
    """The configs; a method that has runs with other settings of the sequence names in its text what differs.

    So the settings that `bench tune` chose begin a row of their own, next to that of the earlier runs.
    """
    names: dict[tuple[str, str], str] = {}
    for config in {(config.method, config.mode): config for config in configs}.values():
        earlier = folder_of(config, runs).parent.glob(f"{slug(config.method)}-s*")
        spec = config.method_spec
        for key, value in dict(pair for run in earlier for pair in _changed(RunDir(run), config)).items():
            spec = spec.having(key, value)
        names[config.method, config.mode] = spec.text
        if spec.text != config.method:
            on_name(f"{config.method} has runs with other settings: these runs are {spec.text}.")
    named = [
        config
        if (text := names[config.method, config.mode]) == config.method
        else config.model_copy(update={"method": text})
        for config in configs
    ]
    return list({config.slug: config for config in named}.values())


def _changed(run: RunDir, config: RunConfig) -> list[tuple[str, str]]:
    """Settings of `config` that a trained run of its method and mode has otherwise; none if one has no value."""
    try:
        if (run.config.method, run.config.mode) != (config.method, config.mode) or untrained(run):
            return []
        old, new = (each.method_spec.config.model_dump(mode="json") for each in (run.config, config))
    except InputError:  # `open_runs` says what is wrong with it
        return []
    found = {key: value for key, value in new.items() if value != old.get(key)}
    if None in found.values():
        return []
    return [
        (key, "+".join(map(str, one)) if isinstance(one, list) else str(one)) for key, one in found.items()
    ]


def open_run(config: RunConfig, runs: Path) -> RunDir:
    """Folder of `config` below `runs`, created if missing; see `open_runs`."""
    return open_runs([config], runs)[0]


def open_runs(
    configs: Sequence[RunConfig],
    runs: Path,
    *,
    must_be_free: Callable[[RunDir], bool] = lambda run: False,
    on_change: Callable[[RunDir, str], None] = lambda run, words: None,
) -> list[RunDir]:
    """Folders of the configs below `runs`, created if missing.

    A config that only adds later stages or scored tasks takes over an existing folder with its results. A run of
    another config without any training is replaced. Before anything is written, all folders are checked, and those that
    change or satisfy `must_be_free` are locked. `on_change` is told of runs that are replaced, and of those whose
    settings are stated to come from elsewhere than before.

    Raises:
        RunConflict: a folder belongs to another config, has files without a config, or another process works on it.
    """
    opened = [(RunDir(folder_of(config, runs)), config) for config in configs]
    changing = []
    for run, config in opened:
        record = _fitting_record(run, config)
        # Also of a run whose config changes, which it may refuse.
        needed = record is not None and must_be_free(run)
        if needed or _wanted_record(record, config) != record:
            changing.append((run, config))
    with ExitStack() as locks:
        for run, _ in changing:
            run.create()
        locks.enter_context(locked([run for run, _ in changing]))
        # Again: another process may have written before the lock was held.
        records = [_fitting_record(run, config) for run, config in changing]
        for (run, config), record in zip(changing, records, strict=True):
            if not record and run.config_path.exists():
                on_change(run, "the config changed before anything was trained; the run is replaced.")
                clear(run)
            if record and record.tuned_on != config.tuned_on:
                before, now = record.tuned_on or NOT_STATED, config.tuned_on or NOT_STATED
                on_change(
                    run, f"the sequence states another source of its settings: {now}, before: {before}."
                )
            _write_config(run, record, _wanted_record(record, config))
    return [run for run, _ in opened]


def scored(config: RunConfig, runs: Path) -> set[Key]:
    """The planned cells that the folder of `config` below `runs` has; empty if `open_runs` would not take it over."""
    run = RunDir(folder_of(config, runs))
    try:
        return set(run.cells()) & set(planned(config)) if _fitting_record(run, config) else set()
    except InputError:
        return set()


def _fitting_record(run: RunDir, config: RunConfig) -> ConfigFile | None:
    """Content of config.json; None for a new folder, and for a run of another config without any training.

    Raises RunConflict if `config` does not fit the folder.
    """
    path = run.config_path
    if run.folder.exists() and not run.folder.is_dir():
        raise RunConflict("is not a folder.", where=str(run.folder), hint="Move it away.")
    if not path.exists():
        if _holds_files(run.folder):
            raise RunConflict(
                "holds files of a run, but no config.json.",
                where=str(run.folder),
                hint="Restore config.json, or remove this folder.",
            )
        return None
    record = run.read_config_file()
    record.config(path)  # refuses one that was edited
    before, now = without_notes(record.identity), without_notes(config.identity())
    found = differences(before, now)
    if found and not grows(before, now):
        if untrained(RunDir(run.folder)):  # a run of its own: what it reads of the old config is kept
            return None
        raise _conflict(run.folder, found)
    return record


def _holds_files(folder: Path) -> bool:
    """Whether a folder has more files than an interrupt during its creation leaves."""
    if not folder.is_dir():
        return False
    return any(not path.name.startswith(".") for path in folder.iterdir())


def _wanted_record(record: ConfigFile | None, config: RunConfig) -> ConfigFile:
    """New content of config.json; equal to `record` if nothing changes."""
    identity = config.identity()
    if record and without_notes(record.identity) == without_notes(identity):
        identity = record.identity  # a corrected licence makes no other run
    return ConfigFile(
        id=record.id if record else uuid.uuid4().hex,
        digest=files.digest(identity), identity=identity, places=config.places, device=config.device,
        protocol=config.protocol, tuned_on=config.tuned_on, oracle=config.oracle or bool(record and record.oracle),
        deterministic=config.deterministic or bool(record and record.deterministic),
        environments=record.environments if record else [], backend=config.backend,
    )  # fmt: skip


def _write_config(run: RunDir, record: ConfigFile | None, wanted: ConfigFile) -> None:
    """Writes the config; a run with more stages or tasks than before is no longer done."""
    if wanted == record:
        return
    if record and (record.oracle != wanted.oracle or differences(record.identity, wanted.identity)):
        (run.folder / "status.json").unlink(missing_ok=True)
    wanted.write(run.config_path)
    run.record_environment()


def _conflict(folder: Path, found: list[tuple[str, Any, Any]]) -> RunConflict:
    shown = "; ".join(f"{place}: {_short(old)} there, {_short(new)} now" for place, old, new in found[:3])
    more = f"; and {len(found) - 3} more" if len(found) > 3 else ""
    return RunConflict(
        f"holds a run of another config ({shown}{more}).",
        where=str(folder),
        hint="Move this folder elsewhere, remove it, or use another --workspace.",
    )


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "..."
