"""Examples joined into conversations."""

from __future__ import annotations

from moextend.data.conversations import Conversation, Conversations, joined
from moextend.data.examples import Example
from moextend.data.images import ImageRef


def test_places_of_one_group_are_joined_in_order() -> None:
    assert joined(list("aabaaac")) == [(0, 1, 3, 4), (5,), (2,), (6,)]
    assert joined([None, None, "x", "x"]) == [(0,), (1,), (2, 3)]


def test_the_image_stands_in_the_first_turn() -> None:
    image = ImageRef(data=b"x")
    examples = [Example((image,), f"q{i}", (f"a{i}",)) for i in range(3)]
    found = Conversations(
        examples.__getitem__, ["x", "y", "x"],
        lambda one: f"{len(one.media)} {one.question}", lambda one: one.answers[0],
    )  # fmt: skip
    assert list(found) == [
        Conversation((("1 q0", "a0"), ("0 q2", "a2")), (image,)),
        Conversation((("1 q1", "a1"),), (image,)),
    ]
    assert len(found) == 2 and found[-1].turns[0][1] == "a1" and len(found[:1]) == 1


def test_plain_text_has_no_answer_or_no_prompt() -> None:
    assert Conversation((("read", ""),)).is_text and Conversation((("", "learned"),)).is_text
    assert not Conversation((("q", "a"),)).is_text and not Conversation((("", "a"), ("q", ""))).is_text
