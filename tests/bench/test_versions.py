"""NAME@VERSION of a packaged sequence is one protocol for ever: what can change its scores is recorded below it.

    python -m tests.bench.test_versions

records new versions, and refuses one that is recorded and differs.
"""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any, get_args

import pytest

from moextend.bench.report.collect import run_metrics
from moextend.bench.run.config import without_notes
from moextend.bench.run.plan import Request, resolve
from moextend.bench.scorers import Answered, find_scorer, score_set, table
from moextend.bench.task import TaskSpec, read_task
from moextend.bench.world import data
from moextend.bench.world.hearing import HEARINGS
from moextend.bench.world.render import PLAIN, render
from moextend.bench.world.scenes import WORLD_VERSION, Split, caption
from moextend.errors import MoextendError
from moextend.util import content, files
from tests.bench.scorers.protocol_pairs import KINDS, pairs

RECORD = Path(__file__).parents[1] / "fixtures" / "versions.json"
SEQUENCES = sorted(path.stem for path in content.package_folder("registry").glob("*.yaml"))
METHODS = ("methods", "settings")
"""Keys of a sequence that say which methods run, not how they are measured."""
FEW = 20
"""Scenes or sounds of a split that are compared; their number is compared, too."""
CHOICES = tuple("ABCDE")


def protocol(name: str, folder: Path) -> tuple[str, dict[str, str]]:
    """NAME@VERSION of a packaged sequence, and a digest of each part that its scores depend on."""
    config = resolve(Request(folder, sequence=name))[0]
    shared = without_notes(config.experiment())
    sequence = {key: value for key, value in shared["sequence"].items() if key not in METHODS}
    tasks = [read_task(content.find("tasks", config.visited(each), folder)) for each in config.tasks]
    scored = sorted({task.scorer for task in tasks if task.kind != "text"})
    base = content.package_folder("registry") / "models" / sequence["base"]["model"]
    own = [config.sequence_spec.memory_file(), *sorted(base.rglob("*.safetensors"))]
    parts = {
        "sequence": files.digest(sequence, *(files.sha256(path) for path in own if path)),
        "tasks": files.digest(shared["tasks"]),
        "splits": files.digest([split(task) for task in tasks]),
        "scorers": files.digest([verdicts(scorer) for scorer in scored]),
        "metrics": metrics(),
    }
    return f"{name}@{sequence['version']}", parts


def split(task: TaskSpec) -> Any:
    """What is known of a task's data before they are opened: generated items, files of the package."""
    if task.lm_eval and task.lm_eval.path:
        folder = task.folder() / task.lm_eval.path
        own = task.lm_eval.task.partition("_")[2]
        return [files.sha256(path) for path in sorted(folder.rglob("*")) if own in path.name]
    if task.data and task.data.located.startswith("world:"):
        return generated(task.data.located.removeprefix("world:"))
    return None


@cache
def generated(name: str) -> str:
    """Digest of the first items of both splits, and of how many there are."""
    sizes = (data.IMAGES, data.CAPTIONED, data.SOUNDS, data.MATCHED, data.RECITED, data.ASKED)
    found: list[Any] = [WORLD_VERSION, *map(dict, sizes)]
    for part in get_args(Split):
        if name in HEARINGS:
            for sound, asked in islice(data.heard(name, part), FEW):
                found.append([sound.sound.described(), sound.scene and caption(sound.scene), *asked])
        else:
            domain = PLAIN if name == data.CAPTIONS else data.view_of(name).domain
            for scene, asked in islice(data.asked_scenes(name, part), FEW):
                found.append([render(scene, domain).tobytes().hex(), *asked])
    return files.digest(found)


@cache
def verdicts(scorer: str) -> str:
    """Digest of what a scorer gives generated answers of every kind."""
    found: list[Any] = [scorer]
    for kind in KINDS:
        answers = [
            Answered(str(i), one.prediction, one.answers, one.question, CHOICES, image=one.image)
            for i, one in enumerate(pairs(kind, count=200))
        ]
        try:
            scores = score_set(scorer, answers)
            found.append([None if one is None else round(one, 9) for one in scores.items])
            found.append({key: round(value, 6) for key, value in scores.metrics.items()})
        except (MoextendError, ValueError) as error:
            found.append(type(error).__name__)
    return files.digest(found)


def metrics() -> str:
    """Digest of all metrics of a matrix."""
    matrix = [[20.0, 30.0, 10.0], [80.0, 25.0, 12.0], [60.0, 90.0, 18.0], [50.0, 95.0, 70.0]]
    found = run_metrics(matrix, matrix[-1], [90.0, 80.0], [85.0, 60.0])
    return files.digest({key: value and round(value, 9) for key, value in found.items()})


@pytest.mark.parametrize("name", SEQUENCES)
def test_what_can_change_scores_has_a_new_version(name: str, tmp_path: Path) -> None:
    recorded = json.loads(RECORD.read_text(encoding="utf-8"))
    version, parts = protocol(name, tmp_path)
    assert version in recorded, f"record {version}: python -m {__spec__.name}"
    changed = [part for part, found in parts.items() if recorded[version][part] != found]
    assert not changed, (
        f"{changed} of {version} changed: raise its version, and that of the task or scorer that changed"
    )


@pytest.mark.parametrize("part", ["tasks", "splits", "scorers", "metrics"])
def test_a_change_of_each_part_is_found(part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if part == "tasks":
        text = content.find("tasks", "tiny-reading", tmp_path).read_text(encoding="utf-8")
        files.write_text(tmp_path / "tasks" / "tiny-reading.yaml", text.replace(" A:", " Answer:"))
    elif part == "splits":
        monkeypatch.setitem(data.IMAGES, "test", 499)
        monkeypatch.setattr(f"{__name__}.generated", generated.__wrapped__)
    elif part == "scorers":
        exact = find_scorer("exact@1")
        monkeypatch.setitem(
            table.BY_NAME, "exact@1", replace(exact, item=lambda said, gold: said == gold.answers[0])
        )
        monkeypatch.setattr(f"{__name__}.verdicts", verdicts.__wrapped__)
    else:
        monkeypatch.setattr("moextend.bench.metrics.bwt", lambda a, divisor="T-1": 0.0)
    version, parts = protocol("tiny", tmp_path)
    recorded = json.loads(RECORD.read_text(encoding="utf-8"))[version]
    assert [key for key in parts if parts[key] != recorded[key]] == [part]


def record(folder: Path) -> None:
    """Adds versions that are not recorded; SystemExit for one that is recorded otherwise."""
    recorded = json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.exists() else {}
    for name in SEQUENCES:
        version, parts = protocol(name, folder)
        if recorded.setdefault(version, parts) != parts:
            raise SystemExit(f"{version} is recorded with other digests: raise the version of {name}.")
    RECORD.write_text(json.dumps(dict(sorted(recorded.items())), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    record(Path())
