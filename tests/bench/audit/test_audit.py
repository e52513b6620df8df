"""The audit: duplicates, common answers, and tasks that are too small."""

from __future__ import annotations

import io
import itertools
import json
import random
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from moextend.bench.audit.base import BaseRow
from moextend.bench.audit.duplicates import fingerprint, near_media, near_texts
from moextend.bench.audit.tasks import TaskAudit, audit
from moextend.bench.score.majority import normalised
from moextend.bench.task import Data, TaskSpec
from moextend.data.examples import Columns
from moextend.data.images import ImageRef
from tests.robustness import workspace as small


def _photo(seed: int, size: int = 96) -> Image.Image:
    """Smooth random colours."""
    noise = np.random.default_rng(seed).integers(0, 256, (7, 7, 3), np.uint8)
    return Image.fromarray(noise).resize((size, size), Image.Resampling.BICUBIC)


def _drawing(x: int, colour: str = "blue") -> Image.Image:
    image = Image.new("RGB", (96, 96), "#e8e8e8")
    ImageDraw.Draw(image).rectangle((x, 30, x + 14, 44), fill=colour)
    return image


def _encoded(image: Image.Image, form: str = "PNG", **options: Any) -> ImageRef:
    data = io.BytesIO()
    image.save(data, form, **options)
    return ImageRef(data.getvalue())


def _found(*pairs: tuple[ImageRef, ImageRef]) -> list[bool]:
    """Whether the second of each pair counts as a near duplicate of the first."""
    made = [(fingerprint(one), fingerprint(other)) for one, other in pairs]
    return [
        near_media([one], [other]) == [[0]] for one, other in made if one is not None and other is not None
    ]


def test_an_image_in_another_encoding_and_size_is_a_near_duplicate_and_other_images_are_not() -> None:
    photos = [_encoded(_photo(seed)) for seed in range(30)]
    again = [_encoded(_photo(seed).resize((150, 130)), "JPEG", quality=80) for seed in range(30)]
    assert all(_found(*zip(photos, again, strict=True)))
    assert not any(_found(*itertools.combinations(photos, 2)))


def test_drawings_that_differ_in_one_object_are_not_near_duplicates() -> None:
    same, moved, other = _encoded(_drawing(20), "JPEG"), _encoded(_drawing(60)), _encoded(_drawing(20, "red"))
    first = _encoded(_drawing(20))
    assert _found((first, same), (first, moved), (first, other)) == [True, False, False]


def test_texts_are_near_as_a_direct_comparison_of_their_n_grams_says() -> None:
    draw = random.Random(0)
    words = [f"w{i}" for i in range(40)]
    train = [" ".join(draw.choices(words, k=30)) for _ in range(40)]
    test = []
    for text, changes in zip(train, itertools.cycle([0, 1, 2, 5]), strict=False):
        parts = text.split()
        for place in draw.sample(range(len(parts)), changes):
            parts[place] = "other"
        test.append(" ".join(parts).upper() + "!")

    def grams(text: str) -> set[tuple[str, ...]]:
        parts = normalised(text).split()
        return {tuple(parts[at : at + 5]) for at in range(len(parts) - 4)}

    alike = [[len(grams(a) & grams(b)) / len(grams(a) | grams(b)) for b in train] for a in test]
    wanted = [int(np.argmax(row)) if max(row) >= 0.8 else None for row in alike]
    assert near_texts(test, train) == wanted and None in wanted
    assert near_texts(["How many?", "how few"], ["how many", "how few are there"]) == [0, None]


Row = dict[str, Any]
Audit = Callable[..., TaskAudit]


