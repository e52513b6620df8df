"""Texts that training and test share, exactly or nearly."""

from __future__ import annotations

from collections.abc import Sequence

from moextend.bench.score.majority import normalised

WORDS = 5
"""Words of an n-gram."""
ALIKE = 0.8
"""Jaccard similarity of the n-grams of near duplicates (Lee et al., 2022)."""


def near(test: Sequence[str], train: Sequence[str], *, alike: bool = True) -> list[int | None]:
    """For each test text the place of a training text that is equal once normalised, or shares 80% of the 5-grams.

    Texts of fewer than nine words have too few n-grams: only equal ones count, as all do without `alike`.
    """
    place: dict[str, int] = {}
    for number, text in enumerate(map(normalised, train)):
        place.setdefault(text, number)
    found = [place.get(normalised(text)) for text in test]
    left = [i for i, known in enumerate(found) if alike and known is None and _is_long(test[i])]
    others = [i for i, text in enumerate(train) if left and _is_long(text)]
    if left and others:
        for i, other in zip(
            left, _most_alike([test[i] for i in left], [train[i] for i in others]), strict=True
        ):
            found[i] = None if other is None else others[other]
    return found


def _is_long(text: str) -> bool:
    return len(normalised(text).split()) >= WORDS + 4


def _most_alike(test: Sequence[str], train: Sequence[str]) -> list[int | None]:
    """The training text with the most n-grams in common, if it is a near duplicate; exact, by sparse matrices."""
    import numpy as np
    from sklearn.feature_extraction.text import HashingVectorizer

    grams = HashingVectorizer(
        preprocessor=normalised, tokenizer=str.split, token_pattern=None, ngram_range=(WORDS, WORDS), binary=True,
        norm=None, alternate_sign=False, n_features=2**22,
    )  # fmt: skip
    mine, theirs = grams.transform(test), grams.transform(train)
    sizes, others = np.asarray(mine.sum(1)).ravel(), np.asarray(theirs.sum(1)).ravel()
    found: list[int | None] = []
    for at in range(0, len(test), 256):
        shared = (mine[at : at + 256] @ theirs.T).tocsr()
        for row in range(shared.shape[0]):
            part = slice(shared.indptr[row], shared.indptr[row + 1])
            common, columns = shared.data[part], shared.indices[part]
            alike = common / (sizes[at + row] + others[columns] - common)
            best = int(alike.argmax()) if len(alike) else -1
            found.append(int(columns[best]) if best >= 0 and alike[best] >= ALIKE else None)
    return found
