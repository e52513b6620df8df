"""Messages of a conversation, as chat templates know them: a role, and text with media as parts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from moextend.data.conversations import Conversation
from moextend.data.media import MediaRef
from moextend.data.modalities import modalities_of, split_at_marks
from moextend.model.marks import check_marks

Role = Literal["system", "user", "assistant"]
Part = str | MediaRef
BETWEEN = "\n\n"
"""Between messages that are folded into one."""


@dataclass(frozen=True)
class Message:
    """A message."""

    role: Role
    parts: tuple[Part, ...]
    """Texts and media, in order. A text is text, whatever it looks like."""

    @property
    def text(self) -> str:
        """Its texts, with a space for each medium."""
        return "".join(part if isinstance(part, str) else " " for part in self.parts)

    @property
    def pieces(self) -> list[tuple[str, MediaRef | None]]:
        """Its texts, joined up to the next medium, each with this medium; the last one has none."""
        found: list[tuple[str, MediaRef | None]] = []
        text = ""
        for part in self.parts:
            if isinstance(part, str):
                text += part
            else:
                found.append((text, part))
                text = ""
        return [*found, (text, None)]

    @property
    def media(self) -> list[MediaRef]:
        """Its media."""
        return [part for part in self.parts if not isinstance(part, str)]


def messages_of(
    turns: Sequence[tuple[str, str | None]],
    media: Sequence[MediaRef],
    system: str = "",
    *,
    where: str | None = None,
) -> list[Message]:
    """Messages of (question, answer) turns; a last answer of None makes a prompt.

    A mark in a question is the place of a medium if there are media of its modality, and text otherwise.

    Raises:
        InputError: marks and media do not agree.
    """
    check_marks([question for question, _ in turns], media, where)
    names, left = modalities_of(media), iter(media)
    found = [Message("system", (system,))] if system else []
    for question, answer in turns:
        first, *others = split_at_marks(question, names)
        pairs = ((next(left), text) for text in others)
        found.append(Message("user", (first, *(part for pair in pairs for part in pair))))
        if answer is not None:
            found.append(Message("assistant", (answer,)))
    return found


def of_conversation(conversation: Conversation) -> list[Message]:
    """Messages of a conversation for training. Raises InputError if marks and media do not agree."""
    return messages_of(conversation.turns, conversation.media, conversation.system)


def media_of(messages: Sequence[Message]) -> list[MediaRef]:
    """All media of messages, in order."""
    return [medium for message in messages for medium in message.media]


def folded(messages: Sequence[Message]) -> list[Message]:
    """Messages of user and assistant in turn: system messages are the user's, and those in a row are one message."""
    found: list[Message] = []
    for message in messages:
        role: Role = "assistant" if message.role == "assistant" else "user"
        if found and found[-1].role == role:
            between = (BETWEEN,) if any(found[-1].parts) and any(message.parts) else ()
            found[-1] = Message(role, (*found[-1].parts, *between, *message.parts))
        else:
            found.append(Message(role, message.parts))
    return found
