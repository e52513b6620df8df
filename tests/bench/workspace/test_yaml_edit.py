"""Editing a list of a YAML does not change the rest of the file."""

from collections.abc import Callable

import pytest
import yaml

from moextend.bench.workspace.yaml_edit import edit_list, edit_mapping, quoted
from moextend.errors import InputError, SpecError

BLOCK = """# my sequence
sequence: mine   # a name
stages:
  # the easy one
  - task: a   # first
    steps: 5

  # the hard one
  - task: b
  - {task: c}
# how it is trained
train: {steps: 3}
"""


def edited(text: str, change: Callable[[list[str]], list[str]], key: str = "stages") -> str:
    values = yaml.safe_load(text).get(key) or []
    found = {str(i): value for i, value in enumerate(values)}
    names = change(list(found))
    wanted = [found.get(name, {"task": name}) for name in names]

    def by_text(items: list[str]) -> list[str]:
        texts = dict(zip(found, items, strict=True))
        return [texts.get(name, f"- task: {name}\n") for name in names]

    return edit_list(text, key, by_text, wanted, where="x.yaml")


def test_an_item_is_added_at_the_end() -> None:
    text = edited(BLOCK, lambda items: [*items, "new"])
    assert text == BLOCK.replace("  - {task: c}\n", "  - {task: c}\n  - task: new\n")


def test_a_comment_goes_with_the_item_below_it() -> None:
    text = edited(BLOCK, lambda items: ["1", "2", "0"])
    assert (
        text.index("# the hard one") < text.index("task: b") < text.index("task: c") < text.index("task: a")
    )
    assert "task: a   # first\n    steps: 5" in text
    assert text.endswith("# how it is trained\ntrain: {steps: 3}\n")


def test_an_item_is_removed_with_its_comment() -> None:
    text = edited(BLOCK, lambda items: ["0", "2"])
    assert "hard" not in text
    assert "task: b" not in text
    assert "# the easy one" in text


def test_all_items_are_removed_and_one_comes_back() -> None:
    text = edited(BLOCK, lambda items: [])
    assert "stages: []" in text
    again = edited(text, lambda items: ["new"])
    assert yaml.safe_load(again)["stages"] == [{"task": "new"}]
    assert "# how it is trained" in again


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("stages: []\ntrain: 1\n", "stages:\n  - task: new\ntrain: 1\n"),
        ("stages: [] # none\n", "stages:\n  - task: new # none\n"),
        ("stages: [{task: a}]\n", "stages:\n  - {task: a}\n  - task: new\n"),
        ("stages:\n- task: a\ntrain: 1", "stages:\n- task: a\n- task: new\ntrain: 1"),
        ("stages:\n- task: a", "stages:\n- task: a\n- task: new\n"),
        ("train: 1\n", "train: 1\nstages:\n- task: new\n"),
        (
            "stages: [\n  {task: a},\n  {task: b}\n]\n",
            "stages:\n  - {task: a}\n  - {task: b}\n  - task: new\n",
        ),
    ],
)
def test_other_ways_of_writing_a_list(text: str, wanted: str) -> None:
    assert edited(text, lambda items: [*items, "new"]) == wanted


def test_comments_between_brackets_are_not_lost() -> None:
    with pytest.raises(InputError, match="has a comment between brackets"):
        edited("stages: [\n  {task: a},  # why\n  {task: b}\n]\n", lambda items: [*items, "new"])


@pytest.mark.parametrize("key", ["stages:", "stages :", '"stages":'])
def test_the_last_item_can_be_removed(key: str) -> None:
    found = edit_list(f"{key}  # why\n- task: a\ntrain: 1\n", "stages", lambda items: [], [], where="x")
    assert yaml.safe_load(found) == {"stages": [], "train": 1} and "# why" in found


def test_names_in_brackets_stay_in_brackets() -> None:
    text = "retention: [a, b]  # text\n"
    found = edit_list(text, "retention", lambda items: [*items, "- c\n"], ["a", "b", "c"], where="x")
    assert found == "retention: [a, b, c]  # text\n"
    assert edit_list(found, "retention", lambda items: [], [], where="x") == "retention: []  # text\n"


def test_what_cannot_be_edited_is_refused_with_the_outcome() -> None:
    text = "one: &x {task: a}\nstages: [*x]\n"
    with pytest.raises(SpecError, match=r"x.yaml: this command cannot edit .* by hand; it should hold: "):
        edited(text, lambda items: [*items, "new"])


@pytest.mark.parametrize("name", ["plain", "123", "no", "1e5", "2024-01-01", "a.b-c"])
def test_names_are_quoted_where_yaml_would_read_something_else(name: str) -> None:
    assert yaml.safe_load(f"- task: {quoted(name)}") == [{"task": name}]


TUNED = {"lora": {"settings": {"rank": 8}, "seeds": [0, 1]}}


@pytest.mark.parametrize(
    "before", ["", "tuned:\n  ewc:\n    a: 1\n\n", "tuned: {ewc: {a: 1}}\n", "tuned: {}\n"]
)
@pytest.mark.parametrize("after", ["", "# how it is trained\ntrain: {steps: 3}   # few\n"])
def test_a_mapping_is_written_or_replaced(before: str, after: str) -> None:
    head = "# mine\nsequence: mine   # a name\n"
    text = edit_mapping(head + before + after, "tuned", TUNED, where="x.yaml")
    written = "tuned:\n  lora:\n    settings: {rank: 8}\n    seeds: [0, 1]\n"
    blank = "\n" if before.endswith("\n\n") else ""
    assert text == head + (written + blank + after if before else after + written)
