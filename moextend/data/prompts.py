"""The prompt and the target answer of an example."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from moextend.data import cells, modalities
from moextend.data.examples import CAPITALIZED, LETTERS, Example, Layout
from moextend.data.modalities import modality_types
from moextend.data.video import mark_filled, marks_for
from moextend.errors import counted


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
