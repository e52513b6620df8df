"""Packs as submissions: what an author could cheat with fails a check, or is named among what evidence cannot show."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from moextend.bench.plugins import code_digest
from moextend.bench.report import packs, submission
from moextend.bench.report.collect import collect
from moextend.bench.report.submission.plausible import Likeness
from moextend.bench.report.verify import Check
from moextend.bench.run.items import items_of
from moextend.bench.run.pack import pack, unpack
from moextend.bench.run.rundir import RunDir, find_runs
from moextend.bench.score.kept import read_predictions
from moextend.bench.score.vqa import score_items
from moextend.bench.tuned import TEST
from moextend.cli.main import app
from moextend.errors import InputError
from moextend.util import files
from tests.bench.ledger import Kind, Shape, rewrite_scores, write_run
from tests.bench.small import finished, small_workspace

pytestmark = pytest.mark.slow  # trains three small runs once, then reads and scores their answers: 25 s
TASK, TEXT, ITEMS = "tiny-reading", "tiny-textqa", 20
SEEDS = (0, 1, 2)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, small_world: None) -> Path:
    """A workspace with runs of a method that is submitted, and of one that is published."""
    folder = small_workspace(
        tmp_path_factory.mktemp("submission"), ["tiny-attributes", TASK], [TEXT], limit=ITEMS, steps=4,
        batch_size=8, together=ITEMS,
    )  # fmt: skip
    for seed in SEEDS:
        finished(folder, "full-ft", seeds=(seed,))
        finished(folder, "zero-shot", "published", seeds=(seed,))
    return folder


@pytest.fixture
def runs(made: Path, tmp_path: Path) -> list[RunDir]:
    """The submitted runs, which a test may change."""
    shutil.copytree(made / "runs", tmp_path / "there" / "runs")
    return find_runs(tmp_path / "there" / "runs")


def check(
    made: Path, runs: list[RunDir], batches: int = 0, others: Sequence[RunDir] = ()
) -> dict[str, Check]:
    """Name -> check, of the runs as they are on disk; `others` are published, too."""
    again = [RunDir(run.folder) for run in runs]
    found = submission.check(again, [*find_runs(made / "published"), *others], made, batches)
    return {one.name: one for one in found}


def failed(found: Mapping[str, Check]) -> dict[str, str]:
    return {name: " ".join(one.problems) for name, one in found.items() if one.problems}


def edit(run: RunDir, stage: int, task: str, **changes: Any) -> None:
    """Changes a cell, and signs it."""
    run.append_cell(run.cells()[stage, task].model_copy(update=changes))


def answer(run: RunDir, stage: int, task: str, change: Callable[[list[Any]], list[Any]]) -> None:
    """Changes the answers of a cell, scores them honestly and signs all, as the most careful author would."""
    cell = run.cells()[stage, task]
    path = run.folder / str(cell.predictions)
    files.write_lines(path, change(files.read_lines(path)))
    new = {"size": path.stat().st_size, "sha256": files.sha256(path)}
    if cell.by_lm_eval:
        new |= files.read_lines(path)[-1]["summary"]
    else:
        new |= asdict(score_items(read_predictions(path, ""), cell.scorer)[0])
    edit(run, stage, task, **new)


def all_right(lines: list[Any]) -> list[Any]:
    return [{**line, "prediction": line["answers"][0]} for line in lines]


def reconfigure(run: RunDir, change: Callable[[dict[str, Any]], object]) -> None:
    """Changes the config of a run, with all digests."""
    record, status = files.read_json(run.config_path), files.read_json(run.folder / "status.json")
    change(record["identity"])
    record["digest"] = status["config"] = files.digest(record["identity"])
    files.write_json(run.config_path, record)
    files.write_json(run.folder / "status.json", status)


def take(run: RunDir, other: RunDir, stages: tuple[int, ...]) -> None:
    """The answers of another run after some stages, as if they were the run's own."""
    for key, cell in other.cells().items():
        if key[0] in stages:
            path = run.folder / str(cell.predictions)
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(other.folder / str(cell.predictions), path)
            run.append_cell(cell)


