"""A number stands only with numbers that were made of the same: what is edited between runs parts their rows."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

from moextend.util import content
from tests import preloaded

from . import workspace

METHOD = """\
from typing import Any
from moextend.bench.methods import OneAdapter
from ._shared import NOTE

class Mine(OneAdapter):
    \"\"\"LoRA.\"\"\"

    def after_stage(self, model: Any, stage: Any) -> Any:
        return {"note": NOTE}
"""
SCORER = """\
from moextend.bench.scorers import Scorer
from ._rule import FULL

SCORER = Scorer(name="mine@1", rule="is named", item=lambda text, gold: FULL * (text in gold.answers))
"""
Call = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sequence of one stage with a base, a method and a scorer in folders of its own."""
    folder = workspace.make(tmp_path_factory.mktemp("apart") / "w")
    shutil.copytree(content.package_folder("registry") / "models/tiny", folder / "own")
    path = folder / "registry/small.yaml"
    lines = [line for line in path.read_text().splitlines() if not line.startswith("align")]
    text = "\n".join(lines).replace(", {task: shade}", "").replace("model: tiny,", "model: own/lm,")
    path.write_text(text + "\n")
    for kind, files in {
        "methods": {"mine.py": METHOD, "_shared.py": "NOTE = 1\n"},
        "scorers": {"mine.py": SCORER, "_rule.py": "FULL = 1.0\n"},
    }.items():
        for name, code in files.items():
            (folder / kind / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / kind / name).write_text(code)
    task = folder / "tasks/colour.yaml"
    task.write_text(task.read_text().replace("exact@1", "mine@1"))
    return folder


@pytest.fixture(scope="module")
def call(kept: Path, fork_server: str) -> Call:
    """Calls `moextend` in that workspace; the exit status, and what it printed."""

    def command(*words: str, **environment: str) -> tuple[int, str]:
        output = kept.with_name("output")
        output.unlink(missing_ok=True)
        code = preloaded.run(fork_server, str(kept), str(output), *words, COLUMNS="500", **environment)
        assert "Traceback" not in output.read_text()
        return code, output.read_text()

    return command


@pytest.fixture(scope="module")
def done(kept: Path, call: Call) -> Path:
    """The workspace with finished runs of two methods."""
    code, output = call("bench", "run", "small", "-m", "mine", "-m", "zero-shot")
    assert code == 0, output
    return kept


@pytest.fixture
def runs(done: Path) -> Iterator[Path]:
    """The runs of the workspace, which are as before after the test."""
    folder, copy = done / "runs/small", done.with_name("before")
    shutil.copytree(folder, copy)
    yield folder
    shutil.rmtree(folder)
    copy.rename(folder)


def weights(path: Path) -> None:
    tensors = load_file(path)
    name = next(name for name in tensors if "embed" in name)
    save_file({**tensors, name: tensors[name] * 1.5}, path, metadata={"format": "pt"})


def words(old: str, new: str) -> Callable[[Path], object]:
    """An edit that leaves the file's size."""
    assert len(old) == len(new)
    return lambda path: path.write_text(path.read_text().replace(old, new))


def other_answers(path: Path) -> None:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps({**row, "answer": (row["answer"] + 1) % 3}) + "\n" for row in rows))


def picture(path: Path) -> None:
    Image.new("RGB", (16, 16), (9, 9, 9)).save(path)


def table(output: str) -> list[dict[str, str]]:
    """The rows of a CSV; what a command writes besides it is not part of them."""
    rows = csv.DictReader(io.StringIO(output[output.index("table,method") :]))
    return [row for row in rows if row.get("runs")]


EDITS: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "base": ("own/lm/model.safetensors", weights, "weights of the base"),
    "helper of a scorer": ("scorers/_rule.py", words("1.0", "0.5"), "code of scorer 'mine@1'"),
    "picture": ("images/colour-test-0.png", picture, "test data of task 'colour'"),
    "text": ("tasks/words/test.jsonl", other_answers, "text task 'words'"),
}


@pytest.mark.slow  # a run, three commands and a training for each edit
@pytest.mark.parametrize("edit", ["base", pytest.param("text", marks=pytest.mark.long)])
def test_what_is_edited_between_two_seeds_parts_them(edit: str, runs: Path, call: Call) -> None:
    """Also where the file keeps its time, as after an unpacked archive or a copy with times."""
    name, change, part = EDITS[edit]
    path = runs.parents[1] / name
    original, times = path.read_bytes(), path.stat()
    change(path)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert path.read_bytes() != original
    try:
        code, output = call("bench", "run", "small", "-m", "mine")
        assert (code, "changed after this run began" in output) == (2, True), output
        code, output = call("bench", "run", "small", "-m", "mine", "--seed", "1")
        assert code == 0, output
    finally:
        path.write_bytes(original)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    for form in ("table", "csv"):
        code, output = call("bench", "report", "small", "-f", form)
        assert code == 0 and "In a table of their own, made of something else: mine-s1" in output, form
        assert part in output, form
    counts = [row["runs"] for row in table(output) if row["method"] == "mine"]
    assert counts == ["1", "1"]


