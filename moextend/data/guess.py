"""Guesses columns, splits and prompt from the names and values of data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

from moextend.data.cells import golds, text
from moextend.data.columns import Columns
from moextend.data.detect import (
    IMAGES,
    has_pictures,
    image_column,
    left_out,
    media_columns,
    named,
    open_media,
    sound_column,
    unread_media,
    video_column,
)
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
        "question",
        "questions",
        "query",
        "instruction",
        "problem",
        "statement",
        "sentence",
        "prompt",
        "input",
    ),
    "answer": (
        "answer",
        "answers",
        "label",
        "labels",
        "target",
        "ground_truth",
        "gold",
        "response",
        "output",
        "completion",
    ),
    "id": ("question_id", "questionid", "id", "qid", "uid"),
    "group": ("group", "image_id", "imageid", "img_id", "image_name", "scene_id"),
    "kind": ("kind", "question_type", "type", "question_kind", "category", "subject", "puzzle"),
    "choices": ("choices", "options", "multiple_choices"),
}
_OWN = ("image", "audio", "video")
"""Modalities whose columns are guessed."""
_CAPTIONS = ("caption", "captions", "description")
_TRANSCRIPTS = (
    "transcription",
    "transcript",
    "text",
    "sentence",
    "normalized_text",
    "raw_text",
)
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
    media = open_media(chosen, marked)
    columns, notes = _columns(table, chosen, media, where=where, needs=needs, encoders=encoders)
    first = [table.row(i, table.columns) for i in range(min(_LOOKED_AT, len(table)))]
    prompt, answers = _form(columns, first, bare=isinstance(table, Turns))
    return Guess(columns, prompt, _open_prompt(columns, first), answers, _each(columns, first), tuple(notes))


def text_column(table: Table) -> str | None:
    """Column `text` of a table without questions, answers and media; None for other tables."""
    kinds = (_NAMES["question"], _NAMES["answer"], IMAGES, _CAPTIONS)
    if any(named(names, table.columns) for names in kinds) or image_column(table, table.columns):
        return None
    if sound_column(table, table.columns) or video_column(table, table.columns):
        return None
    return named(("text",), table.columns)


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
        if key == "media":
            raise InputError(
                "has a key for each modality.", where=f"{where}: columns.media", hint="Write MODALITY=COLUMN."
            )
        if key not in roles:
            raise UnknownName("key of columns", key, roles, where=where)
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
    found = media_columns(table, free)
    left, notes = left_out(found, media, encoders)
    sound = given.get("audio") or (found["audio"] if "audio" in media else None)
    free = [column for column in free if column not in (found["audio"], found["video"])]
    guessed: dict[str, str | None] = {key: named(names, free) for key, names in _NAMES.items()}
    guessed |= {name: found[name] if name in media and name not in left else None for name in _OWN}
    if guessed["choices"] is None and all(letter in free for letter in _LETTERS):
        guessed["choices"] = ",".join(letter for letter in "ABCDEFGH" if letter in free)
    if guessed["question"] is None and guessed["answer"] is None:
        words = (*_CAPTIONS, "text") if needs == CAPTIONED else _CAPTIONS
        guessed["answer"] = named(words, free)
    if sound and guessed["answer"] is None and "answer" not in given:
        guessed["answer"] = named((*_CAPTIONS, *_TRANSCRIPTS, *_SPOKEN), free)
        notes += _other_answers(table, guessed, free)
        if guessed["question"] == guessed["answer"]:
            guessed["question"] = None
    guessed["id"] = _kept(table, guessed["id"], _unique)
    guessed["kind"] = _kept(table, guessed["kind"], _few)
    guessed["group"] = _kept(table, guessed["group"], _repeats)
    guessed |= given
    _complete(guessed, table, sees="image" in media, where=where, needs=needs)
    unread = unread_media(table, [column for column in free if column not in guessed.values()])
    notes += [
        f"column '{column}' has paths of {ending} files, which are not read"
        for column, ending in unread.items()
    ]
    own = {key: column for key, column in guessed.items() if key in Columns.model_fields}
    others = {key: column for key, column in guessed.items() if key not in own and column is not None}
    return parse(Columns, {**own, "media": others}, where=f"{where}: columns"), notes


def _other_answers(table: Table, guessed: Mapping[str, str | None], free: Sequence[str]) -> list[str]:
    """A note with the columns that could be the answer too."""
    others = [
        name
        for name in free
        if name not in guessed.values() and _kept(table, name, lambda v: _few(v) and _repeats(v))
    ]
    if guessed["answer"] is None or not others:
        return []
    return [f"the answer is column '{guessed['answer']}'; it could be {' or '.join(map(repr, others))} too"]


def _complete(
    guessed: Mapping[str, str | None], table: Table, *, sees: bool, where: str, needs: Sequence[str]
) -> None:
    """Raises InputError if a required column is neither given nor guessed. `sees`: whether images were looked for."""
    caption = guessed["answer"] in _CAPTIONS
    other = any(guessed.get(name) for name in modality_types() if name != "image")
    # A caption needs an image. Columns that look like images are not ignored silently.
    missed = sees and guessed["image"] is None and not other
    shows = missed and (caption or (needs == NEEDED and has_pictures(table)))
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
    more = named(("input",), {name for row in rows for name in row})
    if columns.choices is not None:
        return _shown(LETTER, columns, more), "letter"
    answers = [row.get(columns.answer) for row in rows]
    parts = [part for answer in answers for part in golds(answer)]
    lengths = sorted(len(_answer_text(part).split()) for part in parts)
    if lengths and lengths[len(lengths) // 2] > _LONG:
        return _shown(BARE, columns, more), "text"
    several = any(len(golds(answer)) > 3 for answer in answers)
    return _shown(BARE if bare else SHORT, columns, more), "several" if several else "word"


def _answer_text(answer: Any) -> str:
    """Text of one annotator's answer."""
    return text(answer.get("answer", answer.get("text")) if isinstance(answer, Mapping) else answer)


def _unasked(columns: Columns, rows: Sequence[Row]) -> tuple[str, AnswerKind]:
    """Prompt and kind of answers of data without questions."""
    last = next(reversed(columns.by_modality), "image")
    if (columns.audio or columns.video) and columns.answer.lower() not in _CAPTIONS:
        answers = [_answer_text(row.get(columns.answer)) for row in rows]
        if _labels(answers):
            return _shown(LABEL, columns, None), "label"
        if columns.audio:
            return _shown(TRANSCRIPT, columns, None), "transcript"
    return _shown(CAPTION.format(modality_types()[last].ref.noun), columns, None), "caption"


def _labels(answers: Sequence[str]) -> bool:
    """Whether the answers are of a small closed set."""
    counts = Counter(answers)
    return len(counts) <= _KINDS[-1] and len(answers) >= 2 * len(counts)


def _shown(prompt: str, columns: Columns, more: str | None) -> str:
    """The prompt below a mark for every modality, and with the input below an instruction."""
    if columns.question is not None and columns.question.lower() == "instruction" and more is not None:
        prompt = prompt.replace("{question}", f"{{question}}\n{{{more}}}")
    return "".join(f"<{name}>\n" for name in columns.by_modality) + prompt
