"""A stopped job continues as long as it makes progress."""

from __future__ import annotations

from pathlib import Path

import pytest

from moextend.bench.executors import again
from moextend.bench.executors.executor import read_job
from moextend.bench.run.progress import Progress, Unit, cancel
from tests.bench.conftest import MakeRun


def stopped(run: Path, *, units: int, steps: int) -> None:
    """Writes the status of a run that stopped after so many of its 3 units, and steps of the next one."""
    plan = [Unit("train", i, "x", 10) for i in range(3)]
    with pytest.raises(KeyboardInterrupt), Progress(run, plan) as progress:
        for unit in plan[:units]:
            progress.finish(unit)
        progress.begin(plan[units], step=steps)
        raise KeyboardInterrupt


def continues(run: Path) -> bool:
    return again.main([str(run), "slurm", "7_1"]) == 0


def test_progress_is_bounded_by_nothing_else(make_run: MakeRun) -> None:
    run = make_run().folder
    for units, steps in [(0, 0), (0, 1), (0, 9), (1, 0), (1, 4), (2, 0)]:
        stopped(run, units=units, steps=steps)
        assert continues(run), (units, steps)
    job = read_job(run)
    assert job and (job.executor, job.id, job.reached, job.note) == ("slurm", "7_1", (2, 0), "")


@pytest.mark.parametrize(("units", "steps"), [(1, 4), (1, 3), (0, 9)])
def test_a_job_that_did_no_more_than_before_ends_and_says_why(
    make_run: MakeRun, capsys: pytest.CaptureFixture[str], units: int, steps: int
) -> None:
    run = make_run().folder
    stopped(run, units=1, steps=4)
    assert continues(run)
    stopped(run, units=units, steps=steps)
    assert not continues(run)
    assert f"stopped twice without progress ({units} of 3 units, step {steps})" in capsys.readouterr().err
    job = read_job(run)
    assert job and job.note.startswith("stopped twice without progress") and job.reached == (1, 4)


def test_a_cancelled_or_done_run_ends(make_run: MakeRun) -> None:
    run = make_run().folder
    stopped(run, units=1, steps=4)
    cancel(run)
    assert not continues(run)
    job = read_job(run)
    assert job and job.note == "cancelled"
    other = make_run(seed=1).folder
    with Progress(other, []):
        pass
    assert not continues(other)
