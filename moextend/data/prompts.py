"""The prompt and the target answer of an example."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from moextend.data import cells
from moextend.data.examples import LETTERS, Example, Layout
from moextend.data.images import MARK


def template(layout: Layout, example: Example) -> str:
    """Template for `example`: the layout's prompt, or its `open_prompt` if the example has no choices."""
    if example.choices is None and layout.open_prompt is not None:
        return layout.open_prompt
    return layout.prompt


def prompt_text(layout: Layout, example: Example) -> str:
    """Prompt of `example`, with one `<image>` mark for each of its images.

    A line with a column that is empty for this example is left out.
    """
    values = {name: value.replace(MARK, "") for name, value in example.fields.items()}
    # A mark in the question would be read as a placeholder of another image.
    values["question"] = example.question.replace(MARK, "").strip()
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
    filled = _marks(layout, example, len(example.media))
    for name, value in example.fields.items():
        if not value:  # no label without content
            line = rf"[^\n]*\{{{re.escape(name)}\}}[^\n]*"
            filled = re.sub(rf"{line}\n|\n{line}\Z", "", filled)
    if example.choices is None:
        # A question without choices has no empty line in their place.
        filled = filled.replace("{choices}\n", "")
    return filled.format(**values)


def choice_lines(choices: Sequence[str]) -> str:
    """Choices as lines "A. ...", "B. ..."; an empty choice has no line, and the others keep their letters."""
    lines = zip(LETTERS, choices, strict=False)
    return "\n".join(f"{letter}. {choice}" for letter, choice in lines if choice)


def _marks(layout: Layout, example: Example, images: int) -> str:
    """Template with as many image marks as the example has images."""
    prompt = template(layout, example)
    marks = prompt.count(MARK)
    if marks == images:
        return prompt
    if images == 0:
        return prompt.replace(f"{MARK}\n", "").replace(MARK, "").lstrip()
    if marks == 1:
        return prompt.replace(MARK, MARK * images)
    raise layout.wrong_prompt(
        f"has {marks} {MARK} marks, but {example.row} has {images} images.",
        f"Write {MARK} once, where the images stand.",
    )


def answer_text(example: Example, *, lettered: bool) -> str:
    """Target answer: the most common one, or the letter of the right choice."""
    position = cells.right_choice(example.answers, example.choices, example.position) if lettered else None
    return LETTERS[position] if position is not None else Counter(example.answers).most_common(1)[0][0]