@pytest.mark.slow  # trains twice and loads the base a third time
def test_a_killed_run_is_not_continued_on_other_data(kept: Path, call: Call) -> None:
    run = "runs/small/mine-s7"
    command = ("bench", "run", "small", "-m", "mine", "--seed", "7")
    code, output = call(*command, KILL_WHEN=f"{kept}/{run}/stages/1-colour/extension.safetensors")
    assert code == 1 and "killed by SIGKILL" in output, output
    scores, path = kept / run / "scores.jsonl", kept / "data/colour/test.jsonl"
    before, rows = scores.read_bytes(), path.read_text()
    path.write_text(rows.replace("what color", "which color"))
    try:
        code, output = call(*command)
        assert (code, "the test data of task 'colour' changed" in output) == (2, True), output
        assert scores.read_bytes() == before
    finally:
        path.write_text(rows)
    assert call(*command)[0] == 0
    shutil.rmtree(kept / run)


@pytest.mark.parametrize(("edit", "more"), [("helper of a scorer", ()), ("picture", ("--also", "rewind"))])
def test_a_done_run_is_refused_in_a_copy_of_its_workspace_with_other_inputs(
    edit: str, more: tuple[str, ...], done: Path, call: Call, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(done, copy)
    name, change, part = EDITS[edit]
    change(copy / name)
    for _ in range(2):
        code, output = call("bench", "run", "small", "-m", "mine", "--workspace", str(copy), *more)
        assert (code, part in output) == (2, True), output


def test_verify_compares_with_the_workspace_in_which_a_run_lies(
    done: Path, call: Call, tmp_path: Path
) -> None:
    """In a copy of the workspace beside the original, and in another one with a run from a pack."""
    copy, other, pack = tmp_path / "copy", tmp_path / "other", tmp_path / "runs.tar.zst"
    shutil.copytree(done, copy)
    shutil.copytree(done, other, ignore=shutil.ignore_patterns("runs", ".cache"))
    words = ("bench", "verify", "small/mine-s0", "--batches", "0", "--workspace")
    assert call(*words, str(copy))[0] == 0
    for edit in ("picture", "helper of a scorer"):
        name, change, part = EDITS[edit]
        change(copy / name)
        code, output = call(*words, str(copy))
        assert (code, part in output) == (1, True), output
        assert call(*words, str(done))[0] == 0
    assert call("bench", "pack", "small", "--out", str(pack))[0] == 0
    assert call("bench", "unpack", str(pack), "--workspace", str(other))[0] == 0
    assert call(*words, str(other))[0] == 0
    generic = other / "registry/generic.txt"
    generic.write_text(generic.read_text().replace("oslo", "rome"))
    code, output = call(*words, str(other))
    assert (code, "file of generic text" in output) == (1, True), output
    code, output = call("bench", "run", "small", "-m", "mine", "--workspace", str(other))
    assert code == 2 and "changed" in output, "and a run from a pack is not taken for its own"


def test_a_run_under_the_name_of_another_method_is_a_copy(runs: Path, call: Call) -> None:
    shutil.copytree(runs / "mine-s0", runs / "ewc-s0")
    shutil.copytree(runs / "mine-s0", runs / "mine-s1")
    code, output = call("bench", "report", "small", "-f", "csv")
    assert code == 0
    assert {row["method"]: row["runs"] for row in table(output)} == {"mine": "1", "zero-shot": "1"}
    for name in ("ewc-s0", "mine-s1"):
        assert f"small/{name} (a copy of runs/small/mine-s0)" in table(output)[0]["notes"] + output


FILES = "stages/1-colour/cost.json"


@pytest.mark.parametrize("way", ["exchanged files", "a line of another run", FILES])
def test_scores_of_another_run_are_in_no_format(way: str, runs: Path, call: Call) -> None:
    """The run is left out by name, and the other one keeps its numbers."""
    mine, base = (runs / name / "scores.jsonl" for name in ("mine-s0", "zero-shot-s0"))
    lines, others = mine.read_text(), base.read_text()
    if way == "exchanged files":
        mine.write_text(others)
        base.write_text(lines)
    elif way == FILES:
        shutil.copy(runs / "zero-shot-s0" / way, runs / "mine-s0" / way)
    else:
        mine.write_text(lines + others.splitlines()[-1] + "\n")
    left = {"mine-s0", "zero-shot-s0"} if way == "exchanged files" else {"mine-s0"}
    for form in ("table", "csv"):
        code, output = call("bench", "report", "small", "-f", form)
        assert ("Traceback" in output, all(f"{name} (damaged: " in output for name in left)) == (
            False,
            True,
        ), output
        if code == 0 and form == "csv":
            assert [row["method"] for row in table(output)] == ["zero-shot"]
    out = runs.parents[1] / "results"
    call("bench", "report", "small", "--format", "lm-eval", "--out", str(out))
    written = {path.name.split("__")[1] for path in out.glob("small__*")}
    shutil.rmtree(out, ignore_errors=True)
    assert written == {"mine-s0", "zero-shot-s0"} - left
