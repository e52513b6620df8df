"""Damages to a run: (description, kind of run, damage). `d` has the workspace and the run's folder."""

# Some damages do several things in one expression.
# mypy: disable-error-code="func-returns-value"

from __future__ import annotations

import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tests.bench.states import hold

from .ways import (
    WAYS,
    Way,
    as_file,
    cut,
    delete,
    edit,
    flip,
    garbage,
    lines,
    listed,
    not_finite,
)

Damage = Callable[[SimpleNamespace], object]


def one(folder: Path, pattern: str) -> Path:
    """The first file that is named so."""
    return sorted(folder.glob(pattern))[0]


def in_run(pattern: str, way: Way) -> Damage:
    """Damages a file of the run."""
    return lambda d: way(one(d.run, pattern))


def in_workspace(pattern: str, way: Way) -> Damage:
    """Damages a file of the workspace."""
    return lambda d: way(one(d.workspace, pattern))


def all_in_run(pattern: str, way: Way) -> Damage:
    """Damages all files of a name."""
    return lambda d: [way(path) for path in sorted(d.run.glob(pattern))]


JSON = ("deleted", "cut", "a list")
FINISHED = {
    "config.json": ("config.json", (*JSON, "empty", "a folder", "nested deep", "UTF-16", "linked")),
    "status.json": ("status.json", (*JSON, "a FIFO")),
    "facts.json": ("facts.json", JSON),
    "scores.jsonl": ("scores.jsonl", ("deleted", "cut", "garbage", "a folder", "a list", "a dangling link", "linked")),
    "extension.safetensors": ("stages/2-*/extension.safetensors", ("deleted", "cut", "flipped", "NaN")),
    "extension.json": ("stages/2-*/extension.json", JSON),
    "learned.json": ("stages/2-*/learned.json", ("cut",)),
    "cost.json": ("stages/2-*/cost.json", ("deleted", "a list")),
    "routing.json": ("stages/2-*/routing.json", ("cut",)),
    "predictions": ("predictions/*/colour-????????????????.jsonl", ("deleted", "cut", "flipped", "a folder")),
    "predictions of text": ("predictions/*/words-*.jsonl", ("flipped",)),
    "item scores": ("predictions/*/colour-*.scores3.jsonl", ("deleted", "garbage")),
    "a stage's folder": ("stages/1-*", ("deleted",)),
    "the folder of predictions": ("predictions", ("deleted",)),
}  # fmt: skip
"""Of a done run of lora: file -> where it is, ways to damage it."""
CHECKPOINT = {
    "trained.safetensors": ("deleted", "cut", "NaN"),
    "optimizer.pt": ("cut", "flipped"),
    "rng_state.pth": ("garbage",),
    "trainer_state.json": ("a list",),
    "manifest.json": ("deleted", "empty", "a list", "a folder"),
}
"""Of a run that was killed: file of its newest checkpoint -> ways to damage it."""


def _products() -> list[tuple[str, str, Damage]]:
    found: list[tuple[str, str, Damage]] = []
    for name, (pattern, ways) in FINISHED.items():
        found += [(f"done: {name} {way}", "lora", in_run(pattern, WAYS[way])) for way in ways]
    for name, ways in CHECKPOINT.items():
        pattern = f"stages/2-*/train-in-flight/checkpoint-2/{name}"
        found += [(f"killed: {name} {way}", "half", in_run(pattern, WAYS[way])) for way in ways]
    ways = ("deleted", "cut", "a folder", "a list", "a FIFO")
    return found + [(f"killed: the lease {way}", "half", in_run(".lease", WAYS[way])) for way in ways]


def running(pid: int, **changes: Any) -> Damage:
    """A status that says that a process is working."""
    return lambda d: edit(d.run / "status.json", state="running", pid=pid, **changes)


def other_scores(d: SimpleNamespace) -> None:
    """The scores of another method's run."""
    shutil.copy(d.run.parent / "moextend+scope-auto-s0" / "scores.jsonl", d.run / "scores.jsonl")


def other_file(name: str) -> Damage:
    """The file of another stage."""

    def swap(d: SimpleNamespace) -> None:
        shutil.copy(one(d.run, f"stages/1-*/{name}"), one(d.run, f"stages/2-*/{name}"))

    return swap


def swap_extensions(d: SimpleNamespace) -> None:
    """Weights and cards of the two stages, exchanged."""
    for name in ("extension.safetensors", "extension.json"):
        first, second = one(d.run, f"stages/1-*/{name}"), one(d.run, f"stages/2-*/{name}")
        content = first.read_bytes()
        first.write_bytes(second.read_bytes())
        second.write_bytes(content)


def resealed(d: SimpleNamespace) -> None:
    """NaN in a checkpoint whose manifest says that all is well."""
    import xxhash

    path = one(d.run, "stages/2-*/train-in-flight/checkpoint-2/trained.safetensors")
    not_finite(path)
    entry = {"bytes": path.stat().st_size, "xxh3": xxhash.xxh3_128(path.read_bytes()).hexdigest()}
    edit(path.with_name("manifest.json"), **{path.name: entry})


def both(name: str, way: Way) -> Damage:
    """A file of both checkpoints."""
    return all_in_run(f"stages/2-*/train-in-flight/checkpoint-*/{name}", way)


def aside(d: SimpleNamespace) -> None:
    """What an editor, a desktop and a killed writer leave behind."""
    for name in (".DS_Store", "scores.jsonl~", ".scores.jsonl.swp", ".status.json.k2j3", "notes.txt"):
        (d.run / name).write_text("x")
    (d.run.parent / "notes.txt").write_text("x")
    (d.run.parent / "empty").mkdir()
    (d.run / "stages" / "9-nothing").mkdir()
    (d.run / "predictions" / "0-0").mkdir()