def test_honest_runs_pass(made: Path, runs: list[RunDir]) -> None:
    found = check(made, runs)
    assert failed(found) == {}
    assert {name for name, one in found.items() if submission.verdict(one) == "cannot be shown"} <= {
        "data", "model", "versions",
    }  # fmt: skip
    assert found["items"].done == "27 cells" and found["seeds"].done == "1 method, 3 each"
    assert found["costs"].done.startswith("3 runs by shapes")


def edited_score(runs: list[RunDir]) -> None:
    edit(runs[0], 2, TASK, value=runs[0].cells()[2, TASK].value + 5)


def edited_reading(runs: list[RunDir]) -> None:
    edit(runs[0], 2, TASK, readings={"strict": 99.0, "normalised": 99.0})


def edited_gold(runs: list[RunDir]) -> None:
    answer(runs[0], 2, TASK, lambda lines: [{**line, "answers": [line["prediction"]]} for line in lines])


def edited_question(runs: list[RunDir]) -> None:
    answer(runs[0], 2, TASK, lambda lines: [{**line, "question": "easy"} for line in lines])


def edited_text(runs: list[RunDir]) -> None:
    def change(lines: list[Any]) -> list[Any]:
        summary = {"summary": {**lines[-1]["summary"], "value": 100.0}}
        return [*({**line, "right": 1.0} for line in lines[:-1]), summary]

    answer(runs[0], 2, TEXT, change)


def fewer_items(runs: list[RunDir]) -> None:
    answer(runs[0], 2, TASK, lambda lines: lines[:5])


def limited(runs: list[RunDir]) -> None:
    reconfigure(runs[0], lambda identity: identity["sequence"]["scoring"].update(limit=5))


def other_base(runs: list[RunDir]) -> None:
    reconfigure(runs[0], lambda identity: identity["sequence"]["base"].update(model="larger"))


def hidden_base(runs: list[RunDir]) -> None:
    for (stage, task), cell in runs[0].cells().items():
        if stage == 0:
            edit(runs[0], 0, task, weights="0123456789abcdef" + cell.weights[16:])


def better_base(runs: list[RunDir]) -> None:
    answer(runs[0], 0, TASK, lambda lines: [{**line, "prediction": line["answers"][0]} for line in lines])


def tuned_on_test(runs: list[RunDir]) -> None:
    record = files.read_json(runs[0].config_path)
    files.write_json(runs[0].config_path, record | {"tuned_on": TEST})


def copied_method(runs: list[RunDir]) -> None:
    for run in runs:
        reconfigure(run, lambda identity: identity.update(method="lora:rank=2"))


def copied_seed(runs: list[RunDir]) -> None:
    take(runs[1], runs[0], (1, 2))


def swapped_seeds(runs: list[RunDir]) -> None:
    reconfigure(runs[0], lambda identity: identity.update(seed=1))
    reconfigure(runs[1], lambda identity: identity.update(seed=0))


def dropped_seed(runs: list[RunDir]) -> None:
    reconfigure(runs[1], lambda identity: identity.update(seed=5))


def other_scorer(runs: list[RunDir]) -> None:
    edit(runs[0], 2, TASK, scorer="contains@1")


def plugin_scorer(runs: list[RunDir]) -> None:
    edit(runs[0], 2, TASK, inputs={"code of scorer 'mine'": "0" * 16})


def hidden_plugin(runs: list[RunDir]) -> None:
    reconfigure(runs[0], lambda identity: identity.update(method="mine"))


def cheaper(runs: list[RunDir]) -> None:
    cost = runs[0].costs()[2]
    cut = {"flops": (cost.flops or 0) / 10, "kept_mb": 0.01, "trained_parameters": 1000}
    runs[0].write_cost(2, TASK, cost.model_copy(update=cut))


