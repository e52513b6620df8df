"""Conversations as rows; the system message is kept."""

from __future__ import annotations

from typing import Any

import pytest

from moextend.data.examples import SYSTEM
from moextend.data.llava import expand
from moextend.data.table import ListTable
from moextend.errors import InputError


def rows(*messages: tuple[str, str]) -> list[Any]:
    entry = {"messages": [{"role": who, "content": what} for who, what in messages]}
    table = expand(ListTable([entry], ["chats.json: entry 0"], "chats.json", [None]))
    return [table.row(i, ("question", "answer", SYSTEM)) for i in range(len(table))]


def test_a_system_message_is_that_of_every_turn() -> None:
    asked = ("user", "Where?"), ("assistant", "Here."), ("user", "And now?"), ("assistant", "There.")
    assert rows(("system", "Answer in one word. "), *asked) == [
        {"question": "Where?", "answer": "Here.", SYSTEM: "Answer in one word."},
        {"question": "And now?", "answer": "There.", SYSTEM: "Answer in one word."},
    ]
    assert rows(*asked)[0] == {"question": "Where?", "answer": "Here."}


def test_a_later_system_message_is_refused() -> None:
    with pytest.raises(InputError, match="entry 0: has a system message that does not open"):
        rows(("user", "Where?"), ("assistant", "Here."), ("system", "Be short."))


@pytest.mark.parametrize("nothing", ["", "  \n"])
def test_an_empty_system_message_is_none(nothing: str) -> None:
    asked = ("user", "Where?"), ("assistant", "Here.")
    assert rows(("system", nothing), *asked) == rows(*asked)
