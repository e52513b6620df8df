"""Checks of a task before a run: golds that do not fit the prompt, and unknown words."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from moextend.bench.data import check_task, open_items
from moextend.bench.task import TaskSpec
from moextend.bench.workspace.new_task import check, new_task
from moextend.errors import InputError
from tests.bench.data.conftest import MakeTask
from tests.data.small import MakePng, MakeRows, WriteJsonl


@pytest.fixture
def lettered(pictures: Path, make_task: MakeTask, write_jsonl: WriteJsonl) -> MakeTask:
    """A multiple-choice task whose gold is as given."""

    def make(
        golds: Iterable[object], options: Sequence[object] = ("cat", "dog", "hen"), **changes: Any
    ) -> TaskSpec:
        rows = [
            {"picture": "img0.png", "ask": "which?", "reply": gold, "options": list(options), "qid": i}
            for i, gold in enumerate(golds)
        ]
        path = write_jsonl(pictures / "all.jsonl", rows)
        columns = {"group": None, "kind": None, "choices": "options"}
        prompt = "<image>\n{question}\n{choices}\nAnswer with the option's letter."
        return make_task(
            path, train=None, test="all", columns=columns, prompt=prompt, scorer="option@1", **changes
        )

    return make


def test_a_prompt_for_letters_needs_golds_that_are_letters(lettered: MakeTask, workspace: Path) -> None:
    with pytest.raises(InputError) as caught:
        check_task(lettered(["0", "2", "3"]), workspace)
    text = str(caught.value)
    assert (
        "mini.yaml: prompt: asks for a letter, but 1 of 3 answers are neither a letter nor a choice" in text
    )
    assert "all.jsonl:3: '3'" in text and "Positions count from 0." in text
    with pytest.raises(InputError, match=r"asks for a letter, but 1 of 2 answers .*'cow'"):
        check_task(lettered(["A", "cow"]), workspace)


def test_a_letter_is_asked_but_the_scorer_compares_texts(lettered: MakeTask, workspace: Path) -> None:
    task = lettered(["cat", "A"]).model_copy(update={"scorer": "exact@1"})
    with pytest.raises(
        InputError, match=r"mini.yaml: scorer: asks for a letter, but 'exact@1' compares it with the"
    ):
        check_task(task, workspace)


def own(path: Path, workspace: Path, kind: str = "vqa", **columns: str) -> TaskSpec:
    return new_task(kind, str(path), workspace, name="mine", columns=columns, scorer=None)


def qa(tmp_path: Path, rows: Iterable[Mapping[str, object]], name: str = "qa.jsonl") -> Path:
    path = tmp_path / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("kind", ["vqa", "qa"])
def test_questions_without_images(kind: str, tmp_path: Path, workspace: Path) -> None:
    path = qa(tmp_path, [{"question": f"what is {i} plus 1?", "answer": str(i + 1)} for i in range(40)])
    task = own(path, workspace, kind)
    assert (task.kind, task.columns.image, task.scorer) == ("vqa", None, "exact@1")
    assert "<image>" not in task.prompt
    found = check(task, workspace)
    assert found["prompt"].startswith("what is")
    assert found["warnings"] == ["there is no column of images or sounds: the questions are only text."]


def test_words_that_the_base_does_not_know_are_reported(tmp_path: Path, workspace: Path) -> None:
    rows = [{"question": f"what color is {i} ?", "answer": "red" if i % 4 else "Zürich"} for i in range(40)]
    found = check(own(qa(tmp_path, rows), workspace), workspace, "tiny")
    answers = next(line for line in found["warnings"] if "the answers have" in line)
    assert "words that the tokenizer of 'tiny' does not know, such as 'Zürich'" in answers
    assert not any(
        "the answers have" in line
        for line in check(own(qa(tmp_path, rows), workspace), workspace)["warnings"]
    )


def chosen(
    make_task: MakeTask,
    write_jsonl: WriteJsonl,
    pictures: Path,
    answers: Iterable[object],
    choices: Sequence[object] = ("Red", "Blue", "Green"),
    **changes: Any,
) -> TaskSpec:
    values = [
        {"qid": f"q{i}", "picture": "img0.png", "ask": "which?", "reply": answer, "options": list(choices)}
        for i, answer in enumerate(answers)
    ]
    path = write_jsonl(pictures / "all.jsonl", values)
    names = {"choices": "options", "group": None, "kind": None}
    prompt = changes.pop("prompt", "<image>\n{question}\n{choices}")
    return make_task(path, train=None, test="all", columns=names, prompt=prompt, **changes)


@pytest.mark.parametrize("scorer", ["letter@1", "option@4"])
@pytest.mark.parametrize("wrong", ["3", 1.0, "Reds"])
def test_a_gold_that_is_no_choice_is_refused_with_its_row(
    wrong: str | float,
    scorer: str,
    make_task: MakeTask,
    write_jsonl: WriteJsonl,
    pictures: Path,
    workspace: Path,
) -> None:
    task = chosen(make_task, write_jsonl, pictures, ["Red", "B", 2, "0", wrong], scorer=scorer)
    refused = rf"all\.jsonl:5: column 'reply': answer .* is none of the 3 choices, and '{scorer}' needs one\."
    for look in (lambda: check_task(task, workspace), lambda: list(open_items(task, "test", workspace))):
        with pytest.raises(InputError, match=refused):
            look()
    fine = chosen(make_task, write_jsonl, pictures, ["Red", "B", 2, "0"], scorer=scorer)
    assert check_task(fine, workspace).items == {"test": 4}


def test_a_scorer_of_letters_without_letters_or_choices_is_refused(
    make_task: MakeTask, make_rows: MakeRows, write_jsonl: WriteJsonl, pictures: Path, workspace: Path
) -> None:
    path = write_jsonl(pictures / "all.jsonl", make_rows(4))
    task = make_task(path, train=None, test="all", scorer="letter@1")
    with pytest.raises(
        InputError, match=r"scorer: 'letter@1' reads letters, but no answer is a letter or a choice"
    ):
        check_task(task, workspace)


def test_equal_train_and_test_data_is_reported(
    make_task: MakeTask,
    make_rows: MakeRows,
    make_png: MakePng,
    write_jsonl: WriteJsonl,
    pictures: Path,
    workspace: Path,
) -> None:
    for i in range(6, 20):
        (pictures / f"img{i}.png").write_bytes(make_png(i))
    for name, start in (("train", 0), ("copy", 0), ("other", 20)):
        write_jsonl(pictures / f"{name}.jsonl", make_rows(20, start))
    for train, test, same in (
        ("train", "train", True), ("train", "copy", True), ("train", "train[50%:]", True),
        ("train[:50%]", "train[50%:]", False), ("train", "other", False),
    ):  # fmt: skip
        found = check_task(make_task(pictures, train=train, test=test), workspace)
        assert any("train and test have the same rows" in warning for warning in found.warnings) == same, test
