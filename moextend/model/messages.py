"""Messages of a conversation, as chat templates know them: a role, and text with media as parts; and their errors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from moextend.data.conversations import Conversation
from moextend.data.media import MediaRef
from moextend.data.modalities import marks_in, modalities_of, modality_types, split_at_marks
from moextend.errors import InputError, counted

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


def without_marks(text: str, media: Sequence[MediaRef] | None = None) -> str:
    """Text with a space for each mark; `media`: only for marks of these media."""
    return " ".join(split_at_marks(text, None if media is None else modalities_of(media)))


def check_marks(texts: Sequence[str], media: Sequence[MediaRef], where: str | None = None) -> None:
    """Raises InputError if the marks of the texts are not those of the media, or a medium is another object.

    Marks of modalities without a medium are text.
    """
    if wrong := [one for one in media if not (hasattr(one, "open") and hasattr(one, "modality"))]:
        raise InputError(
            f"{wrong[0]!r} is not an image or another medium.",
            where=where,
            hint="Give a moextend.ImageRef(path=...) or (data=...).",
        )
    names, types = modalities_of(media), modality_types()
    if unknown := [name for name in names if name not in types]:
        raise InputError(
            f"there is no modality '{unknown[0]}'.",
            where=where,
            hint="Register it first: moextend.register_modality.",
        )
    marked = [name for text in texts for name in marks_in(text, names)]
    shown = [medium.modality for medium in media]
    for name in names:
        if shown.count(name) != marked.count(name):
            raise InputError(
                f"{types[name].counted(shown.count(name))}, but {counted(marked.count(name), f'<{name}> mark')} in "
                "the prompt.",
                where=where,
                hint=f"Put one <{name}> for each {types[name].noun} into the task's prompt.",
            )
    if marked != shown:
        place = next(i for i, pair in enumerate(zip(marked, shown, strict=True)) if pair[0] != pair[1])
        raise InputError(
            f"mark {place + 1} of the prompt is <{marked[place]}>, but medium {place + 1} is {media[place].one()}.",
            where=where,
            hint="Give the media in the order of the marks.",
        )


def no_encoder(medium: MediaRef, where: str | None = None) -> InputError:
    """Error for a medium in the input of a model without an encoder of its modality."""
    name, types = medium.modality, modality_types()
    known = types.get(name)
    if known and known.becomes:
        return InputError(
            f"the prompt has {medium.one()}, which models take as {types[known.becomes].plural}.",
            where=where,
            hint=f"Convert text and media first: text, media = moextend.data.{name}.expanded(text, media).",
        )
    how = {"image": "vision=...", "audio": "audio=..."}.get(name, f"encoders={{'{name}': ...}}")
    add = "" if name == "image" else ", add an encoder with moextend.add_modality"
    return InputError(
        f"the prompt has {medium.one()}, but the model has no {name} encoder.",
        where=where,
        hint=f"Load the model with {how}{add}, or leave {medium.noun} out.",
    )


def too_long(
    tokens: int,
    media: Sequence[MediaRef],
    holes: Sequence[Sequence[int]],
    context: int,
    where: str | None = None,
) -> InputError:
    """Error for a prompt that exceeds the model's context; `holes`: placeholders of the media."""
    types, sums = modality_types(), Counter[str]()
    for medium, hole in zip(media, holes, strict=True):
        sums[medium.modality] += len(hole)
    counts = Counter(medium.modality for medium in media)
    parts = ", ".join(f"{sums[name]} of {types[name].counted(number)}" for name, number in counts.items())
    fewer = " or ".join(types[name].plural for name in counts) or "images"
    return InputError(
        f"takes {tokens} tokens{f' ({parts})' if parts else ''}, and the model's context length is {context}.",
        where=where,
        hint=f"Shorten the prompt, give fewer {fewer}, or use an encoder with fewer tokens.",
    )
