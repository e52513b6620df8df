"""Guesses columns, splits and prompt from the names and values of data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

from moextend.data.cells import golds, missing, text
from moextend.data.examples import Columns
from moextend.data.llava import Turns
from moextend.data.modalities import modality_types
from moextend.data.source import WHOLE
from moextend.data.table import Row, Table
from moextend.errors import InputError, UnknownName
from moextend.util.spec import parse

SHORT = "{question}\nAnswer the question using a single word or phrase."
LETTER = "{question}\n{choices}\nAnswer with the option's letter from the given choices directly."
CAPTION = "Describe {} in one sentence."
TRANSCRIPT = "Transcribe the speech."
LABEL = "What is it? Answer using a single word or phrase."
BARE = "{question}"
"""Questions of conversation data already contain the instruction how to answer."""

_TRAIN = ("train", "training")
_TEST = ("test", "testmini", "validation", "val", "valid", "dev", "eval", "evaluation")
_NAMES = {
    "question": (
        "question", "questions", "query", "instruction", "problem", "statement", "sentence", "prompt", "input",
    ),
    "answer": (
        "answer", "answers", "label", "labels", "target", "ground_truth", "gold", "response", "output", "completion",
    ),
    "id": ("question_id", "questionid", "id", "qid", "uid"),
    "group": ("group", "image_id", "imageid", "img_id", "image_name", "scene_id"),
    "kind": ("kind", "question_type", "type", "question_kind", "category", "subject", "puzzle"),
    "choices": ("choices", "options", "multiple_choices"),
}  # fmt: skip
_MEDIA = {
    "image": ("image", "images", "img", "picture", "photo", "image_path", "file_name", "filename"),
    "audio": ("audio", "sound", "speech", "clip", "wav", "file", "path"),
    "video": ("video", "videos", "clip", "clips", "movie", "video_path"),
}
"""Modality whose column is guessed -> usual names of it."""
_ENDINGS = {
    "image": (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp"),
    "audio": (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3"),
    "video": (".mp4", ".mov", ".webm", ".mkv", ".avi", ".m4v"),
}
_STILL = (b"heic", b"heix", b"mif1", b"msf1", b"avif", b"M4A ", b"M4B ")
"""Brands of files in the container of MP4 that hold no video."""
_CAPTIONS = ("caption", "captions", "description")
_WORDS = ("transcription", "transcript", "text", "sentence", "normalized_text", "raw_text")
"""Columns with the words of a sound, if there are no answers."""
_SPOKEN = ("language", "command", "keyword", "digit", "word", "emotion", "speaker")
"""Columns with a label of a sound, if there are no answers and no words."""
NEEDED = ("answer", "question")
"""Required columns. Captions have an image instead of a question."""
CAPTIONED = ("answer", "image")
"""Required columns of caption data; a sound may stand for the image."""
NULL = "null"
"""Column of a role that has none."""
_LONG = 6
"""Answers are texts if half of them have more words than this; the prompt then asks for no single word."""
_LETTERS = ("A", "B", "C", "D")
_LOOKED_AT = 500
"""Number of rows that the guess looks at."""
_FIRST = 20
"""Number of rows in which a cell with a medium is looked for."""
_KINDS = range(2, 51)
"""Allowed numbers of different values in a column of kinds."""

AnswerKind = Literal["caption", "transcript", "label", "letter", "text", "several", "word"]
"""Kinds of answers: a caption, the words of a sound, a label (also without a question), the letter of a choice, a long
text, words of several annotators, a word."""


@dataclass(frozen=True)
class Guess:
    """Guessed layout of data."""

    columns: Columns
    prompt: str
    open_prompt: str | None
    """Prompt of a question without choices among questions with choices."""
    answers: AnswerKind
    each: tuple[str, ...] | None
    """Columns of questions and answers if every row holds several of each; else None."""
    notes: tuple[str, ...] = ()
    """Columns that are not used, and why."""


def guess(
    table: Table,
    given: Mapping[str, str],
    *,
    where: str,
    needs: Sequence[str] = NEEDED,
    marked: Iterable[str] | None = None,
    encoders: Collection[str] | None = None,
) -> Guess:
    """Guesses the layout of a table.

    Args:
        given: role -> column, which are kept; `NULL`: it has none. If a medium is given, no other is guessed.
        needs: roles that must have a column.
        marked: the only modalities whose columns are guessed; None: all.
        encoders: modalities that the model reads; other media are then not guessed. None: all are.

    Raises:
        InputError: question, answer or image cannot be guessed; the message lists the columns.
    """
    chosen = {
        key: None if column == NULL and NULL not in table.columns else column for key, column in given.items()
    }
    types = modality_types()
    media = set(types if marked is None else marked) - set(chosen)
    if any(chosen.get(name) for name in types):
        media = set()
    columns, notes = _columns(table, chosen, media, where=where, needs=needs, encoders=encoders)
    first = [table.row(i, table.columns) for i in range(min(_LOOKED_AT, len(table)))]
    prompt, answers = _form(columns, first, bare=isinstance(table, Turns))
    return Guess(columns, prompt, _open_prompt(columns, first), answers, _each(columns, first), tuple(notes))


def modality_of(value: Any) -> str | None:
    """Modality of the medium in a cell: encoded bytes, a path with a known ending, an array with a rate, or a list."""
    if isinstance(value, list | tuple):
        return modality_of(value[0]) if value else None
    if isinstance(value, Mapping):
        if {"array", "sampling_rate"} <= set(value):
            return "audio"
        if set(value) != {"bytes", "path"}:
            return None
        found = {modality_of(value["bytes"]), modality_of(value["path"])}
        return next((name for name in ("audio", "video") if name in found), "image")
    if isinstance(value, str):
        return next((name for name, ends in _ENDINGS.items() if value.lower().endswith(ends)), None)
    if not isinstance(value, bytes):
        return None
    if value[:4] == b"RIFF" and value[8:12] in (b"AVI ", b"WAVE"):
        return "video" if value[8:12] == b"AVI " else "audio"
    if value[:4] == b"\x1aE\xdf\xa3" or (value[4:8] == b"ftyp" and value[8:12] not in _STILL):
        return "video"
    mpeg = len(value) > 1 and value[0] == 0xFF and value[1] & 0xE0 == 0xE0 and value[1] & 0x06 != 0
    return "audio" if value[:4] in (b"fLaC", b"OggS") or value[:3] == b"ID3" or mpeg else "image"


def _media_columns(table: Table, columns: Sequence[str]) -> dict[str, str | None]:
    """Modality -> the column that holds it: the only one by its content, else the one with a usual name."""
    held: dict[str, list[str]] = {name: [] for name in _MEDIA}
    for column in columns:
        cells = (table.row(i, (column,)).get(column) for i in range(min(_FIRST, len(table))))
        cell = next((cell for cell in cells if not missing(cell) and cell not in ("", [])), None)
        found = modality_of(cell)
        if found == "image" and column.lower() in _MEDIA["video"] and _is_gif(cell):
            found = "video"
        if found and not (found == "image" and isinstance(cell, str)):  # paths of images by their name only
            held[found].append(column)
    found_in = {
        name: own[0] if len(own) == 1 else _named(_MEDIA[name], own if name != "image" else ())
        for name, own in held.items()
    }
    rest = [column for column in columns if column not in found_in.values()]
    return {**found_in, "image": found_in["image"] or _named(_MEDIA["image"], rest)}


def _is_gif(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(map(_is_gif, value.values()))
    return value.lower().endswith(".gif") if isinstance(value, str) else str(value)[:6] == "b'GIF8"


def _named(names: Sequence[str], columns: Iterable[str]) -> str | None:
    """Column with the first of the names that the table has; the case is ignored."""
    lower = {column.lower(): column for column in columns}
    return next((lower[name] for name in names if name in lower), None)


def text_column(table: Table) -> str | None:
    """Column `text` of a table without questions, answers and media; None for other tables."""
    kinds = (_NAMES["question"], _NAMES["answer"], _CAPTIONS)
    known = any(_named(names, table.columns) for names in kinds)
    return (
        None
        if known or any(_media_columns(table, table.columns).values())
        else _named(("text",), table.columns)
    )


def named_splits(splits: Sequence[str], name: str, *, where: str, hint: str) -> tuple[str | None, str | None]:
    """(training split, test split) of the data called `name`, by their names; a single split is for training.

    Args: hint: hint of the error if no split has a known name.
    """
    train = next((split for split in _TRAIN if split in splits), None)
    test = next((split for split in _TEST if split in splits), None)
    only = WHOLE if WHOLE in splits else splits[0] if len(splits) == 1 else None
    if train is None and test is None and only is None:
        raise InputError(f"{name} has the splits {', '.join(splits)}.", where=where, hint=hint)
    return train or (only if test is None else None), test


def _open_prompt(columns: Columns, rows: Sequence[Row]) -> str | None:
    """Prompt of a question without choices among questions with choices; it does not ask for a letter."""
    if columns.choices is None:
        return None
    values = [row.get(columns.choices) for row in rows if columns.choices in row]
    return _shown(SHORT, columns, None) if any(value in (None, "", "[]", []) for value in values) else None


def _each(columns: Columns, rows: Sequence[Row]) -> tuple[str, ...] | None:
    """Columns of questions and answers if every row holds several of each; else None."""
    if columns.question is None:
        return None
    names = (columns.question, columns.answer)
    for row in rows:
        asked, replies = (row.get(name) for name in names)
        if not (isinstance(asked, list) and isinstance(replies, list) and len(asked) == len(replies)):
            return None
    return names if rows else None


def _check_given(table: Table, given: Mapping[str, str | None], where: str) -> None:
    roles = {**Columns.model_fields, **modality_types()}
    for key, column in given.items():
        if key == "media" or key not in roles:  # a column of media is named by its modality
            raise UnknownName("key of columns", key, [name for name in roles if name != "media"], where=where)
        if column is not None and column not in table.columns and key not in ("choices", "frames"):
            raise UnknownName("column", column, table.columns, where=f"{where} ({table.source})")


def _columns(
    table: Table,
    given: Mapping[str, str | None],
    media: set[str],
    *,
    where: str,
    needs: Sequence[str],
    encoders: Collection[str] | None,
) -> tuple[Columns, list[str]]:
    """The given columns, and guesses for the other roles, of the modalities only for `media`; notes on the guesses."""
    _check_given(table, given, where)
    taken = [column for key, column in given.items() if key != "frames"]
    free = [column for column in table.columns if column not in taken]
    found = _media_columns(table, free)
    left = _left_out([name for name in found if found[name] and name in media], encoders)
    notes = [
        f"column '{found[name]}' with {modality_types()[name].plural} is left out: the base has no encoder for them"
        for name in left
    ]
    sound = given.get("audio") or (found["audio"] if "audio" in media else None)
    free = [column for column in free if column not in (found["audio"], found["video"])]
    guessed: dict[str, str | None] = {key: _named(names, free) for key, names in _NAMES.items()}
    guessed |= {name: found[name] if name in media and name not in left else None for name in _MEDIA}
    if guessed["choices"] is None and all(letter in free for letter in _LETTERS):
        guessed["choices"] = ",".join(letter for letter in "ABCDEFGH" if letter in free)
    if guessed["question"] is None and guessed["answer"] is None:
        guessed["answer"] = _named((*_CAPTIONS, "text") if needs == CAPTIONED else _CAPTIONS, free)
    if sound and guessed["answer"] is None and "answer" not in given:
        guessed["answer"] = _named((*_CAPTIONS, *_WORDS, *_SPOKEN), free)
        if guessed["question"] == guessed["answer"]:
            guessed["question"] = None
    for role, fits in (("id", _unique), ("kind", _few), ("group", _repeats)):
        guessed[role] = _kept(table, guessed[role], fits)
    guessed |= given
    _complete(guessed, table, sees="image" in media, where=where, needs=needs)
    own = {key: column for key, column in guessed.items() if key in Columns.model_fields}
    others = {key: column for key, column in guessed.items() if key not in own and column is not None}
    return parse(Columns, {**own, "media": others}, where=f"{where}: columns"), notes


def _left_out(guessed: Sequence[str], encoders: Collection[str] | None) -> list[str]:
    """Modalities of guessed columns that the model does not read, if it reads others."""
    types = modality_types()
    read = [name for name in guessed if encoders is None or (types[name].becomes or name) in encoders]
    return [name for name in guessed if read and name not in read]


def _complete(
    guessed: Mapping[str, str | None], table: Table, *, sees: bool, where: str, needs: Sequence[str]
) -> None:
    """Raises InputError if a required column is neither given nor guessed. `sees`: whether images were looked for."""
    caption = guessed["answer"] in _CAPTIONS
    other = any(guessed.get(name) for name in modality_types() if name != "image")
    # A caption needs an image. Columns that look like images are not ignored silently.
    missed = sees and guessed["image"] is None and not other
    cells = table.row(0, table.columns).values() if len(table) else ()
    shows = missed and (caption or (needs == NEEDED and "image" in map(modality_of, cells)))
    for key in ("image", *needs) if shows else needs:
        # A medium needs no question, and a caption no image if there is another medium.
        spared = {"question": caption or other, "image": other}.get(key, False)
        if guessed[key] is None and not spared:
            raise InputError(
                f"which column holds the {key}? Columns of {table.source}: {', '.join(table.columns)}.",
                where=where,
                hint=f"Name it: --columns {key}=COLUMN.",
            )


def _kept(table: Table, column: str | None, fits: Callable[[list[Any]], bool]) -> str | None:
    """The column, if its first values fit its role; else None."""
    if column is None:
        return None
    values = [str(value) for value in islice(table.column(column), 20 * _LOOKED_AT)]
    return column if fits(values) else None


def _unique(values: list[Any]) -> bool:
    return len(set(values)) == len(values)


def _few(values: list[Any]) -> bool:
    return len(set(values)) in _KINDS


def _repeats(values: list[Any]) -> bool:
    return 1 < len(set(values)) < len(values)


def _form(columns: Columns, rows: Sequence[Row], *, bare: bool) -> tuple[str, AnswerKind]:
    """Prompt that fits the answers, and the kind of the answers."""
    if columns.question is None:
        return _unasked(columns, rows)
    # Alpaca's layout: the input of an instruction has its own column.
    more = _named(("input",), {name for row in rows for name in row})
    if columns.choices is not None:
        return _shown(LETTER, columns, more), "letter"
    answers = [golds(row.get(columns.answer)) for row in rows]
    lengths = sorted(len(_answer_text(part).split()) for parts in answers for part in parts)
    if lengths and lengths[len(lengths) // 2] > _LONG:
        return _shown(BARE, columns, more), "text"
    several = any(len(parts) > 3 for parts in answers)
    return _shown(BARE if bare else SHORT, columns, more), "several" if several else "word"


def _answer_text(answer: Any) -> str:
    """Text of one annotator's answer."""
    return text(answer.get("answer", answer.get("text")) if isinstance(answer, Mapping) else answer)


def _unasked(columns: Columns, rows: Sequence[Row]) -> tuple[str, AnswerKind]:
    """Prompt and kind of answers of data without questions."""
    last = next(reversed(columns.by_modality), "image")
    if (columns.audio or columns.video) and columns.answer.lower() not in _CAPTIONS:
        counts = Counter(_answer_text(row.get(columns.answer)) for row in rows)
        if len(counts) <= _KINDS[-1] and counts.total() >= 2 * len(counts):  # a small closed set
            return _shown(LABEL, columns, None), "label"
        if columns.audio:
            return _shown(TRANSCRIPT, columns, None), "transcript"
    return _shown(CAPTION.format(modality_types()[last].ref.noun), columns, None), "caption"


def _shown(prompt: str, columns: Columns, more: str | None) -> str:
    """The prompt below a mark for every modality, and with the input below an instruction."""
    if columns.question is not None and columns.question.lower() == "instruction" and more is not None:
        prompt = prompt.replace("{question}", f"{{question}}\n{{{more}}}")
    return "".join(f"<{name}>\n" for name in columns.by_modality) + prompt