def changed_sequence(runs: list[RunDir]) -> None:
    reconfigure(runs[0], lambda identity: identity["sequence"]["train"].update(steps=99))


def stale_version(runs: list[RunDir]) -> None:
    reconfigure(runs[0], lambda identity: identity["sequence"].update(version=0))


def changed_task(runs: list[RunDir]) -> None:
    reconfigure(runs[0], lambda identity: identity["tasks"][TASK].update(scorer="contains@1"))


def unscored_cell(runs: list[RunDir]) -> None:
    path = runs[0].folder / "scores.jsonl"
    files.write_lines(
        path, [line for line in files.read_lines(path) if (line["stage"], line["task"]) != (2, TASK)]
    )


def missing_versions(runs: list[RunDir]) -> None:
    record = files.read_json(runs[0].config_path)
    files.write_json(runs[0].config_path, record | {"environments": []})


def rename(run: RunDir, new: str) -> None:
    """Gives a run another id, in all its records."""
    cells, costs, facts = list(run.cells().values()), run.costs(), run.facts()
    for path in (run.config_path, run.folder / "status.json"):
        path.write_text(path.read_text().replace(run.id, new))
    again = RunDir(run.folder)
    (run.folder / "scores.jsonl").unlink()
    for cell in cells:
        again.append_cell(cell)
    facts.model_copy(update={"run": new}).write(run.folder / "facts.json")
    for (stage, cost), name in zip(costs.items(), run.config.stage_names, strict=True):
        again.write_cost(stage, name, cost)


def one_id(runs: list[RunDir]) -> None:
    rename(runs[1], runs[0].id)


def easier_group(runs: list[RunDir]) -> None:
    runs[0].write_facts(task_identity="given")


def other_rate(runs: list[RunDir]) -> None:
    runs[0].write_facts(settings={**runs[0].facts().settings, "learning_rate": 0.5})


def strange_record(runs: list[RunDir]) -> None:
    record = files.read_json(runs[0].config_path)
    files.write_json(runs[0].config_path, record | {"environments": [{"packages": ["moextend"]}]})


def nothing_left(runs: list[RunDir]) -> None:
    for run in runs:
        (run.folder / "scores.jsonl").write_text("no\n")


CHEATS: dict[Callable[[list[RunDir]], None], tuple[str, str]] = {
    edited_score: ("scores", "its answers give"),
    edited_reading: ("scores", "readings differ"),
    edited_gold: ("items", "another answers in"),
    edited_question: ("items", "another question in 20 items"),
    edited_text: ("items", "which its answer does not give"),
    fewer_items: ("items", "5 answers to 5 of its 20 items"),
    limited: ("protocol", "sequence.scoring.limit is 5 instead of 20"),
    other_base: ("protocol", "sequence.base.model is larger instead of tiny"),
    hidden_base: ("base", "the weights of the base have the fingerprint 0123456789abcdef"),
    better_base: ("row 0", "of the base is 100.0 (20 items)"),
    tuned_on_test: ("settings", "chosen on test items"),
    copied_method: ("copied answers", "all answers of all 6 trained cells"),
    copied_seed: ("copied answers", "all answers of all 6 trained cells"),
    swapped_seeds: ("row 0", "row 0 is that of seed 1 of published runs"),
    dropped_seed: ("seeds", "has the seeds 0, 2, 5"),
    other_scorer: ("scores", "scored by contains@1, and the task has exact@1"),
    plugin_scorer: ("code", "is scored by a plug-in (code of scorer 'mine')"),
    hidden_plugin: ("code", "states no digest of the code of method 'mine'"),
    cheaper: ("costs", "trains 1,000 parameters, and by its shapes"),
    changed_sequence: ("protocol", "sequence.train.steps is 99 instead of 4"),
    stale_version: ("protocol", "is of small@0, and small@1 is here"),
    changed_task: ("protocol", f"tasks.{TASK}.scorer is contains@1 instead of exact@1"),
    unscored_cell: ("files", f"lacks the score of {TASK} after stage 2"),
    missing_versions: ("versions", "states no versions"),
    one_id: ("files", "has the id of another run"),
    easier_group: ("settings", "records the task id 'given', and its method 'none'"),
    other_rate: ("settings", "records another learning_rate than its config"),
    strange_record: ("versions", "a record has no valid form"),
    nothing_left: ("files", "damaged"),
}  # fmt: skip
"""A way to cheat -> the check that fails, and what it says."""


