"""Script of each process of a launched run in the tests: `python work_together.py RUN_FOLDER`.

Variables: KILL_AT and KILL_WHEN as in preloaded.py; FAIL: train, answer or text, where this process fails; GRACE:
seconds, as in together.py; MEMORY: rows of a forward pass in
training that fit.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[3]))

from moextend.bench.run import together, worker
from moextend.bench.score import vqa
from moextend.bench.score.text import choices
from moextend.errors import RunFailed
from moextend.training.trainer import TokenTrainer
from tests import preloaded

PLACES: dict[str, tuple[Any, str]] = {
    "train": (TokenTrainer, "compute_loss"),
    "answer": (vqa, "predict_batch"),
    "text": (choices, "_score"),
}


def broken(place: tuple[Any, str], end: Callable[[], None]) -> None:
    """Has this process end at the second call of a function."""
    owner, name = place
    own, calls = getattr(owner, name), []

    def call(*arguments: Any, **more: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            end()
        return own(*arguments, **more)

    setattr(owner, name, call)


def fail() -> None:
    if os.environ["HOW"] == "error":
        raise RunFailed("no current.", where="the plug", hint="Plug it in.")
    raise ValueError("a plain mistake")


def memory(rows: int) -> None:
    """Has this process raise an error of memory in trainings with more rows per forward pass."""
    own = TokenTrainer.compute_loss

    def call(trainer: Any, model: Any, inputs: Any, *arguments: Any, **more: Any) -> Any:
        if len(inputs["input_ids"]) > rows:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return own(trainer, model, inputs, *arguments, **more)

    setattr(TokenTrainer, "compute_loss", call)  # noqa: B010


if __name__ == "__main__":
    preloaded._arm()
    together.GRACE = float(os.environ.get("GRACE", together.GRACE))
    if "FAIL" in os.environ:
        broken(PLACES[os.environ["FAIL"]], fail)
    if "MEMORY" in os.environ:
        memory(int(os.environ["MEMORY"]))
    worker.main()
