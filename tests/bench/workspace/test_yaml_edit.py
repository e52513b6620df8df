"""Editing a list of a YAML does not change the rest of the file."""

import pytest
import yaml

from moextend.bench.workspace.yaml_edit import append_item, quoted, set_value
from moextend.errors import SpecError

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


@pytest.mark.parametrize(
    ("text", "item", "wanted"),
    [
        (BLOCK, "task: new", BLOCK.replace("  - {task: c}\n", "  - {task: c}\n  - task: new\n")),
        ("stages: []\ntrain: 1\n", "task: new", "stages:\n  - task: new\ntrain: 1\n"),
        ("stages: [] # none\n", "task: new", "stages:\n  - task: new # none\n"),
        ("stages: [{task: a}]\n", "task: new", "stages: [{task: a}, {task: new}]\n"),
        ("stages: [a, b]  # text\n", "c", "stages: [a, b, c]  # text\n"),
        ("stages: [\n  a,  # why\n  b\n]\n", "c", "stages: [\n  a,  # why\n  b, c\n]\n"),
        ("stages:\n- task: a\ntrain: 1", "task: new", "stages:\n- task: a\n- task: new\ntrain: 1"),
        ("stages:\n- task: a", "task: new", "stages:\n- task: a\n- task: new\n"),
        ("train: 1\n", "task: new", "train: 1\nstages:\n- task: new\n"),
    ],
)
def test_ways_of_writing_a_list(text: str, item: str, wanted: str) -> None:
    assert append_item(text, "stages", item, where="x.yaml") == wanted


def test_what_cannot_be_edited_is_refused_with_the_outcome() -> None:
    text = "one: &x [{task: a}]\nstages: *x\n"
    with pytest.raises(SpecError, match=r"x.yaml: this command cannot edit .* by hand; it should hold: "):
        append_item(text, "stages", "task: new", where="x.yaml")


@pytest.mark.parametrize("name", ["plain", "123", "no", "1e5", "2024-01-01", "a.b-c"])
def test_names_are_quoted_where_yaml_would_read_something_else(name: str) -> None:
    assert yaml.safe_load(f"- task: {quoted(name)}") == [{"task": name}]


TUNED = {"lora": {"settings": {"rank": 8}, "seeds": [0, 1]}}


@pytest.mark.parametrize(
    "before", ["", "tuned:\n  ewc:\n    a: 1\n\n", "tuned: {ewc: {a: 1}}\n", "tuned: {}\n"]
)
@pytest.mark.parametrize("after", ["", "# how it is trained\ntrain: {steps: 3}   # few\n"])
def test_a_value_is_written_or_replaced(before: str, after: str) -> None:
    head = "# mine\nsequence: mine   # a name\n"
    text = set_value(head + before + after, "tuned", TUNED, where="x.yaml")
    written = "tuned:\n  lora:\n    settings: {rank: 8}\n    seeds: [0, 1]\n"
    blank = "\n" if before.endswith("\n\n") else ""
    assert text == head + (written + blank + after if before else after + written)