@pytest.fixture
def audited(tmp_path: Path) -> Audit:
    """Audits a task of these rows."""

    def run(
        train: Sequence[Row],
        test: Sequence[Row],
        *,
        scored: int | None = None,
        limit: int = 20_000,
        **columns: str | None,
    ) -> TaskAudit:
        folder = tmp_path / "data"
        folder.mkdir(exist_ok=True)
        for name, rows in (("train", train), ("test", test)):
            (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        named = {"image": None, "question": "q", "answer": "a", "id": None, "group": None, "kind": None}
        mark = "<image> " if columns.get("image") else ""
        task = TaskSpec(
            task="mine", version=1, kind="vqa", data=Data(path=str(folder), train="train", test="test"),
            columns=Columns(**{**named, **columns}), prompt=mark + "{question}", scorer="exact@1",
            path=tmp_path / "mine.yaml",
        )  # fmt: skip
        return audit("mine", [task], tmp_path, BaseRow(), effect=5.0, limit=limit, scored=scored).tasks[0]

    return run


def _plain(count: int, seed: int, answers: Sequence[str] = tuple("pqrstuvw")) -> list[Row]:
    """Different questions, whose answers are drawn evenly."""
    draw = random.Random(seed)
    return [{"q": f"what is at place {seed} {i}", "a": draw.choice(answers)} for i in range(count)]


def limits(found: TaskAudit) -> list[str]:
    return [finding.limit for finding in found.findings]


def test_a_task_without_defects_is_sound(audited: Audit) -> None:
    found = audited(_plain(400, 1), _plain(2000, 2))
    assert found.verdict == "no finding" and (found.train, found.test) == (400, 2000)
    assert found.mdd is not None and found.mdd < 5


def test_rows_that_are_in_training_are_found_with_an_example(audited: Audit) -> None:
    train, test = _plain(400, 1), _plain(2000, 2)
    test[:50] = [{"q": row["q"].upper() + " ?", "a": row["a"]} for row in train[:50]]
    found = audited(train, test)
    assert found.duplicates == 2.5 and limits(found) == ["duplicates"]
    assert found.pair is not None and "train.jsonl" in found.pair[1]


def test_too_few_items_are_found_and_the_needed_number_is_enough(audited: Audit) -> None:
    found = audited(_plain(400, 1), _plain(300, 2))
    assert limits(found) == ["small"] and found.items_needed is not None
    assert 300 < found.items_needed < 2000


def test_images_that_training_shares_and_that_cannot_be_read_are_found(
    audited: Audit, tmp_path: Path
) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    for seed in range(20):
        _photo(seed, 48).save(folder / f"{seed}.png")
    _photo(0, 48).save(folder / "again.jpg", quality=90)
    (folder / "broken.png").write_bytes(b"no image")

    def rows(names: Sequence[str], question: str) -> list[Row]:
        return [{"q": question, "a": "red", "i": name} for name in names]

    train = rows([f"{seed}.png" for seed in range(10)], "what color")
    test = [
        *rows([f"{seed}.png" for seed in range(10, 20)], "what color"),
        *rows(["again.jpg", "broken.png"], "what color"),
    ]
    found = audited(
        train + rows(["missing.png"], "what color"), test + rows(["again.jpg"], "what shape"), image="i"
    )
    assert {"shared", "duplicates", "broken"} <= set(limits(found)), found.verdict
    assert found.shared == pytest.approx(100 * 2 / 13) and found.duplicates == pytest.approx(100 / 13)
    missing, damaged = found.broken
    assert "train.jsonl:11" in missing and "cannot be read (No such file" in missing
    assert "test.jsonl:12" in damaged
    gone = audited(train, test + rows(["gone.png"] * 2, "what size"), image="i")
    assert "broken" in limits(gone) and len(gone.broken) == 2 + 1, gone.broken


def test_strict_fails_if_a_task_is_not_audited(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from moextend.cli.main import app

    folder = small.make(tmp_path / "w")
    shutil.rmtree(folder / "data")
    command = ["bench", "audit", "small", "--no-base", "--json", "--workspace", str(folder)]
    done = CliRunner().invoke(app, command)
    found = json.loads(done.stdout)
    assert done.exit_code == 0 and found["sound"] and not found["complete"]
    assert all(task["verdict"].startswith("not audited: ") for task in found["tasks"])
    assert CliRunner().invoke(app, [*command, "--strict"]).exit_code == 1


@pytest.mark.slow  # a process that answers with the tiny base
@pytest.mark.usefixtures("forked_workers")
def test_the_command_lets_the_base_answer_once_and_strict_sets_the_exit_code(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from typer.testing import CliRunner

    from moextend.cli.main import app

    folder = small.make(tmp_path / "w")

    def command(*words: str) -> tuple[int, str, str]:
        done = CliRunner().invoke(app, ["bench", "audit", "small", "--workspace", str(folder), *words])
        return done.exit_code, done.stdout, done.stderr

    code, out, err = command("--json")
    assert code == 0, err
    found = json.loads(out)
    by_task = {task["task"]: task for task in found["tasks"]}
    assert by_task["colour"]["base"] is not None and by_task["words"]["base"] is not None
    assert not (folder / "runs").exists() and found["sound"] is False
    code, out, err = command("--strict")
    assert code == 1 and "zero-shot" not in err and "too few items" in out
    file = folder / "registry/small.yaml"
    file.write_text(file.read_text().replace("batch_size: 4,", "batch_size: 3,"))
    code, out, err = command()
    assert code == 0 and "zero-shot-s0: done" in err and "could not answer" not in out, err
