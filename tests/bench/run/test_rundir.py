"""A run folder keeps what was computed, and refuses what does not belong to it."""

import errno
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from moextend.bench.run.config import differences
from moextend.bench.run.records import RunFacts
from moextend.bench.run.rundir import Cell, RunConfig, RunDir, find_runs, open_run, open_runs, slug
from moextend.errors import InputError, RunConflict, RunFailed, SpecError, UnknownName
from moextend.util import files
from tests.bench.conftest import MakeConfig, MakeRun


def test_config_is_written_first_and_read_back(tmp_path: Path, make_config: MakeConfig) -> None:
    config = make_config("moextend:scope=all", seed=3, order="reverse", places={"workspace": "/w"})
    run = open_run(config, tmp_path)
    assert run.folder == tmp_path / "mini" / "moextend+scope-all-s3-reverse"
    assert run.config == config
    assert run.config.stages == ["colour", "count"]
    assert run.config.retention == ["facts"]
    record = json.loads((run.folder / "config.json").read_text())
    assert record["digest"] == config.digest
    assert record["environments"][0]["packages"]["torch"]


def test_specs_of_a_config_are_typed_and_know_their_folder(make_config: MakeConfig) -> None:
    config = make_config(
        places={"tasks": {"colour": "/w/tasks/colour.yaml"}, "sequence": "/w/registry/a.yaml"}
    )
    assert str(config.task_spec("colour").folder()) == "/w/tasks"
    assert config.task_spec("facts").path is None
    assert str(config.sequence_spec().path) == "/w/registry/a.yaml"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("moextend:scope=all,routing=paper", "moextend+scope-all+routing-paper"),
        ("lora", "lora"),
        ("../../etc/passwd", "etc-passwd"),
        ("random:3", "random+3"),
        ("a b/c\\d*", "a-b-c-d"),
        ("..", "_"),
    ],
)
def test_slugs_are_safe_in_a_path(text: str, name: str) -> None:
    assert slug(text) == name


def test_the_same_config_opens_the_same_folder(tmp_path: Path, make_config: MakeConfig) -> None:
    run = open_run(make_config(), tmp_path)
    run.append_cell(Cell(stage=0, task="colour", value=50.0))
    again = open_run(make_config(device="cuda", places={"workspace": "/moved"}), tmp_path)
    assert again.folder == run.folder
    assert again.cells() == {(0, "colour"): Cell(stage=0, task="colour", value=50.0)}
    assert again.config.device == "cuda"
    assert str(again.config.workspace) == "/moved"


def test_another_config_is_refused_with_the_difference_and_a_hint(
    tmp_path: Path, make_config: MakeConfig
) -> None:
    run = open_run(make_config(), tmp_path)
    run.append_cell(Cell(stage=1, task="colour", value=50.0))
    other = make_config()
    other.sequence["train"]["steps"] = 9
    with pytest.raises(RunConflict) as error:
        open_run(other, tmp_path)
    assert str(error.value) == (
        f"{run.folder}: holds a run of another config (sequence.train.steps: 4 there, 9 now). "
        "Use another --runs folder or --workspace, or remove the run: moextend bench remove-run mini/lora-s0."
    )
    assert error.value.exit_code == 2
    assert run.config == make_config()


def test_a_run_that_trained_nothing_is_replaced_by_another_config(
    tmp_path: Path, make_config: MakeConfig
) -> None:
    run = open_run(make_config(), tmp_path)
    run.append_cell(Cell(stage=0, task="colour", value=50.0))
    run.stage_folder(1, "colour")
    other = make_config()
    other.sequence["train"]["steps"] = 9
    replaced: list[RunDir] = []
    (again,) = open_runs([other], tmp_path, on_replace=replaced.append)
    assert [run.folder for run in replaced] == [again.folder]
    assert again.config == other and again.cells() == {} and again.id not in ("", run.id)
    with again.lock(), pytest.raises(RunConflict, match="another process"):
        open_run(make_config(), tmp_path)


def with_stage(config: RunConfig, name: str = "new", retention: Sequence[str] = ()) -> RunConfig:
    sequence = {**config.sequence, "stages": [*config.sequence["stages"], {"task": name}]}
    sequence["retention"] = [*sequence["retention"], *retention]
    changed = {"sequence": sequence, "tasks": {**config.tasks, name: config.tasks["colour"]}}
    return RunConfig(**{**config.model_dump(), **changed})


def test_a_stage_added_at_the_end_takes_the_run_over(tmp_path: Path, make_config: MakeConfig) -> None:
    run = open_run(make_config(), tmp_path)
    run.append_cell(Cell(stage=1, task="colour", value=50.0))
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


