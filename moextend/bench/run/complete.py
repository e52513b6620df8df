"""Checks whether a run with the state "done" is complete, and finds damaged files of a run."""

from __future__ import annotations

import json
import logging
import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from moextend.bench.run.config import RunConfig
from moextend.bench.run.progress import read_status
from moextend.bench.run.records import RunFacts, StageCost
from moextend.bench.run.rundir import COST, FACTS, PARITY, ROUTING, SCORES, Cell, Key, RunDir, slug
from moextend.bench.store import KeptFile
from moextend.errors import InputError, SpecError
from moextend.util import files

log = logging.getLogger(__name__)

SMALL, EVERY = 4 << 20, 1 << 62
"""Maximum size in bytes of files that are hashed, of a done run and where every byte counts; of larger ones only the
size is compared."""
LEARNED = "learned.json"
"""Notes from the training of a stage; cost.json has them too, and more."""
LINEAGE = "lineage.json"
"""What the training of a stage started from: digests of the earlier stages' weights, and of data and code."""
NOTED = (COST, ROUTING, LEARNED, LINEAGE, "spent.json", "probe.json")
"""Files of a stage that its cost.json does not list: notes about it."""
TENSORS = ".safetensors"
"""Suffix of files that a pack leaves out unless weights are wanted."""
STEM = "extension"
"""The files of a stage's weights (see moextend.extension.tensor_files)."""


def lacks(run: RunDir, *, most: int = SMALL) -> list[str]:
    """Missing or damaged cells, predictions, weights and facts of a done run; InputError if its config is damaged.

    What a pack left out is not missing (`RunDir.left_out`). Files up to `most` bytes are hashed.
    """
    config, status = run.config, read_status(run.folder)
    try:
        found = lacking_facts(config, run.facts())
    except InputError as error:
        found = [f"readable facts ({error.what})"]
    if (status.run, status.config) != (run.id, config.digest):
        found.append("a status of its own")
    try:
        found += lacking_scores(run, run.cells(), most=most)
    except InputError as error:
        found.append(f"readable scores ({error.what})")
    for index, name in enumerate(() if config.scored else config.stage_names, 1):
        folder = run.folder / "stages" / f"{index}-{slug(name)}"
        problem = stage_problem(folder, run.id, most=most, weights="weights" not in status.left_out)
        found += [f"what stage {index} ({name}) learned: {problem}"] if problem else []
    return found + _lacking_routing(run)


def planned(config: RunConfig) -> list[Key]:
    """The cells of the full matrix."""
    tasks = [*config.stages, *config.retention, *config.transfer]
    return [(stage, task) for stage in range(len(config.stage_names) + 1) for task in tasks]


def lacking_scores(run: RunDir, cells: Mapping[Key, Cell], *, most: int = 0) -> list[str]:
    """Planned cells that are missing, or have changed predictions; files up to `most` bytes are hashed."""
    problems: dict[str, str | None] = {}
    changed = []
    for cell in cells.values():
        if (name := cell.predictions) is not None:
            if name not in problems:  # a file is read once
                problems[name] = predictions_problem(run.folder, cell, most=most)
            if problems[name]:
                changed.append(f"{_after(cell.task, cell.stage)} ({problems[name]})")
    lacking = {
        "the score of": [
            _after(task, stage) for stage, task in planned(run.config) if (stage, task) not in cells
        ],
        "a parity check of the server that scored": [
            _after(cell.task, cell.stage) for cell in unproved(run, cells.values())
        ],
        "the predictions of": changed,
    }
    return [f"{what} {_listed(names)}" for what, names in lacking.items() if names]


def _after(task: str, stage: int) -> str:
    return f"{task} after stage {stage}"


def unproved(run: RunDir, cells: Iterable[Cell]) -> list[Cell]:
    """Cells that a server scored, whose parity with transformers no line of parity.jsonl shows."""
    served = [cell for cell in cells if cell.backend is not None]
    known = run.parities() if served else {}
    shown = {(digest, one.task, one.weights_id, one.backend) for digest, one in known.items()}
    return [cell for cell in served if (cell.parity, cell.task, cell.weights, cell.backend) not in shown]


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def predictions_problem(folder: Path, cell: Cell, *, most: int = EVERY) -> str | None:
    """Problem of the predictions of a cell; None if there is none."""
    assert cell.predictions is not None
    return _file_problem(folder / cell.predictions, cell.size, cell.sha256, most)


def _file_problem(path: Path, size: int | None, sha256: str, most: int) -> str | None:
    """Difference between a file and its record; files larger than `most` bytes are compared by size only."""
    try:
        now = path.stat().st_size
        if size is not None and now != size:
            return "of another size"
        if sha256 and now <= most and files.sha256(path) != sha256:
            return "changed"
    except FileNotFoundError:
        return "missing"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    return None


def kept_paths(folder: Path) -> list[Path]:
    """Files of a stage that later stages and inference read."""
    return [
        path
        for path in sorted(folder.iterdir())
        if path.is_file()
        and path.suffix in (TENSORS, ".json")
        and path.name not in NOTED
        and path.name[0] != "."
    ]


def kept_files(folder: Path) -> dict[str, KeptFile]:
    """Name -> size and SHA-256 of a stage's files besides its weights, whose digest is in their card."""
    return {path.name: KeptFile.of(path) for path in kept_paths(folder) if path.name != f"{STEM}{TENSORS}"}


