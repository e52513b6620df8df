"""What became of every item of a task: its question, and the answers of all runs after all stages, as columns."""

from __future__ import annotations

import base64
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from moextend.bench.report.answers import AnswerReader, Answers
from moextend.bench.report.collect import Result
from moextend.bench.report.fate import FATES, RIGHT, UNKNOWN, fates, top
from moextend.bench.score.kept import read_predictions
from moextend.bench.score.lines import text_item
from moextend.errors import visible
from moextend.util.files import read_lines

if TYPE_CHECKING:
    from numpy import ndarray

    Array = ndarray[Any, Any]


LEVEL = 6
"""Of zlib: more takes much longer and saves little."""


@dataclass(frozen=True)
class Flip:
    """What happens to the items of one task at one stage of one run."""

    run: int
    stage: int
    counts: tuple[int, ...]
    """Items by fate, in the order of FATES."""
    p: float
    """Exact McNemar test, two-sided: as many items become right as become wrong."""


def flips(run: int, right: Array, fate: Array, *, unknown: int) -> list[Flip]:
    """One record per stage at which items were scored before and after.

    Args:
        right: [stages + 1, items], see fate.fates.
        fate: [stages, items] of places in FATES, or `unknown`.
    """
    import numpy as np

    found = []
    for stage, own in enumerate(fate, 1):
        known = own[own != unknown]
        if len(known):
            counts = np.bincount(known, minlength=len(FATES))
            by_name = dict(zip(FATES, map(int, counts), strict=True))
            gained = by_name["learned"] + by_name["regained"]
            found.append(Flip(run, stage, tuple(map(int, counts)), mcnemar(gained, by_name["lost"])))
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
    image: str = ""


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
        answer, score = packed(self.answer), packed(self.score)
        return {
            "ids": [visible(name) for name in self.ids],
            "question": interned([one.question for one in self.asked]),
            "reference": interned([one.reference for one in self.asked]),
            "choices": interned([one.choices for one in self.asked]),
            "imageName": interned([one.image for one in self.asked]),
            "kind": interned(self.kind),
            "group": interned(self.group),
            "runs": list(runs),
            "stages": self.answer.shape[2],
            "answers": [visible(text) for text in self.answers],
            "scores": self.scores,
            "right": self.right,
            "answer": answer,
            "score": score,
        }

    def flips(self, runs: Sequence[int], lasts: Sequence[int]) -> list[Flip]:
        """The items that become right and wrong at every stage of every run."""
        import numpy as np

        known = np.array([np.nan, *(np.nan if one is None else float(one) for one in self.right)])
        right = known[self.score]
        found = []
        for place, (run, last) in enumerate(zip(runs, lasts, strict=True)):
            own = right[:, place, : last + 1].T
            found += flips(run, own, fates(own), unknown=UNKNOWN)
        return found


def lifelines(task: str, results: Sequence[Result]) -> Lifelines | None:
    """The items of a task in all runs; None where no answers are kept."""
    import numpy as np

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
    import numpy as np

    width = next(width for width in (1, 2, 4) if int(numbers.max(initial=0)) < 256**width)
    raw = np.ascontiguousarray(numbers, f"<u{width}").tobytes()
    return {"width": width, "data": base64.b64encode(zlib.compress(raw, LEVEL)).decode()}


def _asked(result: Result, cell: Any) -> dict[str, Asked]:
    """What the items of a cell ask; only of answers that could be read."""
    path = result.run.folder / cell.predictions
    if cell.by_lm_eval:
        lines = [line for line in read_lines(path, cell.sha256) if "summary" not in line]
        return {
            text_item(line): Asked(str(line.get("question", "")), str(line.get("gold", ""))) for line in lines
        }
    return {
        one.id: Asked(one.question, " / ".join(one.answers), " | ".join(one.choices or ()), one.image)
        for one in read_predictions(path, cell.sha256)
    }


def _scorer(task: str, results: Sequence[Result]) -> str:
    return next((cell.scorer for one in results for (_, name), cell in one.cells.items() if name == task), "")


def _words(words: Sequence[str], places: Array) -> list[str]:
    return [words[place] if place >= 0 else "" for place in places]


def _natural(text: str) -> list[tuple[int, str]]:
    """Sorts numbers in a text by their value."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"([0-9]+)", text)]