@pytest.mark.parametrize("change", ["more stages", "a later scored task", "the oracle", "another device"])
def test_a_run_that_is_worked_on_is_not_touched_by_a_second_command(
    tmp_path: Path, make_config: MakeConfig, change: str
) -> None:
    run = open_run(make_config(), tmp_path)
    run.append_cell(Cell(stage=0, task="colour", value=50.0))
    (run.folder / "status.json").write_text("{}")
    with (run.folder / "scores.jsonl").open("a") as file:
        file.write('{"stage": 1, "ta')
    wanted = {
        "more stages": with_stage(make_config()),
        "a later scored task": with_stage(make_config(), retention=["copying"]),
        "the oracle": make_config(oracle=True),
        "another device": make_config(device="cuda"),
    }[change]
    with run.lock():
        before = contents(tmp_path)
        with pytest.raises(RunConflict, match="another process is working on this run"):
            open_run(wanted, tmp_path)
        assert contents(tmp_path) == before


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
        assert {k: v for k, v in contents(tmp_path).items() if k.name != ".lock"} == {
            k: v for k, v in before.items() if k.name != ".lock"
        }
    opened = open_runs(longer, tmp_path)
    assert [run.config.stages[-1] for run in opened] == ["new"] * 3
    assert not list(tmp_path.rglob("status.json")), "none of them is done any more"


def test_a_folder_without_its_config_is_not_adopted(tmp_path: Path, make_config: MakeConfig) -> None:
    run = open_run(make_config(), tmp_path)
    run.append_cell(Cell(stage=0, task="colour", value=50.0))
    (run.folder / "config.json").unlink()
    other = make_config()
    other.sequence["train"]["steps"] = 9
    before = contents(tmp_path)
    for config in (other, make_config()):
        with pytest.raises(RunConflict, match=r"no config\.json\. Put config\.json back, use another"):
            open_run(config, tmp_path)
    assert contents(tmp_path) == before


def test_a_folder_that_an_interruption_left_before_its_config_is_used(
    tmp_path: Path, make_config: MakeConfig
) -> None:
    folder = tmp_path / "mini" / make_config().slug
    folder.mkdir(parents=True)
    for name in (".lock", ".config.json.x1", "owner.json"):
        (folder / name).write_text("")
    assert open_run(make_config(), tmp_path).config == make_config()


def test_every_error_about_a_config_says_to_put_it_back_and_never_to_remove_it_alone(
    tmp_path: Path, make_config: MakeConfig
) -> None:
    run = open_run(make_config(), tmp_path)
    path = run.folder / "config.json"
    record = json.loads(path.read_text())
    for text in ["{", "[]", '{"identity": 1}', json.dumps({**record, "identity": {"seed": 5}}), "\xff"]:
        path.write_text(text, encoding="latin-1")
        for read in (lambda: RunDir(run.folder).config, lambda: open_run(make_config(), tmp_path)):
            with pytest.raises(SpecError) as error:
                read()
            assert error.value.hint
            assert "remove the" in error.value.hint.lower() and "folder" in error.value.hint
            assert path.read_text(encoding="latin-1") == text


def test_a_run_is_known_by_its_id(tmp_path: Path, make_config: MakeConfig) -> None:
    run, other = open_run(make_config(), tmp_path), open_run(make_config(), tmp_path / "more")
    assert run.id and run.id != other.id
    assert open_run(with_stage(make_config()), tmp_path).id == run.id


def test_a_joint_run_learns_all_at_once_and_does_not_grow(tmp_path: Path, make_config: MakeConfig) -> None:
    open_run(make_config(mode="joint"), tmp_path).append_cell(Cell(stage=1, task="colour", value=50.0))
    with pytest.raises(RunConflict):
        open_run(with_stage(make_config(mode="joint")), tmp_path)


def test_only_the_first_differences_are_listed() -> None:
    a, b = {"x": [1, {"y": 2}], "z": 1}, {"x": [1, {"y": 3}], "w": 1}
    assert differences(a, b) == [("x[1].y", 2, 3), ("z", 1, None), ("w", None, 1)]


