"""Prompts and conversations of items."""

from typing import Any

from moextend.bench.data import Item, prompt_text
from moextend.data.images import ImageRef
from tests.bench.data.conftest import MakeTask

IMAGE = ImageRef(data=b"x")


def item(**changes: Any) -> Item:
    return Item(**({"id": "1", "media": (IMAGE,), "question": "how many?", "answers": ("two",)} | changes))


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
