"""A run folder keeps what was computed, and refuses what does not belong to it."""

import errno
import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest

from moextend import files
from moextend.bench.runconfig import differences
from moextend.bench.rundir import Cell, RunDir, find_runs, open_run, slug
from moextend.errors import InputError, RunConflict, RunFailed, SpecError, UnknownName


def test_config_is_written_first_and_read_back(tmp_path, make_config):
    config = make_config("moextend:scope=all", seed=3, order="reverse", places={"workspace": "/w"})
    run = open_run(config, tmp_path)
    assert run.folder == tmp_path / "mini" / "moextend+scope-all-s3-reverse"
    assert run.config == config
    assert run.config.stages == ["colour", "count"]
    assert run.config.retention == ["facts"]
    record = json.loads((run.folder / "config.json").read_text())
    assert record["digest"] == config.digest
    assert record["environments"][0]["packages"]["torch"]


def test_specs_of_a_config_are_typed_and_know_their_folder(make_config):
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
def test_slugs_are_safe_in_a_path(text, name):
    assert slug(text) == name


def test_the_same_config_opens_the_same_folder(tmp_path, make_config):
    run = open_run(make_config(), tmp_path)
    run.append_cell(Cell(0, "colour", 50.0))
    again = open_run(make_config(device="cuda", places={"workspace": "/moved"}), tmp_path)
    assert again.folder == run.folder
    assert again.cells() == {(0, "colour"): Cell(0, "colour", 50.0)}
    assert again.config.device == "cuda"
    assert str(again.config.workspace) == "/moved"


def test_another_config_is_refused_with_the_difference_and_the_mend(tmp_path, make_config):
    run = open_run(make_config(), tmp_path)
    other = make_config()
    other.sequence["train"]["steps"] = 9
    with pytest.raises(RunConflict) as error:
        open_run(other, tmp_path)
    assert str(error.value) == (
        f"{run.folder}: holds a run of another config (sequence.train.steps: 4 there, 9 now). "
        "Use another --runs folder or --workspace, or remove this folder."
    )
    assert error.value.exit_code == 2
    assert run.config == make_config()


def with_stage(config, name="new", retention=()):
    sequence = {**config.sequence, "stages": [*config.sequence["stages"], {"task": name}]}
    sequence["retention"] = [*sequence["retention"], *retention]
    return replace(config, sequence=sequence, tasks={**config.tasks, name: config.tasks["colour"]})


def test_a_stage_added_at_the_end_takes_the_run_over(tmp_path, make_config):
    run = open_run(make_config(), tmp_path)
    run.append_cell(Cell(0, "colour", 50.0))
    (run.folder / "status.json").write_text("{}")
    longer = with_stage(make_config(), retention=["copying"])
    again = open_run(longer, tmp_path)
    assert again.folder == run.folder
    assert again.config.stages == ["colour", "count", "new"]
    assert again.cells()
    assert not (run.folder / "status.json").exists()
    with pytest.raises(RunConflict, match="another config"):
        open_run(make_config(), tmp_path)


def test_a_joint_run_learns_all_at_once_and_does_not_grow(tmp_path, make_config):
    open_run(make_config(mode="joint"), tmp_path)
    with pytest.raises(RunConflict):
        open_run(with_stage(make_config(mode="joint")), tmp_path)


def test_only_the_first_differences_are_listed():
    a, b = {"x": [1, {"y": 2}], "z": 1}, {"x": [1, {"y": 3}], "w": 1}
    assert differences(a, b) == [("x[1].y", 2, 3), ("z", 1, None), ("w", None, 1)]


def test_a_changed_environment_is_recorded_not_refused(tmp_path, make_config, monkeypatch):
    run = open_run(make_config(), tmp_path)
    run.record_environment(device="cpu")
    assert len(run.environments()) == 2
    open_run(make_config(), tmp_path).record_environment(device="cpu")
    assert len(run.environments()) == 2
    monkeypatch.setattr("moextend.bench.environment._version", lambda package: "99")
    open_run(make_config(), tmp_path)
    assert [e["packages"]["torch"] for e in run.environments()][-1] == "99"


def test_environment_names_the_commit_of_a_checkout_only(tmp_path):
    from moextend.bench.environment import commit

    assert commit(tmp_path) is None


