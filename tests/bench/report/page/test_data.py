"""The data of the page: the numbers of the tables, the fates of items, and no text that is more than text."""

import base64
import csv
import io
import json
import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.stats import binomtest

from moextend.bench import frame
from moextend.bench.report import page as pages
from moextend.bench.report import render, tables
from moextend.bench.report.collect import Experiment, collect
from moextend.bench.report.fate import FATES, item_fates
from moextend.bench.report.page import encoded
from moextend.bench.report.page.data import parts, verdict
from moextend.bench.report.page.items import (
    MOST_MEDIA,
    RATE,
    SECONDS,
    SIDE,
    Budget,
    Thumbnails,
    mcnemar,
    small_image,
    small_sound,
    thumbnails,
)
from moextend.bench.report.views import Asked
from moextend.bench.run.rundir import find_runs
from moextend.data.images import ImageRef
from moextend.data.sounds import AudioRef
from tests.bench import ledger
from tests.bench.conftest import MakeRun

HOSTILE = '</script><script>owned = 1</script><!-- <img src=x onerror="owned = 2"> \x1b[2J\u202e{}\\'


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the runs of three methods with two seeds."""
    runs = tmp_path_factory.mktemp("page") / "runs"
    methods = {
        "lora": ledger.Kind(keeps=0.3, run_sd=0.02),
        "replay": ledger.Kind(keeps=0.9, run_sd=0.02),
        "lora:rank=2": ledger.Kind(),
    }
    ledger.write_runs(runs, ledger.Shape(stages=3, texts=1, items=60), methods, (0, 1))
    return runs


@pytest.fixture(scope="module")
def experiments(folder: Path) -> list[Experiment]:
    return collect(find_runs(folder))


@pytest.fixture(scope="module")
def made(experiments: list[Experiment]) -> dict[str, Any]:
    return parts(experiments).values


def codes(column: dict[str, Any], shape: Any) -> Any:
    raw = zlib.decompress(base64.b64decode(column["data"]))
    return np.frombuffer(raw, f"<u{column['width']}").reshape(shape)


def test_the_summary_has_the_numbers_of_the_csv(experiments: list[Experiment], made: dict[str, Any]) -> None:
    rows = list(csv.reader(io.StringIO(render(tables(experiments[:1]), "csv"))))
    shown = made["report"]["experiments"][0]["summary"]
    flat = [row for section in shown["sections"] for row in section]
    assert len(flat) == len(rows) - 1 >= 4
    for row, line in zip(flat, rows[1:], strict=True):
        found = []
        for column, value in zip(shown["columns"], row, strict=True):
            text, number, spread = [*value, None, None][:3]
            found += [number, spread] if column["numeric"] else [text]
        assert ["" if one is None else str(one) for one in found] == line[
            1:-1
        ]  # the last column has the notes


def test_the_lifelines_are_the_rows_of_the_frame(
    experiments: list[Experiment], made: dict[str, Any], folder: Path
) -> None:
    one = made["report"]["experiments"][0]
    results = frame(workspace=folder.parent)
    for task in one["tasks"]:
        part = made[task["part"]]
        shape = (len(part["ids"]), len(part["runs"]), part["stages"])
        answer, score = codes(part["answer"], shape), codes(part["score"], shape)
        own = results[results["task"] == task["key"]]
        places = {name: place for place, name in enumerate(part["ids"])}
        runs = {one["runs"][number]["name"]: place for place, number in enumerate(part["runs"])}
        at = (own["item"].map(places).astype(int), own["run"].map(runs).astype(int), own["stage"].astype(int))
        assert [part["answers"][code - 1] for code in answer[at]] == list(own["answer"])
        assert [part["scores"][code - 1] for code in score[at]] == list(own["score"])
        assert len(own) == answer.size == task["items"] * 6 * 4
        assert [part["right"][code - 1] for code in score[at]] == list(own["score"] >= 0.5)


def test_flips_count_the_fates_of_the_frame(made: dict[str, Any], folder: Path) -> None:
    fates = item_fates(frame(workspace=folder.parent))
    counts = fates.groupby(["run", "task", "stage", "fate"], observed=True).size().to_dict()
    one = made["report"]["experiments"][0]
    assert made["e0.flips"]["fates"] == list(FATES)
    for task, run, stage, *rest in made["e0.flips"]["rows"]:
        key = one["runs"][run]["name"], one["tasks"][task]["key"], stage
        assert rest[:-1] == [counts.get((*key, fate), 0) for fate in FATES]
    assert len(made["e0.flips"]["rows"]) == 4 * 6 * 3


def test_mcnemar_is_the_exact_binomial_test() -> None:
    for gained, lost in ((0, 0), (3, 3), (1, 9), (40, 12), (7, 0)):
        p = binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
        assert mcnemar(gained, lost) == pytest.approx(p)


def test_the_verdict_names_the_best_method_and_what_tests_say_of_the_others(
    experiments: list[Experiment], make_run: MakeRun
) -> None:
    (sentence,), comparisons = verdict(experiments[0], Asked())
    assert re.fullmatch(
        r"Given no task id, replay reaches ACC \d+\.\d% after stage 3, the highest of 3 methods\. Paired with it, "
        r"(worse|undecided): lora.*\.",
        sentence,
    )
    assert [table.title for table in comparisons.values()] == ["ledger: differences from replay"]
    assert list(verdict(experiments[0], Asked("lora"))[1]) == ["lora", "replay"]
    for method, value in (("lora", 40.0), ("ewc", 50.0)):
        run = make_run(method, rows=[[10, 10], [value, 10], [value, value]], text=[90, 90, 90])
    (experiment,) = collect(find_runs(run.folder.parent.parent), unfinished=True)
    (sentence,), _ = verdict(experiment, Asked())
    assert sentence.endswith("the highest of 2 methods. Paired with it, items not kept: lora.")
    shown = pages.page([experiment])
    assert '"items":0' in shown and "e0.items0" in shown


def test_no_text_ends_the_script() -> None:
    found = encoded({"a": HOSTILE})
    assert "<" not in found and json.loads(found) == {"a": HOSTILE}
    found.encode()


def test_hostile_answers_stay_text(tmp_path: Path) -> None:
    """The method, answers and references are HTML and control characters."""
    runs = tmp_path / "runs"
    run = ledger.write_run(runs, ledger.Shape(stages=2, texts=1, items=8), "a<b>'\"&", 0, ledger.Kind())
    for path in run.predictions.rglob("*.jsonl"):
        if "scores" not in path.name:
            text = path.read_text().replace('"prediction": "b"', f'"prediction": {json.dumps(HOSTILE)}')
            path.write_text(text.replace('("a",)', json.dumps(HOSTILE)))
    ledger.sign_predictions(run)
    shown = pages.page(collect(find_runs(runs)))
    assert shown.count("</script>") == shown.count("<script") and "<img src=x" not in shown
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", shown)
    blocks = re.findall(r'<script type="application/json" id="part-(.*?)">(.*?)</script>', shown)
    found = {name: json.loads(text) for name, text in blocks}
    assert any("owned = 2" in answer and "\\x1b[2J" in answer for answer in found["e0.items0"]["answers"])
    assert found["report"]["experiments"][0]["methods"][0]["label"] == "a<b>'\"&"


def image(side: int, form: str = "PNG") -> ImageRef:
    out = io.BytesIO()
    Image.effect_noise((side, side), 90).convert("RGB").save(out, form)
    return ImageRef(data=out.getvalue(), where="here")


def test_thumbnails_are_small() -> None:
    assert Image.open(io.BytesIO(small_image(image(20)).data)).size == (20, 20)
    made = small_image(image(900))
    assert made.form == "webp" and max(Image.open(io.BytesIO(made.data)).size) == SIDE


def test_sounds_are_small() -> None:
    rate = 44_100
    wave = 0.5 * np.sin(2 * np.pi * 440 * np.arange(30 * rate) / rate)
    made = small_sound(AudioRef.of(wave, rate))
    again = AudioRef(data=made.data)
    assert (made.kind, made.form) == ("audio", "mp3") and len(made.data) < 200_000
    assert again.seconds == pytest.approx(SECONDS, abs=0.2) and again.open().rate == RATE


def test_experiments_have_equal_shares_of_the_room_for_media(
    experiments: list[Experiment], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[float] = []

    def media(result: Any, task: Any, made: Any, workspace: Any, budget: Budget) -> Thumbnails:
        seen.append(budget.left)
        budget.left -= 100_000
        return Thumbnails([[] for _ in made.ids])

    monkeypatch.setattr("moextend.bench.report.page.data._media", media)
    parts([experiments[0], experiments[0]])
    assert (seen[0], seen[4]) == (MOST_MEDIA / 2, MOST_MEDIA - 400_000) and len(seen) == 8


def test_thumbnails_belong_to_the_questions_that_were_answered(tmp_path: Path) -> None:
    from moextend.bench.report.page.items import Asked
    from moextend.bench.task import TaskSpec

    (tmp_path / "a.png").write_bytes(image(20).read())
    rows = [{"id": str(i), "image": "a.png", "question": f"q{i}", "answer": "x"} for i in range(3)]
    (tmp_path / "test.json").write_text(json.dumps(rows))
    task = {
        "task": "t",
        "version": 1,
        "kind": "vqa",
        "data": {"path": str(tmp_path / "test.json"), "train": None, "test": "all"},
    }
    spec = TaskSpec.model_validate({**task, "columns": {"id": "id"}})
    asked = [Asked("q0"), Asked("another question"), Asked("q2")]
    found = thumbnails(spec, tmp_path, ["0", "1", "2"], asked, Budget())
    assert found.at == [[0], [], [0]] and [one.kind for one in found.media] == ["image"], found.lacks
    full = thumbnails(spec, tmp_path, ["0", "1", "2"], asked, Budget(10))
    assert full.at == [[], [], []] and "a folder has all" in full.lacks
    gone = thumbnails(
        TaskSpec.model_validate({**task, "data": {"path": "gone"}}), tmp_path, ["0"], asked[:1], Budget()
    )
    assert gone.at == [[]] and gone.lacks.startswith("The media cannot be opened")
