"""Submission to Slurm, its queue and cancellation, with commands that are written down."""

from __future__ import annotations

from pathlib import Path

import pytest

from moextend.bench.executors import slurm as slurm_executor
from moextend.bench.executors.executor import Job, Options, read_job
from moextend.bench.executors.slurm import SlurmExecutor
from moextend.bench.run.progress import Progress, Unit
from moextend.bench.run.rundir import RunDir
from moextend.errors import InputError
from tests.bench.conftest import MakeRun
from tests.bench.executors.conftest import calls

PYTHON = {"python": "python"}


def folders(make_run: MakeRun, number: int) -> list[Path]:
    return [make_run("lora", seed).folder for seed in range(number)]


def options(tmp_path: Path, jobs: int | None = None, **passed: str) -> Options:
    given = {key.replace("_", "-"): value for key, value in passed.items()}
    return Options(jobs, passed={**PYTHON, **given}, runs=tmp_path / "runs")


def test_an_array_is_submitted_and_its_tasks_are_recorded(
    slurm: Path, make_run: MakeRun, tmp_path: Path
) -> None:
    runs = folders(make_run, 3)
    jobs = SlurmExecutor().submit(runs, options(tmp_path, partition="gpu"))
    assert [job.id for job in jobs] == ["101_1", "101_2", "101_3"]
    assert [read_job(run) for run in runs] == jobs
    script = Path(jobs[0].log).parent / "array.sh"
    assert calls(slurm) == ["scontrol show config", f"sbatch --parsable {script}"]
    assert "#SBATCH --array=1-3\n" in script.read_text() and "--partition=gpu\n" in script.read_text()
    assert (script.parent / "runs.txt").read_text().splitlines() == list(map(str, runs))
    assert script.parent.parent == tmp_path / "runs" / ".slurm"


def test_a_cluster_with_small_arrays_gets_several(slurm: Path, make_run: MakeRun, tmp_path: Path) -> None:
    (slurm / "config").write_text("Configuration data\nMaxArraySize            = 3\n")
    runs = folders(make_run, 5)
    jobs = SlurmExecutor().submit(runs, options(tmp_path))
    assert [job.id for job in jobs] == ["101_1", "101_2", "102_1", "102_2", "103_1"]
    assert not any("dependency" in call for call in calls(slurm))
    place = Path(jobs[0].log).parent
    assert (
        "1-1" in (place / "array-3.sh").read_text() and f"{runs[4]}\n" == (place / "runs-3.txt").read_text()
    )
    SlurmExecutor().submit(runs, options(tmp_path, jobs=2, dependency="afterok:9"))
    waits = [call.split()[2] for call in calls(slurm) if call.startswith("sbatch")]
    assert waits == [f"--dependency=afterok:9{more}" for more in ("", ",afterany:104", ",afterany:105")]


def test_what_sbatch_refuses_is_one_error_and_leaves_no_folder(
    slurm: Path, make_run: MakeRun, tmp_path: Path
) -> None:
    (slurm / "refuse").write_text("sbatch: error: invalid partition specified: nope\n")
    with pytest.raises(InputError, match="refuses the job: invalid partition specified: nope"):
        SlurmExecutor().submit(folders(make_run, 1), options(tmp_path, partition="nope"))
    assert list((tmp_path / "runs" / ".slurm").iterdir()) == []


def test_a_machine_without_slurm_is_named(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for function in (
        lambda o: SlurmExecutor().check(o),
        lambda o: SlurmExecutor().submit([make_run().folder], o),
    ):
        with pytest.raises(InputError, match="sbatch is not on the PATH"):
            function(options(tmp_path))
    assert "#SBATCH --array=1-1\n" in SlurmExecutor().describe([make_run().folder], options(tmp_path))


def test_the_queue_is_asked_only_where_the_folder_does_not_say(slurm: Path, make_run: MakeRun) -> None:
    runs = folders(make_run, 5)
    jobs = [Job(run=run, executor="slurm", id=f"7_{i}", submitted="") for i, run in enumerate(runs)]
    with Progress(runs[0], [Unit("train", 1, "x")]):
        pass  # done
    slurm_states = SlurmExecutor().states
    assert slurm_states(jobs[:1]) == {runs[0]: "ended"} and calls(slurm) == []
    with pytest.raises(KeyboardInterrupt), Progress(runs[4], []):
        raise KeyboardInterrupt
    with RunDir(runs[1]).lock(), Progress(runs[1], [Unit("train", 1, "x")]):
        (slurm / "queue").write_text("7_2|PENDING\n7_1|RUNNING\n")
        assert slurm_states(jobs) == dict(
            zip(runs, ["ended", "running", "queued", "lost", "ended"], strict=True)
        )
        assert calls(slurm) == ["squeue --noheader --array --format=%i|%T --jobs=7"]


@pytest.mark.parametrize("trouble", ["hang", "away"])
def test_a_queue_that_does_not_answer_is_not_waited_for(
    slurm: Path, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    monkeypatch.setattr(slurm_executor, "PATIENCE", 0.3)
    (slurm / trouble).touch()
    run = make_run().folder
    assert SlurmExecutor().states([Job(run=run, executor="slurm", id="7_1", submitted="")]) == {
        run: "unknown"
    }


def test_a_queued_job_is_removed_and_a_running_one_signalled(slurm: Path, make_run: MakeRun) -> None:
    SlurmExecutor().cancel([Job(run=make_run().folder, executor="slurm", id="7_1", submitted="")])
    assert calls(slurm) == [
        "scancel --state=PENDING 7_1",
        "scancel --batch --signal=USR1 --state=RUNNING 7_1",
    ]
