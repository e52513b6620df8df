"""The items of a task as the page shows them: answers and scores of all runs, what changes at a stage, small media."""

from __future__ import annotations

import base64
import io
import re
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from moextend.bench.data import Item, open_items
from moextend.bench.data.source import find_source
from moextend.bench.report.collect import Result
from moextend.bench.report.fate import FATES, RIGHT, UNKNOWN, fates, top
from moextend.bench.report.items import AnswerReader, Answers
from moextend.bench.score.kept import read_predictions
from moextend.bench.score.lines import text_item
from moextend.bench.score.records import Cell
from moextend.errors import visible
from moextend.util.files import read_lines

if TYPE_CHECKING:
    from numpy import ndarray

    from moextend.bench.task import TaskSpec

    Array = ndarray[Any, Any]


LEVEL = 6
"""Of zlib: more takes much longer and saves little."""
MOST_MEDIA = 3e6
"""Bytes of all media of a page that has them in its parts."""
SIDE = 160
"""Pixels of the longer side; a smaller image stays as it is."""
RATE = 16_000
"""Samples per second of a sound."""
SECONDS = 20
"""Longest sound; the rest is cut off."""


def flips(run: int, right: Array) -> list[list[Any]]:
    """[run, stage, items by fate in the order of FATES, p] of every stage at which items were scored before and after.

    p is McNemar's: as many items become right as become wrong.

    Args:
        right: [stages + 1, items], see fate.fates.
    """
    found = []
    for stage, own in enumerate(fates(right), 1):
        known = own[own != UNKNOWN]
        if len(known):
            counts = [int(count) for count in np.bincount(known, minlength=len(FATES))]
            by_name = dict(zip(FATES, counts, strict=True))
            p = mcnemar(by_name["learned"] + by_name["regained"], by_name["lost"])
            found.append([run, stage, *counts, p])
    return found


def mcnemar(gained: int, lost: int) -> float:
    """Exact two-sided p: each of the items that change is as likely to become right as wrong (McNemar, 1947)."""
    from scipy.special import bdtr

    changed = gained + lost
    return 1.0 if changed == 0 else min(1.0, 2 * float(bdtr(min(gained, lost), changed, 0.5)))


@dataclass(frozen=True)
class Asked:
    """What an item asks."""

    question: str = ""
    reference: str = ""
    choices: str = ""


@dataclass(frozen=True)
class Lifelines:
    """The items of one task over the runs of an experiment."""

    ids: list[str]
    asked: list[Asked]
    kind: list[str]
    group: list[str]
    answer: Array
    """[items, runs, stages + 1] of places in `answers`, from 1 on; 0 where nothing was answered."""
    score: Array
    """[items, runs, stages + 1] of places in `scores`, from 1 on; 0 where nothing was scored."""
    answers: list[str]
    scores: list[float | None]
    """The scores that occur; None of an item that has no score of its own."""
    right: list[bool | None]
    """Whether each of them counts as right."""

    def view(self, runs: Sequence[int]) -> dict[str, Any]:
        """For the page; `runs` are the numbers of the runs there."""
        names = ("question", "reference", "choices")
        asked = {name: interned([getattr(one, name) for one in self.asked]) for name in names}
        return {
            "ids": [visible(name) for name in self.ids], **asked,
            "kind": interned(self.kind), "group": interned(self.group), "runs": list(runs),
            "stages": self.answer.shape[2], "answers": [visible(text) for text in self.answers],
            "scores": self.scores, "right": self.right, "answer": packed(self.answer), "score": packed(self.score),
        }  # fmt: skip

    def flips(self, runs: Sequence[int], lasts: Sequence[int]) -> list[list[Any]]:
        """What becomes right and wrong at every stage of every run; see `flips`."""
        right = np.array([np.nan, *(np.nan if one is None else float(one) for one in self.right)])[self.score]
        return [
            row
            for place, (run, last) in enumerate(zip(runs, lasts, strict=True))
            for row in flips(run, right[:, place, : last + 1].T)
        ]


def lifelines(task: str, results: Sequence[Result]) -> Lifelines | None:
    """The items of a task in all runs; None where no answers are kept."""
    reader = AnswerReader()
    found: dict[tuple[int, int], Answers] = {}
    asked: dict[str, Asked] = {}
    stages = 1 + max(result.last for result in results)
    for run, result in enumerate(results):
        for stage in range(stages):
            cell = result.cells.get((stage, task))
            answers = reader(result, cell) if cell else None
            if cell and answers is not None:
                found[run, stage] = answers
                if cell.predictions and len(asked) < len(reader.item):
                    asked |= _asked(result, cell)
    if not found:
        return None
    ids, scorer = reader.item.words(), _scorer(task, results)
    values = np.unique(np.concatenate([answers.score for answers in found.values()]))
    values = values[~np.isnan(values)]
    shape = (len(ids), len(results), stages)
    answer, score = np.zeros(shape, np.uint32), np.zeros(shape, np.uint32)
    kind, group = np.full(len(ids), -1), np.full(len(ids), -1)
    for (run, stage), one in found.items():
        answer[one.item, run, stage] = one.answer + 1
        places = np.searchsorted(values, one.score)
        score[one.item, run, stage] = np.where(np.isnan(one.score), len(values), places) + 1
        kind[one.item], group[one.item] = one.kind, one.group
    order = sorted(range(len(ids)), key=lambda place: _natural(ids[place]))
    best = top(scorer)
    return Lifelines(
        [ids[place] for place in order],
        [asked.get(ids[place], Asked()) for place in order],
        _words(reader.kind.words(), kind[order]),
        _words(reader.group.words(), group[order]),
        answer[order],
        score[order],
        reader.answer.words(),
        [*map(float, values), None],
        [*(bool(value >= RIGHT * best) for value in values), None],
    )


