"""The columns of data by their role."""

from __future__ import annotations

from moextend.util.spec import Spec


class Columns(Spec):
    """Which column of the data holds what."""

    image: str | None = "image"
    """One column, or several that hold one image each, empty or not ("image_1,image_2")."""
    question: str | None = "question"
    """Null for captions."""
    answer: str = "answer"
    """A string, or a list of strings (several annotators)."""
    id: str | None = None
    """Unique per item; null counts the rows."""
    group: str | None = None
    """Items of one image: learned as one conversation of several turns."""
    kind: str | None = None
    """Kind of question, for scores by kind and the majority answer."""
    choices: str | None = None
    """A list, several columns ("A,B,C,D"), or an object by letter or position."""
