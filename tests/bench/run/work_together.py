"""Script of each process of a launched run in the tests: `python work_together.py RUN_FOLDER`.

Variables: KILL_AT and KILL_WHEN as in preloaded.py; FAIL: this process fails in its training.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[3]))

from moextend.bench.run import worker
from moextend.errors import RunFailed
from moextend.training.trainer import TokenTrainer
from tests import preloaded


def fail(*arguments: Any, **more: Any) -> Any:
    raise RunFailed("no current.", where="the plug", hint="Plug it in.")


if __name__ == "__main__":
    preloaded._arm()
    if "FAIL" in os.environ:
        TokenTrainer.compute_loss = fail  # type: ignore[method-assign]
    worker.main()