def interned(words: Sequence[str]) -> dict[str, Any]:
    """Words as they are shown, once each, and the place of every one."""
    known: dict[str, int] = {}
    places = [known.setdefault(visible(word), len(known)) for word in words]
    return {"words": list(known), "at": places}


def packed(numbers: Array) -> dict[str, Any]:
    """Whole numbers in as few bytes as hold the largest, little-endian, compressed, as base64."""
    width = next(width for width in (1, 2, 4) if int(numbers.max(initial=0)) < 256**width)
    raw = np.ascontiguousarray(numbers, f"<u{width}").tobytes()
    return {"width": width, "data": base64.b64encode(zlib.compress(raw, LEVEL)).decode()}


def _asked(result: Result, cell: Cell) -> dict[str, Asked]:
    """What the items of a cell ask; only of answers that could be read."""
    path = result.run.folder / str(cell.predictions)
    if cell.by_lm_eval:
        lines = [line for line in read_lines(path, cell.sha256) if "summary" not in line]
        return {
            text_item(line): Asked(str(line.get("question", "")), str(line.get("gold", ""))) for line in lines
        }
    return {
        one.id: Asked(one.question, " / ".join(one.answers), " | ".join(one.choices or ()))
        for one in read_predictions(path, cell.sha256)
    }


def _scorer(task: str, results: Sequence[Result]) -> str:
    return next((cell.scorer for one in results for (_, name), cell in one.cells.items() if name == task), "")


def _words(words: Sequence[str], places: Array) -> list[str]:
    return [words[place] if place >= 0 else "" for place in places]


def _natural(text: str) -> list[tuple[int, str]]:
    """Sorts numbers in a text by their value."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"([0-9]+)", text)]


@dataclass
class Budget:
    """Bytes that media may still take."""

    left: float = MOST_MEDIA


@dataclass(frozen=True)
class Medium:
    """What an item shows or plays."""

    kind: Literal["image", "audio"]
    form: str
    """The format, as the media type has it: png, webp, wav."""
    data: bytes
    """The encoded file."""

    @property
    def url(self) -> str:
        """A URL that holds it."""
        return f"data:{self.kind}/{self.form};base64,{base64.b64encode(self.data).decode()}"


@dataclass
class Thumbnails:
    """The media of one task's items."""

    at: list[list[int]]
    """Item -> places in `media`, in the order of its prompt."""
    media: list[Medium] = field(default_factory=list)
    lacks: str = ""
    """Why some are missing."""


def thumbnails(
    task: TaskSpec, workspace: Path, ids: Sequence[str], asked: Sequence[Asked], budget: Budget
) -> Thumbnails:
    """The images and sounds of items whose questions are still those that were answered."""
    found = Thumbnails([[] for _ in ids])
    if not set(task.modalities) & SMALL.keys() or not any(one.question for one in asked):
        return found
    places = {name: place for place, name in enumerate(ids)}
    known: dict[str, int] = {}
    try:
        for item in _test_items(task, workspace):
            place = places.get(item.id)
            if place is None or item.question != asked[place].question:
                continue
            for ref in item.media:
                if ref.modality not in SMALL:
                    continue
                if ref.digest not in known:
                    made = SMALL[ref.modality](ref)
                    budget.left -= 4 * len(made.data) / 3
                    if budget.left < 0:
                        found.lacks = (
                            "There is room for some images or sounds only (a folder has all: bench report -f html "
                            "-o DIR)."
                        )
                        return found
                    known[ref.digest] = len(found.media)
                    found.media.append(made)
                found.at[place].append(known[ref.digest])
    except Exception as error:  # a page without images is better than none, whatever is wrong with the data
        found.lacks = f"The media cannot be opened: {visible(str(error))}"
    return found


def small_image(image: Any) -> Medium:
    """An image of at most SIDE pixels."""
    made, out = image.open(), io.BytesIO()
    made.thumbnail((SIDE, SIDE))
    made.save(out, "WEBP", quality=60, method=4)
    return Medium("image", "webp", out.getvalue())


def small_sound(sound: Any) -> Medium:
    """The first SECONDS of a sound as MP3, which all browsers play."""
    import soundfile

    wave, out = sound.open().resampled(RATE), io.BytesIO()
    soundfile.write(out, wave.samples[: RATE * SECONDS], RATE, format="MP3", subtype="MPEG_LAYER_III")
    return Medium("audio", "mp3", out.getvalue())


SMALL: Mapping[str, Callable[[Any], Medium]] = {"image": small_image, "audio": small_sound}
"""Modality -> what makes a small medium of a reference."""


def _test_items(task: TaskSpec, workspace: Path) -> Iterable[Item]:
    """The items of the test split; an error for the Hub, which a report does not ask."""
    assert task.data is not None
    if find_source(task.data, task.folder(), workspace, where=task.task).hub is not None:
        raise ValueError("the data set is on the Hub, and a report downloads nothing.")
    return open_items(task, "test", workspace, strict=False)
