"""Rules of published continual-learning benchmarks, equal to their evaluation code.

Each rule has the quirks of the paper's code, so that numbers are comparable. Two things differ: outer spaces of a
prediction are removed first, as in the papers' inference scripts, and an empty prediction is never right.
`tests/fixtures/protocols` has the results of the papers' code for 2,000 generated pairs each.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Sequence
from difflib import SequenceMatcher
from typing import Any

from moextend.bench.scorers.gold import Answered, Gold, Item, Scorer
from moextend.bench.scorers.rules import exact, gold_position
from moextend.errors import InputError

Rule = Callable[[str, str], float]

_OPTIONS = "ABCDE"
_SINGLE = re.compile(r"\b(\w)\b")
_LITERAL = re.compile(r"<(STR|NUM|CHAR)_LIT:(.*?)>", re.DOTALL)
_EMPTY_LITERALS = {"<NUM_LIT>": "0", "<STR_LIT>": "", "<CHAR_LIT>": ""}
_WITH_EQUALITY = ("AI2D", "TQA", "VQA", "SciVerse")
"""Sources of MLLM-CL's science questions, by the start of the image's name, that are scored by equality."""


def _best(rule: Rule) -> Item:
    """Rule with the maximum over the gold answers; 0 for an empty prediction."""

    def item(prediction: str, gold: Gold) -> float:
        predicted = prediction.strip()
        return max(float(rule(predicted, answer)) for answer in gold.answers) if predicted else 0.0

    return item


def _coin_ocrvqa(predicted: str, gold: str) -> bool:
    return "Unanswerable" not in predicted and predicted.lower() == gold.lower()


def coin_scienceqa(prediction: str, gold: Gold) -> float:
    """1 for the right letter: the prediction itself, its start before ". ", or its first word of one character.

    A lower-case letter counts there, and so does the article of "A dog". A question without choices among others is
    scored as `exact`.
    """
    predicted, right = prediction.strip(), gold_position(gold)
    if right is None:
        return exact(prediction, gold)
    if len(predicted) >= 3 and predicted[0] in _OPTIONS and predicted[1:3] == ". ":
        letter = predicted[0]
    else:
        single = _SINGLE.findall(predicted)
        letter = predicted if predicted in list(_OPTIONS) else single[0].upper() if single else ""
    return float(letter == string.ascii_uppercase[right])


def _coin_box(text: str) -> list[float] | None:
    try:
        values = [float(number) for number in text.split(",")]
    except ValueError:
        return None
    return values if len(values) == 4 else None


def _coin_grounding(predicted: str, gold: str) -> bool:
    # The paper's code drops all brackets and then one character more at either end: the last digit is lost.
    box, meant = _coin_box(_unbracketed(predicted)[1:-1]), _coin_box(_unbracketed(gold))
    if meant is None:
        return predicted == gold
    if box is None:
        return False
    width = max(0.0, min(box[2], meant[2]) - max(box[0], meant[0]))
    height = max(0.0, min(box[3], meant[3]) - max(box[1], meant[1]))
    areas = [(x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in (box, meant)]
    union = sum(areas) - width * height
    return union > 0 and width * height / union > 0.5


def _unbracketed(text: str) -> str:
    return text.replace("[", "").replace("]", "")


def _dcl_contains(predicted: str, gold: str) -> bool:
    if "Unanswerable" in predicted:
        return False
    predicted, gold = predicted.lower(), gold.lower()
    if " " in gold:
        return gold in predicted
    gold = gold.replace(".", "")
    if " " in predicted:
        return any(form in predicted for form in (f" {gold}", f"{gold} ", f"{gold}.", f"{gold},"))
    return gold in predicted


def _dcl_finance(predicted: str, gold: str) -> bool:
    return (
        "Unanswerable" not in predicted
        and predicted.lower().replace(" ", "").replace(".", "") == gold.lower()
    )


def dcl_science(answered: Sequence[Answered]) -> list[float]:
    """MLLM-CL science: equality for AI2D, TQA, VQA and SciVerse; MapQA by containment, or the share of states named.

    The name of the image identifies the source, and the question the kind of MapQA item.

    Raises:
        InputError: an item without an image name.
    """
    return [_science(one) for one in answered]


def _science(one: Answered) -> float:
    if not one.image:
        raise InputError(
            f"the image of item '{one.id}' has no file name, and the scorer depends on it.",
            where="scorer dcl-science",
            hint="Use images in files, and predictions that this version made.",
        )
    predicted = one.prediction.strip()
    if not predicted or "Unanswerable" in predicted:
        return 0.0
    return max(_science_answer(predicted.lower(), answer.lower(), one) for answer in one.answers)


def _science_answer(predicted: str, gold: str, one: Answered) -> float:
    if one.image.rpartition("/")[2].split("_")[0] in _WITH_EQUALITY:
        return float(predicted == gold)
    if "Which states" in one.question:
        named, wanted = predicted.split(","), gold.split(",")
        return sum(state in named for state in wanted) / len(wanted)
    return float(gold in predicted)


def trace_rouge(prediction: str, gold: Gold) -> float:
    """ROUGE-L of summaries as the package `rouge` 1.0.1 counts: F1 of the union of the sentences' longest common
    subsequences over distinct words; sentences end at a period, words at a space.

    A prediction or gold answer without a word scores 0, where the package raises an error.
    """
    return max(_rouge(prediction.strip(), answer) for answer in gold.answers)


def _rouge(predicted: str, gold: str) -> float:
    if predicted == gold.strip() and any(character not in ". \n\t" for character in predicted):
        return 1.0  # 1 - 5e-9 there: its F1 adds 1e-8 to the divisor
    # The paper's code hands the gold over as the hypothesis; the union is not symmetric.
    hypothesis, reference = _sentences(gold), _sentences(predicted)
    if not any(map(any, hypothesis)) or not any(map(any, reference)):
        return 0.0
    union: set[str] = set()
    for sentence in reference:
        for other in hypothesis:
            union.update(_common(sentence, other))
    recall = len(union) / len({word for sentence in reference for word in sentence})
    precision = len(union) / len({word for sentence in hypothesis for word in sentence})
    return 2 * precision * recall / (precision + recall + 1e-8)


def _sentences(text: str) -> list[list[str]]:
    """Words of the sentences; a sentence of spaces has the empty word, as in the package."""
    return [sentence.split() or [""] for sentence in text.split(".") if sentence]


def _common(x: Sequence[str], y: Sequence[str]) -> list[str]:
    """The longest common subsequence; if there are several, the package's choice."""
    table = [[0] * (len(y) + 1) for _ in range(len(x) + 1)]
    for i, word in enumerate(x, 1):
        for j, other in enumerate(y, 1):
            table[i][j] = table[i - 1][j - 1] + 1 if word == other else max(table[i - 1][j], table[i][j - 1])
    found, i, j = [], len(x), len(y)
    while i and j:
        if x[i - 1] == y[j - 1]:
            found.append(x[i - 1])
            i, j = i - 1, j - 1
        elif table[i - 1][j] > table[i][j - 1]:
            i -= 1
        else:
            j -= 1
    return found