@pytest.mark.parametrize("cheat", CHEATS, ids=lambda cheat: cheat.__name__)
def test_a_cheat_fails(cheat: Callable[[list[RunDir]], None], made: Path, runs: list[RunDir]) -> None:
    cheat(runs)
    (name, what), others = CHEATS[cheat], find_runs(made / "runs") if cheat is copied_method else []
    found = failed(check(made, runs, others=others))
    assert what in found.get(name, ""), found


def test_a_published_row_is_not_added_to(made: Path, runs: list[RunDir], tmp_path: Path) -> None:
    shutil.copytree(made / "runs", tmp_path / "other")
    for run in find_runs(tmp_path / "other"):
        rename(run, f"{int(run.id, 16) ^ 1:032x}")
    found = failed(check(made, runs, others=find_runs(tmp_path / "other")))
    assert "is a published row, which others do not add to" in found["seeds"]


def test_right_answers_written_by_hand_are_found_only_with_weights(made: Path, runs: list[RunDir]) -> None:
    answer(runs[0], 2, TASK, lambda lines: [{**line, "prediction": line["answers"][0]} for line in lines])
    assert failed(check(made, runs)) == {}, "docs/howto/share.md says so"
    found = failed(check(made, runs[:1], batches=1))
    assert f"{TASK} after stage 2: " in found["model"] and "answers differ" in found["model"]
    honest = failed(check(made, runs[1:2], batches=1))
    assert "model" not in honest


def test_code_of_a_plugin_is_compared_with_its_digest_and_not_run(made: Path, runs: list[RunDir]) -> None:
    run = runs[0]
    reconfigure(run, lambda identity: identity.update(method="mine"))
    code = run.folder / "code" / "mine.py"
    code.parent.mkdir()
    code.write_text("raise SystemExit('run')\n")
    rewrite_scores(run, inputs={"code of method 'mine'": code_digest(code)[:16]})
    found = check(made, [run])
    assert not found["code"].problems and "included: mine" in found["code"].done
    code.write_text("something = 'else'\n")
    assert "other code than that with the digest" in failed(check(made, [run]))["code"]
    shutil.rmtree(code.parent)
    assert "does not include that with the digest" in failed(check(made, [run]))["code"]


def test_other_data_than_those_of_published_runs(made: Path, runs: list[RunDir], tmp_path: Path) -> None:
    shutil.copytree(made / "published", tmp_path / "published")
    part = f"train data of task '{TASK}'"
    for run, one in [(run, "a") for run in find_runs(tmp_path / "published")] + [(run, "b") for run in runs]:
        rewrite_scores(run, inputs={part: one})
    found = submission.check(runs, find_runs(tmp_path / "published"), made)
    assert (
        f"the {part} differ from those of published runs" in failed({one.name: one for one in found})["data"]
    )


def test_a_method_with_nearly_the_answers_of_another(tmp_path: Path) -> None:
    shape = Shape(stages=2, texts=1, items=200)
    theirs = write_run(tmp_path, shape, "lora", 0, Kind())
    other = write_run(tmp_path, shape, "full-ft", 0, Kind())
    mine = write_run(tmp_path, shape, "ewc", 0, Kind())
    take(mine, theirs, (1, 2))
    other_word = {"a": "b", "b": "a"}
    answer(
        mine, 2, "task1",
        lambda lines: [{**line, "prediction": other_word[line["prediction"]]} for line in lines[:6]] + lines[6:],
    )  # fmt: skip
    results = {one.name: one for each in collect(find_runs(tmp_path)) for one in each.results}
    likeness = Likeness()
    assert "the right items (kappa 0.98" in likeness(results["ewc-s0"], results["lora-s0"])
    assert likeness(results["full-ft-s0"], results["lora-s0"]) == ""
    assert items_of(theirs) != items_of(other)


