"""Conversations, the prompt and the target answer of an example; questions about one medium become turns of one."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar, overload

from moextend.data import cells, modalities
from moextend.data.examples import CAPITALIZED, LETTERS, Example, Layout
from moextend.data.media import MediaRef
from moextend.data.modalities import modality_types
from moextend.data.video import mark_filled, marks_for
from moextend.errors import counted
from moextend.util import files

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
            files.refuse_surrogates(text, where="conversation")


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


def joined(groups: Sequence[str | None]) -> list[tuple[int, ...]]:
    """Groups of indices, at most `TURNS` each, in the order of first appearance; None: an index of its own group."""
    by_group: dict[str, list[int]] = {}
    for i, group in enumerate(groups):
        by_group.setdefault(f"={group}" if group is not None else f"#{i}", []).append(i)
    return [
        tuple(places[start : start + TURNS])
        for places in by_group.values()
        for start in range(0, len(places), TURNS)
    ]


def prompt_text(layout: Layout, example: Example) -> str:
    """Prompt of `example`, with one mark (`<image>`) for each of its media, in order.

    A line with a column that is empty for this example is left out. Marks in the data of modalities that the row has
    are removed: they would be read as placeholders of other media.
    """
    shown = (*example.shown, *modalities.modalities_of(example.media))
    values = {**example.fields, "question": modalities.stripped(example.question, shown).strip()}
    names = layout.placeholders()
    if "choices" in names:
        if layout.columns.choices is None:
            raise layout.wrong_prompt(
                "names {choices}, but no column holds them.", "Set columns.choices, or take it out."
            )
        values["choices"] = choice_lines(example.choices or ())
    for name in names:
        if name not in values:
            raise layout.wrong_prompt(
                f"no placeholder '{{{name}}}'.", "Known: {question}, {choices}, columns."
            )
    filled = _marked(layout, example)
    for name, value in example.fields.items():
        if not value:  # no label without content
            line = rf"[^\n]*\{{{re.escape(name)}(?::{CAPITALIZED})?\}}[^\n]*"
            filled = re.sub(rf"{line}\n|\n{line}\Z", "", filled)
    if example.choices is None:
        # A question without choices has no empty line in their place.
        filled = filled.replace("{choices}\n", "")
    fill = {name: _Text(value) for name, value in values.items()}
    texts = [modalities.stripped(piece.format(**fill), shown) for piece in modalities.split_at_marks(filled)]
    found = zip(modalities.marks_in(filled), texts[1:], strict=True)
    return texts[0] + "".join(marks_for(name, layout.columns.frames) + text for name, text in found)


class _Text(str):
    """A text of an example, which a prompt may capitalize."""

    __slots__ = ()

    def __format__(self, form: str) -> str:
        return self.capitalize() if form == CAPITALIZED else str(self)


def choice_lines(choices: Sequence[str]) -> str:
    """Choices as lines "A. ...", "B. ..."; an empty choice has no line, and the others keep their letters."""
    lines = zip(LETTERS, choices, strict=False)
    return "\n".join(f"{letter}. {choice}" for letter, choice in lines if choice)


def _marked(layout: Layout, example: Example) -> str:
    """Template with as many marks of every modality as the example has media of it; a video has one mark."""
    prompt = layout.template(example.choices)
    shown = [name for ref in example.media if (name := mark_filled(ref)) is not None]
    wanted = modalities.marks_in(prompt)
    if shown == wanted:
        return prompt
    media = Counter(shown)
    for name in media | Counter(wanted):
        mark, have = f"<{name}>", media[name]
        stand = prompt.count(mark)
        if stand == have:
            continue
        if have == 0:
            prompt = _without(prompt, name)
        elif stand == 1:
            prompt = prompt.replace(mark, mark * have)
        else:
            raise layout.wrong_prompt(
                f"has {counted(stand, f'{mark} mark')}, but {example.row} has {modality_types()[name].counted(have)}.",
                f"Write {mark} once, where the {modality_types()[name].plural} belong.",
            )
    return prompt


def _without(prompt: str, modality: str) -> str:
    """Template without the marks of a modality, and without a line break after one unless the line has other media."""
    mark = f"<{modality}>"

    def joined(line: re.Match[str]) -> str:
        return line[1] + "\n" * any(name != modality for name in modalities.marks_in(line[1]))

    return re.sub(rf"([^\n]*){mark}\n", joined, prompt).replace(mark, "").lstrip()


def answer_text(example: Example, *, lettered: bool) -> str:
    """Target answer: the most common one, or the letter of the right choice."""
    position = cells.right_choice(example.answers, example.choices, example.position) if lettered else None
    return LETTERS[position] if position is not None else Counter(example.answers).most_common(1)[0][0]


HELD_OUT = 512
"""Maximum number of held-out conversations; also at most a tenth, but at least one."""


class Chosen(Lazy):
    """Some conversations of one or several sequences, by (sequence, index)."""

    def __init__(self, parts: Sequence[Sequence[Conversation]], places: Sequence[tuple[int, int]]) -> None:
        self._parts, self._places = parts, places

    def __len__(self) -> int:
        return len(self._places)

    def _one(self, at: int) -> Conversation:
        part, place = self._places[at]
        return self._parts[part][place]


def complete(part: Sequence[Conversation]) -> Sequence[Conversation]:
    """All conversations of a sequence, read one by one; the sequence does not need slices."""
    return Chosen([part], [(0, place) for place in range(len(part))])


def held_out(conversations: int) -> int:
    """Number of conversations that are held out of a sequence of them."""
    return max(0, min(HELD_OUT, max(conversations // 10, 1), conversations - 1))


def hold_out(
    parts: Sequence[Sequence[Conversation]], seed: int
) -> tuple[Sequence[Conversation], Sequence[Conversation]]:
    """S_t and S_e of MoExtend, section 3.2: conversations for training, and a held-out part of each sequence.

    Both depend on the seed only, and are read lazily.
    """
    import torch  # here: a preview only asks how many are held out

    learn: list[tuple[int, int]] = []
    held: list[tuple[int, int]] = []
    for i, part in enumerate(parts):
        drawn = torch.randperm(len(part), generator=torch.Generator().manual_seed(seed)).tolist()
        cut = held_out(len(part))
        held += [(i, place) for place in drawn[:cut]]
        learn += [(i, place) for place in sorted(drawn[cut:])]
    return Chosen(parts, learn), Chosen(parts, held)
