"""A worker that behaves as its run's method says: works, fails, crashes, hangs, freezes, is killed."""

import hashlib
import os
import signal
import sys
import time
from pathlib import Path

from moextend.bench.run.progress import Progress, Unit
from moextend.bench.run.records import StageCost
from moextend.bench.run.rundir import Cell, RunDir
from moextend.bench.run.worker import work
from moextend.errors import InputError, RunBusy, RunConflict, RunFailed
from moextend.util import files


def score(run: RunDir, stage: int, task: str, value: float, scorer: str) -> None:
    run.append_cell(
        Cell(
            stage=stage, task=task, value=value, stderr=2.0, n=100, scorer=scorer, weights="", size=0, sha256=""
        )
    )  # fmt: skip


def misbehaving(run: RunDir) -> None:
    config = run.config
    plan = [Unit("score", 0, "all", 2)]
    for stage, task in enumerate(config.stages, 1):
        plan += [Unit("train", stage, task, 3), Unit("score", stage, "all", 2)]
    with run.lock(), Progress(run.folder, plan, run=run.id, config=config.digest) as progress:
        for unit in plan:
            if unit.phase == "score" and (unit.stage, config.stages[0]) in run.cells():
                progress.finish(unit)
                continue
            progress.begin(unit)
            if unit.phase == "train":
                misbehave(config.method, unit.stage)
            else:
                for i, task in enumerate(config.stages, 1):
                    learned = 80.0 - 5 * (unit.stage - i) if i <= unit.stage else 10.0
                    score(run, unit.stage, task, learned + config.seed, "x@1")
                for task in config.retention:
                    score(run, unit.stage, task, 90.0 - unit.stage, "lm-eval")
            progress.advance()
            progress.finish(unit)
        for stage, task in enumerate(config.stage_names, 1):
            keep_nothing(run.stage_folder(stage, task))
            run.write_cost(stage, task, StageCost(seconds=1.0, peak_rss_mb=100.0))
        identity = "given" if config.method.startswith("moextend") else "none"
        run.write_facts(task_identity=identity, majority=dict.fromkeys(config.stages, 25.0))


def keep_nothing(folder: Path) -> None:
    """Weights without a tensor, as a method keeps them that learns none."""
    empty = (2).to_bytes(8, "little") + b"{}"
    (folder / "extension.safetensors").write_bytes(empty)
    files.write_json(folder / "extension.json", {"format": 1, "sha256": hashlib.sha256(empty).hexdigest()})


def work_for(seconds: float) -> None:
    """In short sleeps: a signal just before a sleep is handled after it."""
    for _ in range(int(seconds / 0.05)):
        time.sleep(0.05)


def misbehave(method: str, stage: int) -> None:
    method = os.environ.get("FAKE", method)
    if method.startswith("full-ft") and stage == 2:
        raise RunFailed("the loss is not finite.", where="stage 2", hint="Lower the learning rate.")
    if method.startswith("wrong") and stage == 2:
        raise InputError("no such image.", where="data/train.jsonl:7", hint="Put it there.")
    if method in ("changed", "busy"):
        kind = RunConflict if method == "changed" else RunBusy
        raise kind(f"it is {method}.", where="runs/tiny/lora-s0", hint="Repair it.")
    if method.startswith("killed") and stage == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    if method.startswith("crash"):
        print("some library printed this", flush=True)
        print("cannot open the weights", file=sys.stderr, flush=True)
        print("Loading: 0%|  | 0/9\rLoading: 11%|# | 1/9", end="", file=sys.stderr, flush=True)
        os._exit(3)
    if method == "assert" and stage == 2:
        raise AssertionError
    if method == "password" and stage == 2:
        raise ValueError("cannot read https://me:secret@host/data")
    if method == "talks":
        print("a library says this", file=sys.stderr, flush=True)
    if method.startswith("slow"):
        work_for(60)
    if method.startswith("frozen"):
        os.kill(os.getpid(), signal.SIGSTOP)
    if method.startswith("deaf"):
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        work_for(60)


sys.exit(work(sys.argv[1:], lambda folder: misbehaving(RunDir(folder))))
