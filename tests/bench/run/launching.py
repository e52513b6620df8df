"""A process that launches runs with the fake worker, as `moextend bench run` does with the real one."""

import sys
from pathlib import Path

from moextend.bench.executors.executor import Options
from moextend.bench.executors.local import LocalExecutor
from moextend.bench.executors.submitting import follow, submit
from moextend.bench.run import launch

launch.WORKER = (sys.executable, str(Path(__file__).with_name("fake_worker.py")))


class Silent:
    def update(self) -> None:
        print("working", flush=True)


try:
    executor = LocalExecutor()
    follow(executor, submit(executor, [Path(run) for run in sys.argv[1:]], Options()), Silent())
except KeyboardInterrupt:
    sys.exit(130)
