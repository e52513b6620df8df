"""Executes the run in a folder, and says what share of the time its records took.

`python -m tests.bench.run.ledger_share RUN`. A sample every 10 milliseconds of the thread that works: it counts as
records where the innermost function of this project belongs to the modules that write, read and check a run's files,
its leases and the store of a workspace.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from types import FrameType

ROOT = Path(__file__).parents[3]
RECORDS = (
    *(f"bench/run/{name}.py" for name in ("rundir", "progress", "cell", "complete", "provenance", "records")),
    "bench/store/",
    *(f"moextend/util/{name}" for name in ("files", "record", "lease")),
)
INTERVAL = 0.01


def innermost(frame: FrameType | None) -> str:
    """Place in this project of the innermost function that belongs to it, or nothing."""
    while frame is not None:
        path = Path(frame.f_code.co_filename).resolve()
        if path.is_relative_to(ROOT) and ".venv" not in path.parts:
            return f"{path.relative_to(ROOT).as_posix()}:{frame.f_code.co_name}"
        frame = frame.f_back
    return ""


def sampled(done: threading.Event, found: Counter[str]) -> None:
    """Counts samples of the main thread, each weighted by the seconds since the one before."""
    main, before = threading.main_thread().ident, time.perf_counter()
    while not done.wait(INTERVAL):
        frame = sys._current_frames().get(main or 0)
        now = time.perf_counter()
        found[innermost(frame)] += now - before  # type: ignore[assignment]
        before = now


def main(folder: Path) -> None:
    from moextend.bench.run.runner import run

    found: Counter[str] = Counter()
    done = threading.Event()
    threading.Thread(target=sampled, args=(done, found), daemon=True).start()
    began = time.perf_counter()
    run(folder)
    done.set()
    seconds = time.perf_counter() - began
    records = {place: spent for place, spent in found.items() if place.startswith(RECORDS)}
    print(
        json.dumps(
            {
                "seconds": round(seconds, 1),
                "records": round(sum(records.values()), 2),
                "percent": round(100 * sum(records.values()) / seconds, 2),
                "places": {
                    place: round(spent, 2)
                    for place, spent in sorted(records.items(), key=lambda pair: -pair[1])[:10]
                },
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
