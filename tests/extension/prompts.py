"""Prompts of three tasks of the toy model: two with images, one of text."""

from __future__ import annotations

from moextend import Prompt
from tests.toys import picture

COLOUR = [Prompt(f"<image> w1 w2 w{i % 5 + 3}", (picture(i * 5),)) for i in range(40)]
COUNT = [Prompt(f"<image> w30 w31 w{i % 5 + 3}", (picture(i * 5),)) for i in range(40)]
TEXT = [Prompt(f"w1 w2 w{i % 5 + 3}") for i in range(40)]