def add(name: str, content: str = "") -> Damage:
    """A checkpoint folder with a file."""

    def make(d: SimpleNamespace) -> None:
        folder = one(d.run, "stages/2-*/train-in-flight") / name
        folder.mkdir()
        (folder / "manifest.json").write_text(content)

    return make


SCORES = "scores.jsonl"
SINGLE: list[tuple[str, str, Damage]] = [
    ("done: a score is NaN", "lora", in_run(SCORES, lambda p: lines(p, lambda r: r[-1].update(value=float("nan"))))),
    ("done: a score is 1000", "lora", in_run(SCORES, lambda p: lines(p, lambda r: r[-1].update(value=1000.0)))),
    ("done: a score was edited", "lora", in_run(SCORES, lambda p: lines(p, lambda r: r[0].update(value=99.0)))),
    ("done: a line of scores twice", "lora", in_run(SCORES, lambda p: lines(p, lambda r: r.append(r[0])))),
    ("done: a line of scores is gone", "lora", in_run(SCORES, lambda p: lines(p, lambda r: r.pop(4)))),
    ("done: a score of a task that is not", "lora", in_run(SCORES, lambda p: lines(p, lambda r: r.append({**r[0], "task": "../x"})))),
    ("done: predictions elsewhere", "lora", in_run(SCORES, lambda p: lines(p, lambda r: r[0].update(predictions="../../../../etc/passwd")))),
    ("done: a torn last line of scores", "lora", in_run(SCORES, lambda p: p.write_bytes(p.read_bytes()[:-20]))),
    ("done: scores of another run", "lora", other_scores),
    ("done: card of another stage", "lora", other_file("extension.json")),
    ("done: stages exchanged", "lora", swap_extensions),
    ("done: config of another schema", "lora", in_run("config.json", lambda p: edit(p, schema_version=99, format=99))),
    ("done: config without identity", "lora", in_run("config.json", lambda p: edit(p, identity=None))),
    ("done: it works, a dead process says", "lora", running(2**22 - 3)),
    ("done: it works on another host", "lora", running(4711, host="elsewhere")),
    ("done: things of others beside it", "lora", aside),
    ("done: the run is a link", "lora", lambda d: (d.run.rename(d.workspace / "elsewhere"), d.run.symlink_to(d.workspace / "elsewhere"))),
    ("done: the run is a file", "lora", lambda d: as_file(d.run)),
    ("done: facts of other data", "lora", in_run("facts.json", lambda p: edit(p, inputs={"train data of task 'colour'": "0" * 16}))),
    ("done: the projector is gone", "lora", in_workspace(".cache/aligned/*/*.safetensors", delete)),
    ("done: the cache is gone", "lora", in_workspace(".cache", delete)),
    ("done: task statistics are gone", "auto", in_run("stages/2-*/task_statistics*", delete)),
    ("done: weights of moextend flipped", "auto", in_run("stages/1-*/extension.safetensors", flip)),
    ("killed: the lease is another's process's", "half", in_run(".lease", lambda p: hold(p.parent, host=socket.gethostname(), pid=1, start=1))),
    ("killed: the lease is another host's", "half", in_run(".lease", lambda p: hold(p.parent, host="elsewhere"))),
    ("killed: the job is a list", "half", in_run("job.json", listed)),
    ("killed: the job is of an unknown executor", "half", in_run("job.json", lambda p: edit(p, executor="../x"))),
    ("killed: the job is of a Slurm", "half", in_run("job.json", lambda p: edit(p, executor="slurm", id="1_1"))),
    ("killed: it was cancelled", "half", lambda d: (d.run / "cancel.json").write_text("{}")),
    ("killed: it works, a dead process says", "half", running(2**22 - 3)),
    ("killed: a torn last line of scores", "half", in_run(SCORES, lambda p: p.write_bytes(p.read_bytes()[:-20]))),
    ("killed: the first stage's weights flipped", "half", in_run("stages/1-*/extension.safetensors", flip)),
    ("killed: the projector is cut", "half", in_workspace(".cache/aligned/*/*.safetensors", cut)),
    ("killed: features are garbage", "half", in_workspace(".cache/features/*/features.bin", garbage)),
    ("killed: digests are garbage", "half", in_workspace(".cache/digests.sqlite", garbage)),
    ("killed: the data cache is gone", "half", in_workspace(".cache/rows", delete)),
    ("killed: both checkpoints' weights cut", "half", both("trained.safetensors", cut)),
    ("killed: NaN under a good digest", "half", resealed),
    ("killed: a newer checkpoint of nothing", "half", add("checkpoint-99", "{}")),
    ("killed: checkpoint is a file", "half", in_run("stages/2-*/train-in-flight/checkpoint-2", as_file)),
    ("killed: checkpoint is that of the step before", "half", lambda d: (delete(one(d.run, "stages/2-*/train-in-flight/checkpoint-2")), shutil.copytree(one(d.run, "stages/2-*/train-in-flight/checkpoint-1"), one(d.run, "stages/2-*/train-in-flight") / "checkpoint-2"))),
    ("killed: a test picture changed", "half", in_workspace("images/shade-test-0.png", lambda p: shutil.copy(p.with_name("colour-train-1.png"), p))),
    ("killed: a row of data is gone", "half", in_workspace("data/colour/train.jsonl", cut)),
    ("killed: the sequence changed", "half", in_workspace("registry/small.yaml", lambda p: p.write_text(p.read_text().replace("steps: 3,", "steps: 4,")))),
]  # fmt: skip

DAMAGES = [*_products(), *SINGLE]
