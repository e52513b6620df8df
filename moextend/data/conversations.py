"""Conversations; questions about one medium become the turns of one conversation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar, overload

from moextend.data.examples import Example
from moextend.data.media import MediaRef
from moextend.util import surrogates

TURNS = 4
"""Maximum number of questions about one medium in one conversation."""
E = TypeVar("E", bound=Example)


@dataclass(frozen=True)
class Conversation:
    """Turns of question and answer, with media at the marks of the prompts, in order."""

    turns: tuple[tuple[str, str], ...]
    """(prompt, answer) pairs; an empty answer is not learned. Any turn may have media."""
    media: tuple[MediaRef, ...] = ()
    closed: bool = True
    """Whether each answer ends with the end token."""
    system: str = ""
    """System message; "": none. A template without this role, and a model without a template, has it in the first
    prompt."""

    @property
    def is_text(self) -> bool:
        """Whether it is plain text, which is used without a chat template.

        It has no answers (text to read) or no prompts (text to learn).
        """
        asks = bool(self.system) or any(prompt for prompt, _ in self.turns)
        return not (asks and any(answer for _, answer in self.turns))

    def __post_init__(self) -> None:
        """Raises InputError for a text with a lone surrogate, which no tokenizer reads."""
        texts = (text for turn in self.turns for text in turn)
        for text in (text for text in (self.system, *texts) if isinstance(text, str)):
            surrogates.refuse(text, where="conversation")


class Lazy(Sequence[Conversation]):
    """Conversations that are read on access, so that memory does not grow with the data."""

    def _one(self, at: int) -> Conversation:
        raise NotImplementedError

    @overload
    def __getitem__(self, at: int) -> Conversation: ...
    @overload
    def __getitem__(self, at: slice) -> list[Conversation]: ...
    def __getitem__(self, at: int | slice) -> Conversation | list[Conversation]:
        if isinstance(at, slice):
            return [self._one(i) for i in range(*at.indices(len(self)))]
        return self._one(at)

    def __iter__(self) -> Iterator[Conversation]:
        return (self._one(i) for i in range(len(self)))


class Conversations(Lazy, Generic[E]):
    """Examples as conversations; a medium that several examples share is in the first turn only."""

    def __init__(
        self,
        read: Callable[[int], E],
        groups: Sequence[str | None],
        ask: Callable[[E], str],
        answer: Callable[[E], str],
    ) -> None:
        """Args: read: index -> example. groups: the group of every example. ask, answer: example -> prompt, answer."""
        self._read, self._ask, self._answer = read, ask, answer
        self._pieces = joined(groups)

    def __len__(self) -> int:
        return len(self._pieces)

    def _one(self, at: int) -> Conversation:
        turns: list[tuple[str, str]] = []
        media: list[MediaRef] = []
        system = ""
        for one in map(self._read, self._pieces[at]):
            new = one.media if not turns else _new(one.media, media)
            asked = self._ask(replace(one, media=new))
            if not turns:
                system = one.system
            elif one.system != system:  # of another conversation of the group
                asked = "\n\n".join(filter(None, (one.system, asked)))
            turns.append((asked, self._answer(one)))
            media += new
        return Conversation(tuple(turns), tuple(media), system=system)


def _new(found: tuple[MediaRef, ...], seen: Sequence[MediaRef]) -> tuple[MediaRef, ...]:
    """Media of a later example of a group that are not shown yet; none if all are of one modality.

    A group is of one medium. With several modalities only one of them is shared, as an image with a sound a question.
    """
    if len({ref.modality for ref in found}) < 2:
        return ()
    known = {(ref.modality, ref.path, ref.data) for ref in seen}
    return tuple(ref for ref in found if (ref.modality, ref.path, ref.data) not in known)


def joined(groups: Sequence[str | None], most: int = TURNS) -> list[tuple[int, ...]]:
    """Groups of indices, at most `most` each, in the order of first appearance; None: an index of its own group."""
    by_group: dict[str, list[int]] = {}
    for i, group in enumerate(groups):
        by_group.setdefault(f"={group}" if group is not None else f"#{i}", []).append(i)
    return [
        tuple(places[start : start + most])
        for places in by_group.values()
        for start in range(0, len(places), most)
    ]
