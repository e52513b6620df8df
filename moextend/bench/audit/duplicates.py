"""Test items that are in training, exactly or nearly."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from moextend.bench.data import Item, open_items
from moextend.bench.data.items import asked
from moextend.bench.data.source import find_source, is_generated
from moextend.bench.score.majority import normalised
from moextend.bench.task import TaskSpec
from moextend.data.digests import FileDigests
from moextend.data.images import ImageRef
from moextend.errors import InputError

if TYPE_CHECKING:
    from numpy import ndarray

    from moextend.data.media import MediaRef

    Array = ndarray[Any, Any]

MOST = 1.0
"""Percent of the test items that may be in training."""
READ = 20_000
"""Most items of a split that are compared before a run."""
WORDS = 5
"""Words of an n-gram."""
ALIKE = 0.8
"""Jaccard similarity of the n-grams of near duplicates (Lee et al., 2022)."""
SIDE = 16
"""Rows and columns of the difference hash, and of the small copy that is compared after it."""
BITS_APART = 16
"""Bits of 256 in which the hashes of near duplicates may differ."""
LEVELS_APART = 24
"""Greatest difference of a point in the small copies of near duplicates, of 255 levels."""


def overlap(task: TaskSpec, workspace: Path) -> str:
    """What is wrong with the test items of a task with local data, if more than a few are in training; else "".

    Equal items count, without decoding any medium; `bench audit` also finds nearly equal ones.
    """
    if task.data is None or task.data.train is None or is_generated(task):
        return ""
    if find_source(task.data, task.folder(), workspace, where=task.task).hub is not None:
        return ""
    test, train = (
        sample(open_items(task, split, workspace, strict=False), task, split, READ, [])
        for split in ("test", "train")
    )
    with FileDigests(workspace / ".cache") as known:
        _, share, pair = in_training(train, test, {}, alike=False, name=known.of_medium)
    if share < MOST or pair is None:
        return ""
    return (
        f"{share:.0f}% of the test items of '{task.task}' are in its training data ({pair[0]} is {pair[1]})"
    )


def in_training(
    train: Sequence[Item],
    test: Sequence[Item],
    broken: dict[str, None],
    *,
    alike: bool = True,
    name: Callable[[MediaRef], str] = attrgetter("digest"),
) -> tuple[float | None, float, tuple[str, str] | None]:
    """Percent of test items with a training medium, and that are in training; and an example.

    Args:
        broken: gets what is wrong with media that cannot be read.
        alike: near duplicates count, which takes decoding all media; else only equal ones do.
        name: the digest of a medium.
    """
    shared, same = list[tuple[str, str]](), _equal_texts(train, test, alike=alike)
    if not any(item.media for item in test):
        return None, 100 * len(same) / len(test), next(iter(same), None)
    learned, owners = _fingerprints(train, broken, name, alike=alike)
    tested, _ = _fingerprints(test, broken, name, alike=alike)
    names = list(learned)
    close = near_media(list(tested.values()), list(learned.values()))
    twins = {digest: [digest] for digest in owners}  # also of modalities without fingerprints
    twins |= {digest: [names[at] for at in found] for digest, found in zip(tested, close, strict=True)}
    for item in test:
        about = [
            {place for twin in twins.get(digest_of(medium, name), []) for place in owners[twin]}
            for medium in item.media
        ]
        places = sorted(set.intersection(*about)) if about else []
        question, answers = normalised(asked(item)), set(item.answers)
        equal = [
            place
            for place in places
            if answers & set(train[place].answers) and normalised(asked(train[place])) == question
        ]
        shared += [(item.row, train[places[0]].row)] if places else []
        same += [(item.row, train[equal[0]].row)] if equal else []
    example = next(iter([*same, *shared]), None)
    return 100 * len(shared) / len(test), 100 * len(same) / len(test), example


def sample(items: Sequence[Item], task: TaskSpec, split: str, limit: int, notes: list[str]) -> list[Item]:
    """Items of a split, evenly taken if there are more than `limit`."""
    step = -(-len(items) // limit)
    taken = list(items[::step])
    if step > 1:
        notes.append(f"{task.task}: {len(taken):,} of the {len(items):,} {split} items were read")
    return taken


def digest_of(medium: MediaRef, name: Callable[[MediaRef], str] = attrgetter("digest")) -> str:
    """Digest of a medium; "" if it cannot be read."""
    try:
        return name(medium)
    except InputError:
        return ""


def _equal_texts(train: Sequence[Item], test: Sequence[Item], *, alike: bool) -> list[tuple[str, str]]:
    """Rows of the test items without media whose text is in training, each with a row of that text."""
    tested, learned = ([item for item in items if not item.media] for items in (test, train))
    known = near_texts([asked(item) for item in tested], [asked(item) for item in learned], alike=alike)
    return [(item.row, learned[at].row) for item, at in zip(tested, known, strict=True) if at is not None]


def near_texts(test: Sequence[str], train: Sequence[str], *, alike: bool = True) -> list[int | None]:
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
        best = _most_alike([test[i] for i in left], [train[i] for i in others])
        for i, other in zip(left, best, strict=True):
            found[i] = None if other is None else others[other]
    return found


def _is_long(text: str) -> bool:
    return len(normalised(text).split()) >= WORDS + 4


def _most_alike(test: Sequence[str], train: Sequence[str]) -> list[int | None]:
    """The training text with the most n-grams in common, if it is a near duplicate; exact, by sparse matrices."""
    from sklearn.feature_extraction.text import HashingVectorizer

    grams = HashingVectorizer(
        preprocessor=normalised, tokenizer=str.split, token_pattern=None, ngram_range=(WORDS, WORDS), binary=True,
        norm=None, alternate_sign=False, n_features=2**22,
    )  # fmt: skip
    mine, theirs = grams.transform(test), grams.transform(train)
    sizes, others = np.asarray(mine.sum(1)).ravel(), np.asarray(theirs.sum(1)).ravel()
    found: list[int | None] = []
    for at in range(len(test)):
        shared = (mine[at] @ theirs.T).tocsr()
        alike = shared.data / (sizes[at] + others[shared.indices] - shared.data)
        best = int(alike.argmax()) if len(alike) else -1
        found.append(int(shared.indices[best]) if best >= 0 and alike[best] >= ALIKE else None)
    return found


def _fingerprints(
    items: Sequence[Item], broken: dict[str, None], name: Callable[[MediaRef], str], *, alike: bool
) -> tuple[dict[str, Array], Mapping[str, list[int]]]:
    """Digest -> fingerprint of every different medium, and the places of its items; `broken` as above."""
    found: dict[str, Array] = {}
    owners: dict[str, list[int]] = defaultdict(list)
    for place, item in enumerate(items):
        for medium in item.media:
            try:
                digest = name(medium)
                owners[digest].append(place)
                if alike and digest not in found and (made := fingerprint(medium)) is not None:
                    found[digest] = made
            except InputError as error:
                broken[f"{error.where}: {error.what}"] = None
    return found, owners


def fingerprint(medium: MediaRef) -> Array | None:
    """Bytes that survive another encoding of an image; None for another modality.

    First 256 bits of a difference hash (dHash, Krawetz, 2013): whether each point of a small grey copy is darker than
    the next one in its row. Then a copy of 16 x 16 pixels with its colours. InputError if the medium is broken.
    """
    if not isinstance(medium, ImageRef):
        return None
    picture = medium.open()
    grey = np.asarray(picture.convert("L").resize((SIDE + 1, SIDE)), np.int16)
    small = np.asarray(picture.convert("RGB").resize((SIDE, SIDE)))
    return np.concatenate([np.packbits(grey[:, 1:] > grey[:, :-1]), small.ravel()])


def near_media(test: Sequence[Array], train: Sequence[Array]) -> list[list[int]]:
    """For each test fingerprint, the places of its near duplicates in training, the nearest first.

    At most BITS_APART of 256 bits differ, and no point of the small copies by more than LEVELS_APART levels: the hash
    alone takes drawings with much background for equal, as the mean difference does.
    """
    if not train:
        return [[] for _ in test]
    known, bits = np.stack(train), SIDE * SIDE // 8
    found: list[list[int]] = []
    for one in test:
        apart = np.bitwise_count(known[:, :bits] ^ one[:bits]).sum(1)
        close = np.flatnonzero(apart <= BITS_APART)
        off = np.abs(known[close, bits:].astype(np.int16) - one[bits:]).max(1, initial=0)
        kept = off <= LEVELS_APART
        found.append(close[kept][np.argsort(off[kept], kind="stable")].tolist())
    return found
