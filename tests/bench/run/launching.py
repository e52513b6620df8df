"""A process that launches runs with the fake worker, as `moextend bench run` does with the real one."""

import sys
from pathlib import Path

from moextend.bench.run.launch import launch

FAKE = [sys.executable, str(Path(__file__).with_name("fake_worker.py"))]


class Silent:
    def update(self) -> None:
        print("working", flush=True)


try:
    launch([Path(run) for run in sys.argv[1:]], jobs=1, view=Silent(), command=FAKE)
except KeyboardInterrupt:
    sys.exit(130)
