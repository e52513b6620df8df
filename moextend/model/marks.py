"""Prompts whose marks (`<image>`, `<audio>`, ...) and media do not agree, and other errors of media in prompts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from moextend.data.media import MediaRef
from moextend.data.modalities import marks_in, modalities_of, modality_types, split_at_marks
from moextend.errors import InputError, counted


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
    names = modalities_of(media)
    marked = [name for text in texts for name in marks_in(text, names)]
    shown = [medium.modality for medium in media]
    for name in names:
        if name not in modality_types():
            raise InputError(
                f"there is no modality '{name}'.",
                where=where,
                hint="Register it first: moextend.register_modality.",
            )
        if shown.count(name) != marked.count(name):
            marks = counted(marked.count(name), f"<{name}> mark")
            raise InputError(
                f"{_count(name, shown.count(name))}, but {marks} in the prompt.",
                where=where,
                hint=f"Put one <{name}> for each {_noun(name)} into the task's prompt.",
            )
    place = next((i for i, names in enumerate(zip(marked, shown, strict=True)) if names[0] != names[1]), None)
    if place is None:
        return
    raise InputError(
        f"mark {place + 1} of the prompt is <{marked[place]}>, but medium {place + 1} is {_a(_noun(shown[place]))}.",
        where=where,
        hint="Give the media in the order of the marks.",
    )


def no_encoder(medium: MediaRef, where: str | None = None) -> InputError:
    """Error for a medium in the input of a model without an encoder of its modality."""
    name = medium.modality
    noun, known = _noun(name), modality_types().get(name)
    if known and known.becomes:
        return InputError(
            f"the prompt has {_a(noun)}, which models take as {_plural(known.becomes)}.",
            where=where,
            hint=f"Convert text and media first: text, media = moextend.data.{name}.expanded(text, media).",
        )
    how = {"image": "vision=...", "audio": "audio=..."}.get(name, f"encoders={{'{name}': ...}}")
    add = "" if name == "image" else ", add an encoder with moextend.add_modality"
    return InputError(
        f"the prompt has {_a(noun)}, but the model has no {name} encoder.",
        where=where,
        hint=f"Load the model with {how}{add}, or leave the {noun} out.",
    )


def too_long(
    tokens: int,
    media: Sequence[MediaRef],
    holes: Sequence[Sequence[int]],
    context: int,
    where: str | None = None,
) -> InputError:
    """Error for a prompt that exceeds the model's context; `holes`: placeholders of the media."""
    counts, sums = Counter(medium.modality for medium in media), Counter[str]()
    for medium, hole in zip(media, holes, strict=True):
        sums[medium.modality] += len(hole)
    parts = ", ".join(f"{sums[name]} of {_count(name, number)}" for name, number in counts.items())
    fewer = " or ".join(map(_plural, counts)) or "images"
    return InputError(
        f"takes {tokens} tokens{f' ({parts})' if parts else ''}, and the model's context length is {context}.",
        where=where,
        hint=f"Shorten the prompt, give fewer {fewer}, or use an encoder with fewer tokens.",
    )


def _noun(name: str) -> str:
    """Name of a medium in messages: "image"."""
    known = modality_types().get(name)
    return known.noun if known else name


def _plural(name: str) -> str:
    known = modality_types().get(name)
    return known.plural if known else f"{name}s"


def _count(name: str, number: int) -> str:
    """Number of media with their noun: "1 image", "2 sounds"."""
    return f"{number} {_noun(name) if number == 1 else _plural(name)}"


def _a(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"
