"""new-scorer: the share of the answer's words that are in the prediction. A scorer of your own; change what you like.

The name of this file is the name of the scorer. A task names it with its version:

    scorer: new-scorer@1

A changed rule gets a new version: add a function and a second Scorer called new-scorer@2, and keep the first.
"""

from __future__ import annotations

from moextend.bench.scorers import Gold, Scorer


def words_found(prediction: str, gold: Gold) -> float:
    """0 to 1 for one item; `gold` has the right answers, the question and the choices, where there are some."""
    predicted = set(prediction.lower().split())
    return max(_share(answer.lower().split(), predicted) for answer in gold.answers)


def _share(words: list[str], predicted: set[str]) -> float:
    return sum(word in predicted for word in words) / len(words) if words else 0.0


SCORER = Scorer(
    name="new-scorer@1",
    rule="share of the answer's words that the prediction holds, the best answer",  # `moextend bench list` shows this
    item=words_found,
)
