"""A run takes over a folder whose config fits, and one that does not fit is refused and stays as it is."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from moextend.bench.run.opening import named_apart, open_run, open_runs
from moextend.bench.run.plan import Request, resolve
from moextend.bench.run.rundir import RunConfig, RunDir
from moextend.errors import RunConflict, SpecError
from tests.bench.cells import cell_of
from tests.bench.conftest import MakeConfig
from tests.robustness import workspace as small


def test_the_same_config_opens_the_same_folder(tmp_path: Path, make_config: MakeConfig) -> None:
    run = open_run(make_config(), tmp_path)
    run.append_cell(cell_of(0, "colour", 50.0))
    again = open_run(make_config(device="cuda", places={"workspace": "/moved"}), tmp_path)
    assert again.folder == run.folder
    assert again.cells() == {(0, "colour"): cell_of(0, "colour", 50.0)}
    assert again.config.device == "cuda"
    assert str(again.config.workspace) == "/moved"


def test_another_config_is_refused_with_the_difference_and_a_hint(
    tmp_path: Path, make_config: MakeConfig
) -> None:
    run = open_run(make_config(), tmp_path)
    run.append_cell(cell_of(1, "colour", 50.0))
    other = make_config()
    other.sequence["train"]["steps"] = 9
    with pytest.raises(RunConflict) as error:
        open_run(other, tmp_path)
    assert str(error.value) == (
        f"{run.folder}: holds a run of another config (sequence.train.steps: 4 there, 9 now). "
        "Move this folder elsewhere, remove it, or use another --workspace."
    )
    assert error.value.exit_code == 2
    assert run.config == make_config()


def test_a_run_that_trained_nothing_is_replaced_by_another_config(
    tmp_path: Path, make_config: MakeConfig
) -> None:
    run = open_run(make_config(), tmp_path)
    run.append_cell(cell_of(0, "colour", 50.0))
    run.stage_folder(1, "colour")
    other = make_config()
    other.sequence["train"]["steps"] = 9
    changes: list[tuple[Path, str]] = []
    (again,) = open_runs([other], tmp_path, on_change=lambda run, words: changes.append((run.folder, words)))
    assert [folder for folder, _ in changes] == [again.folder] and "is replaced" in changes[0][1]
    assert again.config == other and again.cells() == {} and again.id not in ("", run.id)
    with again.lock(), pytest.raises(RunConflict, match="another process"):
        open_run(make_config(), tmp_path)


def test_another_source_of_the_settings_is_taken_over_with_words(
    tmp_path: Path, make_config: MakeConfig
) -> None:
    run = open_run(make_config(), tmp_path)
    run.append_cell(cell_of(1, "colour", 50.0))
    said: list[str] = []
    for source in ("test items", "test items", "validation items of tiny with 5 steps"):
        (run,) = open_runs(
            [make_config(tuned_on=source)], tmp_path, on_change=lambda run, words: said.append(words)
        )
        assert run.config.tuned_on == source
    assert said == [
        "the sequence states another source of its settings: test items, before: not stated.",
        "the sequence states another source of its settings: validation items of tiny with 5 steps, "
        "before: test items.",
    ]
    run.config_path.write_text(run.config_path.read_text().replace("validation items of tiny", "the best"))
    with pytest.raises(SpecError, match=r"holds no config.*tuned_on"):
        _ = RunDir(run.folder).config


def test_settings_are_compared_with_runs_of_the_same_mode(tmp_path: Path, make_config: MakeConfig) -> None:
    def rate(value: float, mode: str) -> RunConfig:
        config = make_config(mode=mode)
        settings = {"lora": {"learning_rate": value}}
        return config.model_copy(update={"sequence": {**config.sequence, "settings": settings}})

    both = [rate(0.1, "sequence"), rate(0.2, "joint")]
    for run in open_runs(both, tmp_path):
        run.append_cell(cell_of(1, run.config.stage_names[0], 50.0))
    assert [one.method for one in named_apart(both, tmp_path)] == ["lora", "lora"]
    others = named_apart([rate(0.1, "sequence"), rate(0.3, "joint")], tmp_path)
    assert [one.method for one in others] == ["lora", "lora:learning_rate=0.3"]


def with_stage(config: RunConfig, name: str = "new", retention: Sequence[str] = ()) -> RunConfig:
    sequence = {**config.sequence, "stages": [*config.sequence["stages"], {"task": name}]}
    sequence["retention"] = [*sequence["retention"], *retention]
    changed = {"sequence": sequence, "tasks": {**config.tasks, name: config.tasks["colour"]}}
    return RunConfig(**{**config.model_dump(), **changed})


def test_a_stage_added_at_the_end_takes_the_run_over(tmp_path: Path, make_config: MakeConfig) -> None:
    run = open_run(make_config(), tmp_path)
    run.append_cell(cell_of(1, "colour", 50.0))
    (run.folder / "status.json").write_text("{}")
    longer = with_stage(make_config(), retention=["copying"])
    again = open_run(longer, tmp_path)
    assert again.folder == run.folder
    assert again.config.stages == ["colour", "count", "new"]
    assert again.cells()
    assert not (run.folder / "status.json").exists()
    with pytest.raises(RunConflict, match="another config"):
        open_run(make_config(), tmp_path)


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("change", ["more stages", "the oracle"])
def test_a_run_that_is_worked_on_is_not_touched_by_a_second_command(
    tmp_path: Path, make_config: MakeConfig, change: str
) -> None:
    run = open_run(make_config(), tmp_path)
    run.append_cell(cell_of(0, "colour", 50.0))
    (run.folder / "status.json").write_text("{}")
    with (run.folder / "scores.jsonl").open("a") as file:
        file.write('{"stage": 1, "ta')
    wanted = {
        "more stages": with_stage(make_config()),
        "the oracle": make_config(oracle=True),
    }[change]
    with run.lock():
        before = contents(tmp_path)
        with pytest.raises(RunConflict, match="another process is working on this run"):
            open_run(wanted, tmp_path)
        assert contents(tmp_path) == before


def without_locks(found: dict[Path, bytes]) -> dict[Path, bytes]:
    return {path: data for path, data in found.items() if not path.name.startswith(".lease")}


def test_no_run_is_touched_where_another_of_the_same_command_is_refused(
    tmp_path: Path, make_config: MakeConfig
) -> None:
    runs = [open_run(make_config(method), tmp_path) for method in ("lora", "full-ft", "ewc")]
    for run in runs:
        (run.folder / "status.json").write_text("{}")
        (run.stage_folder(1, "colour") / "cost.json").write_text("{}")
    longer = [with_stage(make_config(method)) for method in ("lora", "full-ft", "ewc")]
    other = with_stage(make_config("ewc"))
    other.sequence["train"] = {**other.sequence["train"], "steps": 9}
    before = contents(tmp_path)
    with pytest.raises(RunConflict, match=r"ewc-s0: holds a run of another config .*9 now"):
        open_runs([*longer[:2], other], tmp_path)
    assert contents(tmp_path) == before
    with runs[1].lock():
        before = contents(tmp_path)
        with pytest.raises(RunConflict, match="another process"):
            open_runs(longer, tmp_path)
        with pytest.raises(RunConflict, match="another process"):
            open_runs([make_config("lora"), make_config("full-ft")], tmp_path, must_be_free=lambda run: True)
        assert without_locks(contents(tmp_path)) == without_locks(before)
    opened = open_runs(longer, tmp_path)
    assert [run.config.stages[-1] for run in opened] == ["new"] * 3
    assert not list(tmp_path.rglob("status.json")), "none of them is done any more"


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("tasks/colour.yaml", "kind: vqa", "kind: vqa\nlicence: CC-BY 4.0\nnon_commercial: true"),
        ("registry/small.yaml", "train: {", "train: {report_to: tensorboard, "),
    ],
)
def test_a_corrected_note_makes_no_other_run(file: str, old: str, new: str, tmp_path: Path) -> None:
    folder = small.make(tmp_path / "w")

    def opened() -> RunDir:
        (config,) = resolve(Request(folder, "small", methods=("lora",)))
        return open_run(config, folder / "runs")

    run = opened()
    (run.folder / "stages/1-colour").mkdir(parents=True)
    (run.folder / "stages/1-colour/learned.json").write_text("{}")
    before, path = run.config_path.read_bytes(), folder / file
    text = path.read_text()
    path.write_text(text.replace(old, new))
    assert opened().folder == run.folder and run.config_path.read_bytes() == before
    path.write_text(
        text.replace(old, new).replace("steps: 3", "steps: 4").replace("Q {question}", "R {question}")
    )
    with pytest.raises(RunConflict, match="holds a run of another config"):
        opened()
