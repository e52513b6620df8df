"""Refuses lone surrogates: JSON, YAML and names of files may hold them, but no text that is written or encoded."""

from __future__ import annotations

from moextend.errors import InputError


def lone(text: str) -> str | None:
    """The first lone surrogate of a text, escaped ("\\ud800"); None if it has none."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return ascii(text[error.start])[1:-1]
    return None


def refuse(text: str, *, where: str, hint: str = "Correct or remove it.") -> None:
    """Raises InputError for a text with a lone surrogate."""
    if found := lone(text):
        raise InputError(f"has a lone surrogate ({found}), which is not a character.", where=where, hint=hint)
