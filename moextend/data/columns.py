"""Columns of data by their role."""

from __future__ import annotations

from moextend.util.spec import Spec


class Columns(Spec):
    """Name of the column for each role."""

    image: str | None = "image"
    """One column, or several with at most one image each ("image_1,image_2")."""
    question: str | None = "question"
    """Null for captions."""
    answer: str = "answer"
    """A string, or a list of strings (several annotators)."""
    id: str | None = None
    """Unique per item; null: the row number is the id."""
    group: str | None = None
    """Same value for all items of an image, which are learned as one conversation with several turns."""
    kind: str | None = None
    """Kind of question, for scores by kind and for the majority answer."""
    choices: str | None = None
    """A list, several columns ("A,B,C,D"), or an object by letter or position."""
