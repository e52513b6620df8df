"""Prompts and conversations of items."""

from pathlib import Path
from typing import Any

from moextend.bench.data import Item, open_items, prompt_text, target_text, turns
from moextend.data.images import ImageRef
from tests.bench.data.conftest import MakeRows, MakeTask, WriteJsonl

IMAGE = ImageRef(data=b"x")


def item(**changes: Any) -> Item:
    return Item(**({"id": "1", "images": (IMAGE,), "question": "how many?", "answers": ("two",)} | changes))


def test_prompt(make_task: MakeTask) -> None:
    task = make_task("x", prompt="<image> Q {question} A:")
    assert prompt_text(task, item()) == "<image> Q how many? A:"


def test_braces_and_marks_of_the_question_stay_text(make_task: MakeTask) -> None:
    task = make_task("x", prompt="<image>\n{question} {{yes}}")
    assert prompt_text(task, item(question="<image>\nis {this} so? ")) == "<image>\nis {this} so? {yes}"


def test_no_mark_without_an_image(make_task: MakeTask) -> None:
    assert prompt_text(make_task("x", prompt="<image>\n{question}"), item(images=())) == "how many?"
    assert prompt_text(make_task("x", prompt="<image> Q {question}"), item(images=())) == "Q how many?"


def test_a_free_question_among_choices(make_task: MakeTask) -> None:
    task = make_task("x", prompt="<image>\n{question}\n{choices}\nShort.", columns={"choices": "c"})
    assert prompt_text(task, item()) == "<image>\nhow many?\nShort."
    assert prompt_text(task, item(choices=("a", "b"))) == "<image>\nhow many?\nA. a\nB. b\nShort."


def test_target(make_task: MakeTask) -> None:
    assert target_text(make_task("x", scorer="vqa@1"), item(answers=("a", "b", "b"))) == "b"
    assert target_text(make_task("x", scorer="letter@1"), item(choices=("one", "two"))) == "B"


def test_turns_join_items_of_one_group_in_order() -> None:
    items = [item(id=str(i), group=group) for i, group in enumerate("aabaac")]
    joined = turns(items, 3)
    assert [[one.id for one in turn] for turn in joined] == [["0", "1", "3"], ["4"], ["2"], ["5"]]
    assert len(joined) == 4 and joined[-1][0].id == "5" and len(joined[1:3]) == 2


def test_turns_keep_items_without_a_group_apart() -> None:
    assert len(turns([item(), item(), item(group="x"), item(group="x")], 5)) == 3


def test_turns_of_opened_items_read_only_their_groups(
    pictures: Path, make_rows: MakeRows, make_task: MakeTask, write_jsonl: WriteJsonl, workspace: Path
) -> None:
    path = write_jsonl(pictures / "all.jsonl", make_rows(6))
    task = make_task(path, train=None, test="all")
    joined = turns(open_items(task, "test", workspace), 2)
    assert [[one.id for one in turn] for turn in joined] == [["q0", "q1"], ["q2", "q3"], ["q4", "q5"]]