def _resolved(code: str) -> str:
    """The code with literals instead of <STR_LIT:...>, <NUM_LIT:...> and <CHAR_LIT:...>."""
    for name, value in _EMPTY_LITERALS.items():
        code = code.replace(name, value)
    for kind, literal in _LITERAL.findall(code):
        code = code.replace(f"<{kind}_LIT:{literal}>", literal)
    return code


def _trace_py150(predicted: str, gold: str) -> float:
    predicted, gold = _resolved(predicted), _resolved(gold)
    if not predicted or not gold:
        return 0.0
    return 1.0 if predicted == gold else round(100 * SequenceMatcher(None, predicted, gold).ratio()) / 100


def _dcl_medical(predicted: str, gold: str) -> bool:
    return "Unanswerable" not in predicted and gold.lower() in predicted.lower()


def _of(paper: str, name: str, rule: str, item: Item | None = None, **more: Any) -> Scorer:
    return Scorer(name, rule, paper, f"{paper} rows", item, **more)


PUBLISHED = (
    _of(
        "CoIN",
        "coin-scienceqa@1",
        'the prediction as a letter, its start before ". ", or its first word of one character',
        coin_scienceqa,
        lettered=True,
    ),
    _of(
        "CoIN, MCITlib",
        "equal@1",
        "a gold answer but for case",
        _best(lambda predicted, gold: predicted.upper() == gold.upper()),
    ),
    _of(
        "CoIN",
        "coin-gqa@1",
        "the gold as written; the prediction in lower case without final periods",
        _best(lambda predicted, gold: predicted.rstrip(".").lower() == gold),
    ),
    _of(
        "CoIN",
        "coin-ocrvqa@1",
        'a gold answer but for case; "Unanswerable" is wrong',
        _best(_coin_ocrvqa),
    ),
    _of(
        "CoIN",
        "coin-imagenet@1",
        "the prediction contains the gold or lies in it, character by character",
        _best(lambda predicted, gold: gold in predicted or predicted in gold),
    ),
    _of(
        "CoIN",
        "coin-grounding@1",
        "1 where the IoU is above 0.5; the last digit of the prediction is not read",
        _best(_coin_grounding),
        own_is_top=False,
    ),
    _of(
        "MLLM-CL",
        "dcl-contains@1",
        "the prediction contains the gold but for case; one word next to a space, period or comma",
        _best(_dcl_contains),
    ),
    _of("MLLM-CL", "dcl-medical@1", "the prediction contains the gold but for case", _best(_dcl_medical)),
    _of(
        "MLLM-CL",
        "dcl-science@1",
        "equality for AI2D, TQA, VQA and SciVerse; MapQA by containment or the share of states named",
        items=dcl_science,
        by_image=True,
    ),
    _of(
        "MLLM-CL",
        "dcl-finance@1",
        "the gold but for case, spaces and periods of the prediction",
        _best(_dcl_finance),
    ),
    _of("TRACE", "trace-equal@1", "the gold as it is", _best(lambda predicted, gold: predicted == gold)),
    _of(
        "TRACE",
        "trace-scienceqa@1",
        "the first character of the gold",
        _best(lambda predicted, gold: predicted[0] == gold[:1]),
    ),
    _of(
        "TRACE",
        "trace-rouge@1",
        "F1 of the union of longest common subsequences of sentences, over distinct words (rouge 1.0.1)",
        trace_rouge,
    ),
    _of(
        "TRACE",
        "trace-py150@1",
        "difflib ratio in whole percent (fuzzywuzzy), literals such as <STR_LIT:x> resolved first",
        _best(_trace_py150),
    ),
)
"""Scorers of published sequences: the papers' own rules, with frozen results in tests/fixtures/protocols."""