def test_the_last_line_of_a_cell_wins(make_run):
    run = make_run()
    run.append_cell(Cell(1, "colour", 50.0, by_kind={"red": 40.0}))
    run.append_cell(Cell(1, "colour", 60.0, stderr=1.5, n=10, extra={"strict": 55.0}))
    assert run.cells()[1, "colour"] == Cell(1, "colour", 60.0, stderr=1.5, n=10, extra={"strict": 55.0})


def test_a_torn_last_line_is_left_out_and_cut_under_the_lock(make_run):
    run = make_run(rows=[[1.0, 2.0]])
    path = run.folder / "scores.jsonl"
    with path.open("a") as file:
        file.write('{"stage": 1, "task": "col')
    assert len(run.cells()) == 2
    with run.lock():
        run.append_cell(Cell(1, "colour", 3.0))
    assert len(run.cells()) == 3
    assert len(path.read_text().splitlines()) == 3


@pytest.mark.parametrize(
    ("line", "what"),
    [("{nonsense", "not valid JSON"), ('{"stage": 1}', "not a scored cell"), ("[1]", "not a scored cell")],
)
def test_a_broken_line_is_named(make_run, line, what):
    run = make_run(rows=[[1.0, 2.0]])
    path = run.folder / "scores.jsonl"
    path.write_text(path.read_text() + line + "\n" + path.read_text())
    with pytest.raises(InputError, match=what) as error:
        run.cells()
    assert error.value.where == f"{path}:3"
    assert "emove the line" in str(error.value)


def test_a_line_separator_inside_a_text_does_not_break_a_line(tmp_path):
    path = tmp_path / "lines.jsonl"
    files.append_lines(path, [{"answer": "a\u2028b\x85c"}])
    assert files.read_lines(path) == [{"answer": "a\u2028b\x85c"}]


def test_a_broken_config_is_named(make_run):
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


def test_a_folder_that_is_no_run_is_named(tmp_path):
    with pytest.raises(InputError, match=r"not a run folder: no config\.json"):
        _ = RunDir(tmp_path).config


def test_the_second_process_is_refused_and_told_who_holds_the_run(make_run):
    run = make_run()
    code = (
        "import pathlib; from moextend.bench.rundir import RunDir\n"
        f"with RunDir(pathlib.Path({str(run.folder)!r})).lock(): pass"
    )
    with run.lock():
        second = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        with pytest.raises(RunConflict, match=f"process {os.getpid()} on "), RunDir(run.folder).lock():
            pass
    assert f"another process is working on this run (process {os.getpid()} on" in second.stderr
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_error_in_the_work_frees_the_lock_and_passes_through(make_run):
    run = make_run()
    with pytest.raises(KeyError), run.lock():
        raise KeyError("ours")
    with run.lock():
        assert (run.folder / "owner.json").exists()
    assert not (run.folder / "owner.json").exists()


def test_a_full_disk_is_told_and_loses_nothing(make_run, monkeypatch):
    run = make_run(rows=[[1.0, 2.0]])

    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunFailed, match="no disk space left") as error:
        run.write_facts({"told": True})
    assert error.value.exit_code == 1
    assert not list(run.folder.glob(".facts*"))
    assert len(run.cells()) == 2


def test_facts_are_added_key_by_key(make_run):
    run = make_run()
    assert run.facts() == {}
    run.write_facts({"told": False})
    run.write_facts({"blind": {"colour": 25.0}})
    assert run.facts() == {"told": False, "blind": {"colour": 25.0}}


def test_folders_are_made_when_asked_for(make_run):
    run = make_run()
    assert run.stage_folder(2, "my task").name == "2-my-task"
    assert run.stage_folder(2, "my task").is_dir()
    assert run.predictions.is_dir()


def test_runs_are_found_by_name_sequence_or_path(tmp_path, make_run):
    first, second = make_run("lora").folder, make_run("lora", 1).folder
    runs = tmp_path / "runs"

    def found(*names):
        return [run.folder for run in find_runs(runs, names)]

    assert found() == found("mini") == found(str(runs)) == found("mini", "lora-s0") == [first, second]
    assert found("lora-s1") == found("mini/lora-s1") == found(str(second)) == [second]
    with pytest.raises(UnknownName, match=r"no run 'lora-s2'\. Did you mean 'mini/lora-s"):
        found("lora-s2")
    assert find_runs(tmp_path / "nothing") == []
