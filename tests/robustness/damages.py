"""Damages to a run: (description, kind of run, damage). `d` has the workspace and the run's folder."""

# Some damages do several things in one expression.
# mypy: disable-error-code="func-returns-value"

from __future__ import annotations

import shutil
import socket
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tests.bench.states import hold

from .ways import (
    WAYS,
    Way,
    as_file,
    as_folder,
    cut,
    delete,
    edit,
    empty,
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


JSON = ("deleted", "empty", "cut", "garbage", "a folder", "a list")
FINISHED = {
    "config.json": ("config.json", (*JSON, "zeros", "nested deep", "null", "UTF-16", "a dangling link", "linked")),
    "status.json": ("status.json", (*JSON, "zeros", "nested deep", "null", "a FIFO", "linked")),
    "facts.json": ("facts.json", (*JSON, "zeros", "nested deep", "null")),
    "scores.jsonl": ("scores.jsonl", ("deleted", "empty", "cut", "garbage", "zeros", "a folder", "nested deep", "null", "a list", "a dangling link", "linked")),
    "extension.safetensors": ("stages/2-*/extension.safetensors", ("deleted", "empty", "cut", "garbage", "flipped", "NaN")),
    "first extension.safetensors": ("stages/1-*/extension.safetensors", ("deleted", "flipped")),
    "extension.json": ("stages/2-*/extension.json", JSON),
    "learned.json": ("stages/2-*/learned.json", JSON),
    "cost.json": ("stages/2-*/cost.json", JSON),
    "routing.json": ("stages/2-*/routing.json", JSON),
    "predictions": ("predictions/*/colour-????????????????.jsonl", ("deleted", "empty", "cut", "garbage", "flipped", "a folder")),
    "predictions of text": ("predictions/*/words-*.jsonl", ("deleted", "cut", "flipped")),
    "item scores": ("predictions/*/colour-*.scores3.jsonl", ("deleted", "cut", "garbage", "a folder")),
    "a stage's folder": ("stages/1-*", ("deleted",)),
    "the folder of stages": ("stages", ("deleted",)),
    "the folder of predictions": ("predictions", ("deleted",)),
}  # fmt: skip
"""Of a done run of lora: file -> where it is, ways to damage it."""
CHECKPOINT = {
    "trained.safetensors": ("deleted", "empty", "cut", "flipped", "NaN", "a folder"),
    "optimizer.pt": ("deleted", "cut", "flipped", "garbage"),
    "scheduler.pt": ("deleted", "empty"),
    "rng_state.pth": ("deleted", "garbage"),
    "trainer_state.json": ("deleted", "cut", "a list"),
    "flops.json": ("deleted", "cut"),
    "manifest.json": ("deleted", "empty", "cut", "garbage", "a list", "a folder"),
}
"""Of a run that was killed: file of its newest checkpoint -> ways to damage it."""


def _products() -> list[tuple[str, str, Damage]]:
    found: list[tuple[str, str, Damage]] = []
    for name, (pattern, ways) in FINISHED.items():
        found += [(f"done: {name} {way}", "lora", in_run(pattern, WAYS[way])) for way in ways]
    for name, ways in CHECKPOINT.items():
        pattern = f"stages/2-*/train-in-flight/checkpoint-2/{name}"
        found += [(f"killed: {name} {way}", "half", in_run(pattern, WAYS[way])) for way in ways]
    ways = ("deleted", "empty", "cut", "garbage", "a folder", "a list", "UTF-16", "a dangling link", "a FIFO")
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


def swap_predictions(d: SimpleNamespace) -> None:
    """Predictions of the base in the place of those after the last stage."""
    files = sorted(d.run.glob("predictions/*/colour-????????????????.jsonl"), key=lambda path: len(str(path)))
    shutil.copy(files[0], files[-1])


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
    ("done: a score is a text", "lora", in_run(SCORES, lambda p: lines(p, lambda r: r[-1].update(value="75")))),
    ("done: a score was edited", "lora", in_run(SCORES, lambda p: lines(p, lambda r: r[0].update(value=99.0)))),
    ("done: a line of scores twice", "lora", in_run(SCORES, lambda p: lines(p, lambda r: r.append(r[0])))),
    ("done: a line of scores is gone", "lora", in_run(SCORES, lambda p: lines(p, lambda r: r.pop(4)))),
    ("done: a score of a stage that is not", "lora", in_run(SCORES, lambda p: lines(p, lambda r: r.append({**r[0], "stage": 7})))),
    ("done: a score of a task that is not", "lora", in_run(SCORES, lambda p: lines(p, lambda r: r.append({**r[0], "task": "../x"})))),
    ("done: a score without its stage", "lora", in_run(SCORES, lambda p: lines(p, lambda r: r[0].pop("stage")))),
    ("done: a score of another run", "lora", in_run(SCORES, lambda p: lines(p, lambda r: r[0].update(run="0" * 32)))),
    ("done: predictions elsewhere", "lora", in_run(SCORES, lambda p: lines(p, lambda r: r[0].update(predictions="../../../../etc/passwd")))),
    ("done: a torn last line of scores", "lora", in_run(SCORES, lambda p: p.write_bytes(p.read_bytes()[:-20]))),
    ("done: half a line more of scores", "lora", in_run(SCORES, lambda p: p.write_bytes(p.read_bytes() + b'{"stage": 1, "ta'))),
    ("done: scores of another run", "lora", other_scores),
    ("done: weights of another stage", "lora", other_file("extension.safetensors")),
    ("done: card of another stage", "lora", other_file("extension.json")),
    ("done: stages exchanged", "lora", swap_extensions),
    ("done: predictions of the base", "lora", swap_predictions),
    ("done: config of another schema", "lora", in_run("config.json", lambda p: edit(p, schema_version=99, format=99))),
    ("done: config of another digest", "lora", in_run("config.json", lambda p: edit(p, digest="0" * 16))),
    ("done: config without identity", "lora", in_run("config.json", lambda p: edit(p, identity=None))),
    ("done: config without id", "lora", in_run("config.json", lambda p: edit(p, id=None))),
    ("done: config of another run", "lora", lambda d: shutil.copy(d.run.parent / "moextend+scope-auto-s0/config.json", d.run / "config.json")),
    ("done: status of another run", "lora", lambda d: shutil.copy(d.run.parent / "moextend+scope-auto-s0/status.json", d.run / "status.json")),
    ("done: it works, a dead process says", "lora", running(2**22 - 3)),
    ("done: it works, a process of another says", "lora", running(1)),
    ("done: it works on another host", "lora", running(4711, host="elsewhere")),
    ("done: a heartbeat of tomorrow", "lora", in_run("status.json", lambda p: edit(p, heartbeat=time.time() + 86400))),
    ("done: started in 1970, at 1e300", "lora", in_run("status.json", lambda p: edit(p, started=0, heartbeat=1e300))),
    ("done: a status of numbers as texts", "lora", in_run("status.json", lambda p: edit(p, done="36", units="x", fraction="1", left=None))),
    ("done: an unknown state", "lora", in_run("status.json", lambda p: edit(p, state="resting"))),
    ("done: things of others beside it", "lora", aside),
    ("done: the run is a link", "lora", lambda d: (d.run.rename(d.workspace / "elsewhere"), d.run.symlink_to(d.workspace / "elsewhere"))),
    ("done: the run is a file", "lora", lambda d: as_file(d.run)),
    ("done: facts without the data", "lora", in_run("facts.json", lambda p: edit(p, inputs=None))),
    ("done: facts of other data", "lora", in_run("facts.json", lambda p: edit(p, inputs={"train data of task 'colour'": "0" * 16}))),
    ("done: the projector is gone", "lora", in_workspace(".cache/aligned/*/*.safetensors", delete)),
    ("done: the projector is cut", "lora", in_workspace(".cache/aligned/*/*.safetensors", cut)),
    ("done: the cache is gone", "lora", in_workspace(".cache", delete)),
    ("done: task statistics are gone", "auto", in_run("stages/2-*/task_statistics*", delete)),
    ("done: task statistics are cut", "auto", in_run("stages/2-*/task_statistics*", cut)),
    ("done: weights of moextend flipped", "auto", in_run("stages/1-*/extension.safetensors", flip)),
    ("done: card of moextend is a list", "auto", in_run("stages/1-*/extension.json", listed)),
    ("killed: status gone", "half", in_run("status.json", delete)),
    ("killed: the lease is another's process's", "half", in_run(".lease", lambda p: hold(p.parent, host=socket.gethostname(), pid=1, start=1))),
    ("killed: the lease is another host's", "half", in_run(".lease", lambda p: hold(p.parent, host="elsewhere"))),
    ("killed: the lease is of a later release", "half", in_run(".lease", lambda p: p.write_text("filelock/3\n"))),
    ("killed: the job is gone", "half", in_run("job.json", delete)),
    ("killed: the job is garbage", "half", in_run("job.json", garbage)),
    ("killed: the job is a list", "half", in_run("job.json", listed)),
    ("killed: the job is a folder", "half", in_run("job.json", as_folder)),
    ("killed: the job is of an unknown executor", "half", in_run("job.json", lambda p: edit(p, executor="../x"))),
    ("killed: the job is of a Slurm", "half", in_run("job.json", lambda p: edit(p, executor="slurm", id="1_1"))),
    ("killed: it was cancelled", "half", lambda d: (d.run / "cancel.json").write_text("{}")),
    ("killed: it works, a dead process says", "half", running(2**22 - 3)),
    ("killed: it says that it is done", "half", in_run("status.json", lambda p: edit(p, state="done", fraction=1.0))),
    ("killed: a torn last line of scores", "half", in_run(SCORES, lambda p: p.write_bytes(p.read_bytes()[:-20]))),
    ("killed: a score was edited", "half", in_run(SCORES, lambda p: lines(p, lambda r: r[0].update(value=99.0)))),
    ("killed: the first stage's weights flipped", "half", in_run("stages/1-*/extension.safetensors", flip)),
    ("killed: the first stage's weights gone", "half", in_run("stages/1-*/extension.safetensors", delete)),
    ("killed: the projector is cut", "half", in_workspace(".cache/aligned/*/*.safetensors", cut)),
    ("killed: the projector is flipped", "half", in_workspace(".cache/aligned/*/*.safetensors", flip)),
    ("killed: the projector is NaN", "half", in_workspace(".cache/aligned/*/*.safetensors", not_finite)),
    ("killed: the projector is empty", "half", in_workspace(".cache/aligned/*/*.safetensors", empty)),
    ("killed: the projector is a folder", "half", in_workspace(".cache/aligned/*/*.safetensors", as_folder)),
    ("killed: features are garbage", "half", in_workspace(".cache/features/*/features.bin", garbage)),
    ("killed: features are cut", "half", in_workspace(".cache/features/*/features.bin", cut)),
    ("killed: features are NaN", "half", in_workspace(".cache/features/*/features.bin", lambda p: p.write_bytes(b"\xff" * p.stat().st_size))),
    ("killed: names of features are garbage", "half", in_workspace(".cache/features/*/names.txt", garbage)),
    ("killed: digests are garbage", "half", in_workspace(".cache/digests.sqlite", garbage)),
    ("killed: digests are a folder", "half", in_workspace(".cache/digests.sqlite", as_folder)),
    ("killed: lm-eval's cache is garbage", "half", in_workspace(".cache/lm-eval/*/*.yaml", garbage)),
    ("killed: the data cache is gone", "half", in_workspace(".cache/rows", delete)),
    ("killed: both checkpoints' weights cut", "half", both("trained.safetensors", cut)),
    ("killed: both manifests gone", "half", both("manifest.json", delete)),
    ("killed: NaN under a good digest", "half", resealed),
    ("killed: a checkpoint without number", "half", add("checkpoint-abc")),
    ("killed: a newer checkpoint that is empty", "half", add("checkpoint-3")),
    ("killed: a newer checkpoint of nothing", "half", add("checkpoint-99", "{}")),
    ("killed: training state is a file", "half", in_run("stages/2-*/train-in-flight", as_file)),
    ("killed: checkpoint is a file", "half", in_run("stages/2-*/train-in-flight/checkpoint-2", as_file)),
    ("killed: checkpoint is that of the step before", "half", lambda d: (delete(one(d.run, "stages/2-*/train-in-flight/checkpoint-2")), shutil.copytree(one(d.run, "stages/2-*/train-in-flight/checkpoint-1"), one(d.run, "stages/2-*/train-in-flight") / "checkpoint-2"))),
    ("killed: a test picture changed", "half", in_workspace("images/shade-test-0.png", lambda p: shutil.copy(p.with_name("colour-train-1.png"), p))),
    ("killed: a test picture is cut", "half", in_workspace("images/shade-test-0.png", cut)),
    ("killed: a training picture is gone", "half", in_workspace("images/shade-train-0.png", delete)),
    ("killed: a row of data is gone", "half", in_workspace("data/colour/train.jsonl", cut)),
    ("killed: the sequence changed", "half", in_workspace("registry/small.yaml", lambda p: p.write_text(p.read_text().replace("steps: 3,", "steps: 4,")))),
    ("killed: the generic text is gone", "half", in_workspace("registry/generic.txt", delete)),
]  # fmt: skip

DAMAGES = [*_products(), *SINGLE]
