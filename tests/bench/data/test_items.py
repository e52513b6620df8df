"""Prompts and conversations of items."""

from pathlib import Path
from typing import Any

from moextend.bench.data import Item, conversations, prompt_text, target_text
from moextend.data.images import ImageRef
from tests.bench.data.conftest import MakeTask
from tests.data.small import MakeRows, WriteJsonl

IMAGE = ImageRef(data=b"x")


def item(**changes: Any) -> Item:
    return Item(**({"id": "1", "media": (IMAGE,), "question": "how many?", "answers": ("two",)} | changes))


def test_prompt(make_task: MakeTask) -> None:
    task = make_task("x", prompt="<image> Q {question} A:")
    assert prompt_text(task, item()) == "<image> Q how many? A:"


def test_braces_and_marks_of_the_question_stay_text(make_task: MakeTask) -> None:
    task = make_task("x", prompt="<image>\n{question} {{yes}}")
    assert prompt_text(task, item(question="<image>\nis {this} so? ")) == "<image>\nis {this} so? {yes}"


def test_no_mark_without_an_image(make_task: MakeTask) -> None:
    assert prompt_text(make_task("x", prompt="<image>\n{question}"), item(media=())) == "how many?"
    assert prompt_text(make_task("x", prompt="<image> Q {question}"), item(media=())) == "Q how many?"


def test_a_free_question_among_choices(make_task: MakeTask) -> None:
    task = make_task("x", prompt="<image>\n{question}\n{choices}\nShort.", columns={"choices": "c"})
    assert prompt_text(task, item()) == "<image>\nhow many?\nShort."
    assert prompt_text(task, item(choices=("a", "b"))) == "<image>\nhow many?\nA. a\nB. b\nShort."


def test_target(make_task: MakeTask) -> None:
    assert target_text(make_task("x", scorer="vqa@1"), item(answers=("a", "b", "b"))) == "b"
    assert target_text(make_task("x", scorer="letter@1"), item(choices=("one", "two"))) == "B"


def test_items_of_one_group_are_turns_of_one_conversation(
    pictures: Path, make_rows: MakeRows, make_task: MakeTask, write_jsonl: WriteJsonl, workspace: Path
) -> None:
    path = write_jsonl(pictures / "all.jsonl", make_rows(6))
    found = conversations(make_task(path, train="all", test="all", prompt="<image> {question}"), workspace)
    assert [[prompt for prompt, _ in one.turns] for one in found] == [
        ["<image> what is 0", "what is 1"], ["<image> what is 2", "what is 3"], ["<image> what is 4", "what is 5"],
    ]  # fmt: skip
    assert [len(one.media) for one in found] == [1, 1, 1] and found[0].turns[0][1] == "red"
