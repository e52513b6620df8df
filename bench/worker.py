"""A worker process: reads run folders from its input, one a line, does them, and says how each one ended."""

from __future__ import annotations

import json
import sys
import traceback
from pathlib import Path

from moextend.bench.progress import described
from moextend.errors import MoextendError


def main() -> None:
    """Works until the input ends."""
    from moextend.bench.quiet import quiet_process
    from moextend.bench.runner import run

    quiet_process()
    for line in sys.stdin:
        folder = Path(line.strip())
        state, error = "done", None
        try:
            run(folder)
        except KeyboardInterrupt:
            _say(folder, "interrupted", None)
            return
        except Exception as problem:
            if not isinstance(problem, MoextendError):
                traceback.print_exc()
            state, error = "failed", described(problem)
        _say(folder, state, error)


def _say(folder: Path, state: str, error: dict[str, str | None] | None) -> None:
    print(json.dumps({"run": str(folder), "state": state, "error": error}), flush=True)


if __name__ == "__main__":
    main()
