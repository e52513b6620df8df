"""Conversations as rows; the system message is kept."""

from __future__ import annotations

from typing import Any

import pytest

from moextend.data.llava import expand
from moextend.data.table import ListTable
from moextend.errors import InputError


def rows(*messages: tuple[str, str]) -> list[Any]:
    entry = {"messages": [{"role": who, "content": what} for who, what in messages]}
    table = expand(ListTable([entry], ["chats.json: entry 0"], "chats.json", [None]))
    return [table.row(i, ("question", "answer")) for i in range(len(table))]


def test_a_system_message_stands_before_the_first_question() -> None:
    asked = ("user", "Where?"), ("assistant", "Here."), ("user", "And now?"), ("assistant", "There.")
    assert rows(("system", "Answer in one word. "), *asked) == [
        {"question": "Answer in one word.\n\nWhere?", "answer": "Here."},
        {"question": "And now?", "answer": "There."},
    ]
    assert rows(*asked)[0]["question"] == "Where?"


def test_a_later_system_message_is_refused() -> None:
    with pytest.raises(InputError, match="entry 0: has a system message that does not open"):
        rows(("user", "Where?"), ("assistant", "Here."), ("system", "Be short."))
