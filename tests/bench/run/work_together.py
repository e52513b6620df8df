"""Script of each process of a launched run in the tests: `python work_together.py RUN_FOLDER`.

Variables: KILL_AT and KILL_WHEN as in preloaded.py; FAIL: train, where this process fails; GRACE: seconds, as in
together.py.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[3]))

from moextend.bench.run import together, worker
from moextend.errors import RunFailed
from moextend.training.trainer import TokenTrainer
from tests import preloaded

PLACES: dict[str, tuple[Any, str]] = {
    "train": (TokenTrainer, "compute_loss"),
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


if __name__ == "__main__":
    preloaded._arm()
    together.GRACE = float(os.environ.get("GRACE", together.GRACE))
    if "FAIL" in os.environ:
        broken(PLACES[os.environ["FAIL"]], fail)
    worker.main()