def test_a_changed_environment_is_recorded_not_refused(
    tmp_path: Path, make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def noted() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = files.read_json(run.folder / "config.json")["environments"]
        return found

    run = open_run(make_config(), tmp_path)
    run.record_environment(device="cpu")
    assert len(noted()) == 2
    open_run(make_config(), tmp_path).record_environment(device="cpu")
    assert len(noted()) == 2
    monkeypatch.setattr("moextend.bench.run.environment._version", lambda package: "99")
    open_run(make_config(), tmp_path).record_environment()
    assert [e["packages"]["torch"] for e in noted()][-1] == "99"


def test_environment_names_the_commit_of_a_checkout_only(tmp_path: Path) -> None:
    from moextend.bench.run.environment import commit

    assert commit(tmp_path) is None


def test_the_last_line_of_a_cell_wins(make_run: MakeRun) -> None:
    run = make_run()
    run.append_cell(Cell(stage=1, task="colour", value=50.0, by_kind={"red": 40.0}))
    run.append_cell(Cell(stage=1, task="colour", value=60.0, stderr=1.5, n=10, readings={"strict": 55.0}))
    assert run.cells()[1, "colour"] == Cell(
        stage=1, task="colour", value=60.0, stderr=1.5, n=10, readings={"strict": 55.0}
    )


def test_a_torn_last_line_is_left_out_and_cut_by_the_next_append(make_run: MakeRun) -> None:
    run = make_run(rows=[[1.0, 2.0]])
    path = run.folder / "scores.jsonl"
    with path.open("a") as file:
        file.write('{"stage": 1, "task": "col')
    assert len(run.cells()) == 2
    with run.lock():
        assert path.read_text().endswith('"task": "col')
        run.append_cell(Cell(stage=1, task="colour", value=3.0))
    assert len(run.cells()) == 3
    assert len(path.read_text().splitlines()) == 3


@pytest.mark.parametrize(
    ("line", "what"),
    [("{nonsense", "not valid JSON"), ('{"stage": 1}', "not a scored cell"), ("[1]", "not a scored cell")],
)
def test_a_broken_line_is_named(make_run: MakeRun, line: str, what: str) -> None:
    run = make_run(rows=[[1.0, 2.0]])
    path = run.folder / "scores.jsonl"
    path.write_text(path.read_text() + line + "\n" + path.read_text())
    with pytest.raises(InputError, match=what) as error:
        run.cells()
    assert error.value.where == f"{path}:3"
    assert "emove the line" in str(error.value)


def test_a_line_separator_inside_a_text_does_not_break_a_line(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    files.append_lines(path, [{"answer": "a\u2028b\x85c"}])
    assert files.read_lines(path) == [{"answer": "a\u2028b\x85c"}]


@pytest.mark.parametrize("fails", ["write", "sync", "write and truncate"])
def test_a_full_disk_in_one_append_costs_only_that_append(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    path = tmp_path / "lines.jsonl"
    files.append_lines(path, [{"line": 1}])

    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def half(file: Any, text: bytes) -> None:
        file.write(bytes(text[: len(text) // 2]))
        full()

    with monkeypatch.context() as patch:
        if fails == "sync":
            patch.setattr(os, "fsync", full)
        else:
            patch.setattr(files, "_write_all", half)
        if fails == "write and truncate":
            patch.setattr(os, "ftruncate", full)
        with pytest.raises(RunFailed, match="no disk space left"):
            files.append_lines(path, [{"line": 2}, {"line": 3}])
    if fails != "write and truncate":
        assert path.read_bytes() == b'{"line": 1}\n'
    files.append_lines(path, [{"line": 4}])
    found = [record["line"] for record in files.read_lines(path)]
    assert found[0] == 1 and found[-1] == 4 and 3 not in found


def test_an_append_cuts_a_torn_line_of_any_length(tmp_path: Path) -> None:
    for torn in (b"x", b"x" * 200_000):
        for before in (b"", b'{"line": 0}\n'):
            path = tmp_path / "lines.jsonl"
            path.write_bytes(before + torn)
            files.append_lines(path, [{"line": 1}])
            assert path.read_bytes() == before + b'{"line": 1}\n'


def test_what_cannot_be_read_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "folder.json").mkdir()
    os.mkfifo(tmp_path / "fifo.json")
    for name in ("folder.json", "fifo.json"):
        for read in (files.read_json, files.read_lines):
            with pytest.raises(InputError, match="cannot be read"):
                read(tmp_path / name)
    (tmp_path / "deep.json").write_text("[" * 100_000)
    with pytest.raises(SpecError, match="not valid JSON"):
        files.read_json(tmp_path / "deep.json")


def test_a_changed_score_is_seen(make_run: MakeRun) -> None:
    run = make_run(rows=[(10.0, 20.0)])
    scores = run.folder / "scores.jsonl"
    whole = scores.read_text()
    assert run.cells()[0, "colour"].value == 10.0
    scores.write_text(whole.replace('"value": 10.0', '"value": 90.0'))
    with pytest.raises(SpecError, match="was changed since it was scored"):
        run.cells()
    early = [
        {key: value for key, value in json.loads(line).items() if key != "digest"}
        for line in whole.splitlines()
    ]
    scores.write_text("".join(json.dumps(line) + "\n" for line in early))
    assert run.cells()[0, "colour"].value == 10.0, "lines of early versions have no digest"


def test_a_run_without_config_is_found_and_named(make_run: MakeRun) -> None:
    run = make_run(rows=[(10.0, 20.0)])
    (run.folder / "config.json").unlink()
    (found,) = find_runs(run.folder.parent.parent)
    with pytest.raises(InputError, match="no config"):
        _ = found.config


@pytest.mark.parametrize("name", ["status.json", "scores.jsonl", "stages/1-colour/cost.json"])
def test_a_folder_in_the_place_of_a_file_is_refused(make_run: MakeRun, name: str) -> None:
    run = make_run()
    (run.folder / name).unlink(missing_ok=True)
    (run.folder / name / "inside").mkdir(parents=True)
    with pytest.raises(RunConflict, match="lies where a file of the run belongs"):
        make_run()
    assert (run.folder / name / "inside").is_dir()


def test_a_file_in_the_place_of_a_folder_is_refused(make_run: MakeRun) -> None:
    run = make_run()
    (run.folder / "predictions").write_text("mine")
    with pytest.raises(RunConflict, match="lies where a folder of the run belongs"):
        make_run()
    assert (run.folder / "predictions").read_text() == "mine"


def test_a_config_that_lost_its_id_gets_no_new_one(make_run: MakeRun) -> None:
    run = make_run(rows=[(10.0, 20.0)])
    path = run.folder / "config.json"
    path.write_text(
        json.dumps({key: value for key, value in json.loads(path.read_text()).items() if key != "id"})
    )
    assert make_run().cells()[0, "colour"].value == 10.0, "its scores are still its own"


def test_a_broken_config_is_named(make_run: MakeRun) -> None:
    run = make_run()
    path = run.folder / "config.json"
    record = json.loads(path.read_text())
    for text, what in [
        ("{", "not valid JSON"),
        ("[]", "holds no config"),
        (json.dumps({**record, "identity": {**record["identity"], "seed": 5}}), "was edited"),
        (json.dumps({**record, "identity": {"sead": 5}}), "holds no config"),
    ]:
        path.write_text(text)
        with pytest.raises(SpecError, match=what):
            _ = RunDir(run.folder).config


def test_a_folder_that_is_no_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"not a run folder: no config\.json"):
        _ = RunDir(tmp_path).config


def test_the_second_process_is_refused_and_sees_who_holds_the_run(make_run: MakeRun) -> None:
    run = make_run()
    code = (
        "import pathlib; from moextend.bench.run.rundir import RunDir\n"
        f"with RunDir(pathlib.Path({str(run.folder)!r})).lock(): pass"
    )
    with run.lock():
        second = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        with pytest.raises(RunConflict, match=f"process {os.getpid()} on "), RunDir(run.folder).lock():
            pass
    assert f"another process is working on this run (process {os.getpid()} on" in second.stderr
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_error_in_the_work_frees_the_lock_and_passes_through(make_run: MakeRun) -> None:
    run = make_run()
    with pytest.raises(KeyError), run.lock():
        raise KeyError("ours")
    with run.lock():
        assert (run.folder / "owner.json").exists()
    assert not (run.folder / "owner.json").exists()


def test_a_full_disk_is_reported_and_loses_nothing(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(rows=[[1.0, 2.0]])

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunFailed, match="no disk space left") as error:
        run.write_facts(task_identity="given")
    assert error.value.exit_code == 1
    assert not list(run.folder.glob(".facts*"))
    assert len(run.cells()) == 2


def test_facts_are_added_key_by_key(make_run: MakeRun) -> None:
    run = make_run()
    assert run.facts() == RunFacts()
    run.write_facts(task_identity="none")
    run.write_facts(majority={"colour": 25.0})
    assert run.facts() == RunFacts(task_identity="none", majority={"colour": 25.0})


def test_folders_are_made_when_asked_for(make_run: MakeRun) -> None:
    run = make_run()
    assert run.stage_folder(2, "my task").name == "2-my-task"
    assert run.stage_folder(2, "my task").is_dir()
    assert run.predictions.is_dir()


def test_runs_are_found_by_name_sequence_or_path(tmp_path: Path, make_run: MakeRun) -> None:
    first, second = make_run("lora").folder, make_run("lora", 1).folder
    runs = tmp_path / "runs"

    def found(*names: str) -> list[Path]:
        return [run.folder for run in find_runs(runs, names)]

    assert found() == found("mini") == found(str(runs)) == found("mini", "lora-s0") == [first, second]
    assert found("lora-s1") == found("mini/lora-s1") == found(str(second)) == [second]
    with pytest.raises(UnknownName, match=r"no run 'lora-s2'\. Did you mean 'mini/lora-s"):
        found("lora-s2")
    assert find_runs(tmp_path / "nothing") == []