def cli(*words: str | Path) -> tuple[int, str]:
    shown = {"COLUMNS": "80", "NO_COLOR": "1"}
    done = CliRunner().invoke(app, ["bench", *map(str, words)], env=shown, catch_exceptions=False)
    return done.exit_code, done.output


def test_packs_are_checked_in_one_table(
    made: Path, runs: list[RunDir], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "published").mkdir()
    pack(find_runs(made / "published"), tmp_path / "published" / "p.tar.zst", predictions=False)
    monkeypatch.setattr(packs, "published", lambda: [tmp_path / "published" / "p.tar.zst"])
    for run in runs:
        pack([run], tmp_path / f"{run.folder.name}.tar.zst")
    given = [tmp_path / f"{run.folder.name}.tar.zst" for run in runs]
    code, out = cli("verify", *given, "-w", made)
    rows = [line.split() for line in out.splitlines() if line.strip()]
    assert code == 0, out
    assert [row for row in rows if row[0] == "scores"] == [
        ["scores", "pass", "27", "cells,", "made", "again"]
    ]
    assert re.search("^ model +cannot be shown", out, re.MULTILINE) and max(map(len, out.splitlines())) <= 80
    (found,) = json.loads(cli("verify", *given, "-w", made, "--json")[1])
    assert found["sound"] and {one["name"] for one in found["checks"]} >= {"files", "row 0", "model"}

    pack(runs, tmp_path / "bare.tar.zst", predictions=False)
    edited_score(runs)
    bad = tmp_path / "bad.tar.zst"
    pack(runs, bad)
    code, out = cli("verify", bad, "-w", made)
    assert code == 1 and re.search("^ scores +fail", out, re.MULTILINE) and "its answers give" in out
    code, out = cli("verify", tmp_path / "bare.tar.zst", "-w", made)
    assert code == 1 and "has no answers" in out
    assert not list(made.glob("*/*.tar.zst")) and len(find_runs(made / "runs")) == 3, (
        "nothing is unpacked there"
    )
    bad.write_bytes(bad.read_bytes()[:-100])
    with pytest.raises(InputError, match="damaged"):
        cli("verify", bad, "-w", made)
    with pytest.raises(InputError, match="packs and runs are separate checks"):
        cli("verify", bad, "full-ft-s0", "-w", made)


def test_a_pack_includes_the_code_of_a_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "methods").mkdir()
    text = "from moextend.bench.methods.lora import Lora\nfrom ._shared import NAME\nclass Mine(Lora):\n    x = NAME\n"
    (tmp_path / "methods" / "mine.py").write_text(text)
    (tmp_path / "methods" / "_shared.py").write_text("NAME = 1\n")
    run = write_run(tmp_path / "runs", Shape(stages=1, items=5), "mine", 0, Kind())
    rewrite_scores(run, inputs={"code of method 'mine'": code_digest(tmp_path / "methods" / "mine.py")[:16]})
    kept = pack([run], tmp_path / "p.tar.zst").files
    assert {"ledger/mine-s0/code/mine.py", "ledger/mine-s0/code/_shared.py"} <= kept.keys()
    (folder,) = unpack(tmp_path / "p.tar.zst", tmp_path / "there", tmp_path).written
    assert code_digest(folder / "code" / "mine.py") == code_digest(tmp_path / "methods" / "mine.py")
    again = pack([RunDir(folder)], tmp_path / "again.tar.zst").files
    assert {path for path in again if "/code/" in path} == {path for path in kept if "/code/" in path}
    (tmp_path / "methods" / "mine.py").write_text(text + "\n# another\n")
    assert not any("/code/" in path for path in pack([run], tmp_path / "other.tar.zst").files)
