"""Words of scenes, questions and answers; the tokenizer of the tiny base has a token for each."""

from __future__ import annotations

COLORS = ("red", "green", "blue", "yellow", "purple", "cyan")
SHAPES = ("circle", "square", "triangle", "cross")
PLURALS = {"circle": "circles", "square": "squares", "triangle": "triangles", "cross": "crosses"}
SIZES = ("small", "big")
LETTERS = ("A", "C", "E", "H", "K", "L", "T", "X")
ROWS = ("top", "middle", "bottom")
COLUMNS = ("left", "center", "right")
CELLS = tuple(f"{row}-{column}" for row in ROWS for column in COLUMNS)
"""Places, row by row."""
NUMBERS = ("zero", "one", "two", "three", "four")
YES_NO = ("yes", "no")
DIGITS = tuple(str(number) for number in range(10))