def stage_problem(
    folder: Path, run: str, *, costs: bool = True, most: int = SMALL, weights: bool = True
) -> str | None:
    """Problem of a stage's folder; None if it is complete.

    Args:
        run: id of the run.
        costs: whether cost.json must exist.
        most: largest file in bytes that is hashed.
        weights: whether files of tensors must exist.
    """
    try:
        problem = _weights_problem(folder, most, weights)
        if problem:
            return problem
        cost = StageCost.read_of(run, folder / COST)
        if cost is None:
            return f"{COST} missing" if costs else None
        for name, known in cost.files.items():
            if not weights and name.endswith(TENSORS) and not (folder / name).exists():
                continue
            problem = _file_problem(folder / name, known.bytes, known.sha256, most)
            if problem:
                return f"{name} {problem}"
    except InputError as error:
        return error.what
    except ValueError:  # a name that no file can have
        return f"{COST} damaged"
    return None


def _weights_problem(folder: Path, most: int, needed: bool) -> str | None:
    card, path = _record(folder / f"{STEM}.json"), folder / f"{STEM}.safetensors"
    if card is None:
        return f"{STEM}.json missing"
    if not path.is_file():
        return f"{path.name} missing" if needed else None
    named = card.get("task", card.get("name"))
    if isinstance(named, str) and slug(named) != folder.name.partition("-")[2]:
        return f"{path.name} of another stage ({named})"
    if path.stat().st_size != _safetensors_size(path):
        return f"{path.name} of another size"
    problem = _file_problem(path, None, str(card.get("sha256", "")), most)
    return f"{path.name} {problem}" if problem else None


def _safetensors_size(path: Path) -> int | None:
    """Size in bytes of a safetensors file according to its header; None if the header is damaged."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 0 < length < 100 << 20:
                return None
            header = json.loads(file.read(length))
        ends = [part["data_offsets"][1] for name, part in header.items() if name != "__metadata__"]
        return 8 + length + max(ends, default=0)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
        return None


def _record(path: Path) -> dict[str, Any] | None:
    """A JSON object; None without a file. Raises InputError for another value."""
    try:
        found = files.read_json(path)
    except FileNotFoundError:
        return None
    if not isinstance(found, dict):
        raise SpecError(f"{path.name} holds no mapping", where=str(path))
    return found


def lacking_facts(config: RunConfig, facts: RunFacts) -> list[str]:
    """Missing facts of a done run."""
    images = [
        name for name, task in config.tasks.items() if name in config.stages and task.get("kind") == "vqa"
    ]
    wanted = facts.task_identity is not None and set(images) <= set(facts.majority or {})
    return [] if wanted else [f"facts about the run ({FACTS})"]


def _lacking_routing(run: RunDir) -> list[str]:
    """Stages without a routing report, if other stages have one."""
    if run.config.mode != "sequence":
        return []
    try:
        known = run.routing()
    except InputError as error:
        return [f"readable routing ({error.what})"]
    missing = [name for index, name in enumerate(run.config.stages, 1) if index not in known]
    last = known.get(len(run.config.stages))
    found = [f"the routing of {_listed(missing)}"] if known and missing else []
    return found + ["the oracle's scores"] * (last is not None and run.config.oracle and last.oracle is None)


def refuse_damaged(run: RunDir) -> None:
    """Cuts what an interrupt left of a last line, and reads all records; needs the run's lock.

    Raises:
        InputError: a record is damaged or of another run; the hint says what to remove, so that it is made again.
    """
    files.cut_torn_line(run.folder / SCORES)
    files.cut_torn_line(run.folder / PARITY)
    run.cells(), run.facts(), run.costs(), run.routing()


def named_weights(folder: Path) -> str | None:
    """Digest of a stage's weights from their card; None without a card."""
    path = folder / f"{STEM}.json"
    try:
        return str(files.read_json(path).get("sha256"))
    except (FileNotFoundError, InputError, AttributeError):
        return None


def set_weights_aside(folder: Path, problem: str) -> None:
    """Marks a stage as not trained: one that is damaged, or was made after something else."""
    if named_weights(folder) is not None or (folder / COST).exists():
        log.warning("%s: %s; the stage is trained again.", folder, problem)
    for name in (f"{STEM}.json", COST, ROUTING):
        files.remove(folder / name)


def lineage_problem(folder: Path, lineage: dict[str, Any]) -> str | None:
    """Problem of a stage that was trained from something else than `lineage`; None where that is not known."""
    try:
        known = files.read_json(folder / LINEAGE)
    except (FileNotFoundError, InputError):
        return None
    return (
        None if known == lineage else "it was made after other weights of an earlier stage, or of other data"
    )


def note_lineage(folder: Path, lineage: dict[str, Any]) -> None:
    """Records what a training starts from; what was trained from something else is removed."""
    if lineage_problem(folder, lineage):
        forget_training(folder)
    files.write_json(folder / LINEAGE, lineage)


def remove_in_flight(folder: Path) -> None:
    """Removes the state of an interrupted training of a stage."""
    files.may_change(folder)
    for left in folder.glob("*-in-flight"):
        shutil.rmtree(left, ignore_errors=True)


def forget_training(folder: Path) -> None:
    """Removes the state of an interrupted training of a stage, and what it took so far."""
    remove_in_flight(folder)
    for name in ("spent.json", "probe.json"):
        files.remove(folder / name)


def names_of(lacking: Iterable[str]) -> str:
    """Missing parts of a run, in one line."""
    return re.sub(r"\s+", " ", "; ".join(lacking))
