"""Every scorer on texts that are slow for inefficient patterns: repetitive answers do not stop a run."""

import pytest

from moextend.bench.scorers import Answered, score_set
from moextend.bench.scorers.table import BY_NAME

LONG = 20_000
REPEATED = [
    *("(", "[", "a ", "1", "\\", "A\n", "**", "\\boxed{"),
    *("A. red B. blue ", "The answer is B. ", "so answer C, ", "选B，"),
]
SPACED = ["answer", "option", "The answer", "\\boxed{", "A"]
GOLDS = {"iou@1": "[0, 0, 1, 1]", "grounding@2": "[0, 0, 1, 1]", "coin-grounding@1": "[0, 0, 1, 1]"}


@pytest.mark.parametrize("name", sorted(BY_NAME))
def test_a_long_text_is_scored_at_once(name: str) -> None:
    scorer = BY_NAME[name]
    gold = GOLDS.get(name, "B" if scorer.lettered else "a red car")
    choices = ("red", "blue", "a", "1") if scorer.lettered else None
    score_set(name, [Answered("1", "x", (gold,), "a question", choices, image="AI2D_1.png")])  # imports
    for piece in [*REPEATED, "[1 ", " ", "<loc"] if name in GOLDS else REPEATED:
        text = (piece * LONG)[:LONG]
        for predicted in (text, "[1" + text[:-2]) if name in GOLDS else (text,):
            answered = Answered("1", predicted, (gold,), "a question", choices, image="AI2D_1.png")
            score_set(name, [answered])


@pytest.mark.parametrize(
    "name", sorted(name for name, scorer in BY_NAME.items() if scorer.lettered and scorer.item)
)
@pytest.mark.parametrize("space", [" ", "\n"])
def test_a_long_space_is_read_at_once(name: str, space: str) -> None:
    for word in SPACED:
        answered = Answered("1", f"{word}{space * 20_000}.", ("B",), "a question", ("red", "blue"))
        score_set(name, [answered])
