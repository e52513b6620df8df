"""Test items that are in training."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING

from moextend.bench.audit import prints, texts
from moextend.bench.audit.limits import DUPLICATES
from moextend.bench.data import Item, open_items
from moextend.bench.data.items import asked
from moextend.bench.data.source import find_source, is_generated
from moextend.bench.score.majority import normalised
from moextend.bench.task import TaskSpec
from moextend.data.digests import FileDigests
from moextend.errors import InputError

if TYPE_CHECKING:
    from moextend.data.media import MediaRef

READ = 20_000
"""Most items of a split that are compared before a run."""


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
    if share < DUPLICATES.value or pair is None:
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
    learned, owners = _prints(train, broken, name, alike=alike)
    tested, _ = _prints(test, broken, name, alike=alike)
    names = list(learned)
    close = prints.near(list(tested.values()), list(learned.values()))
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


def _equal_texts(train: Sequence[Item], test: Sequence[Item], *, alike: bool) -> list[tuple[str, str]]:
    """Rows of the test items without media whose text is in training, each with a row of that text."""
    tested, learned = ([item for item in items if not item.media] for items in (test, train))
    known = texts.near([asked(item) for item in tested], [asked(item) for item in learned], alike=alike)
    return [(item.row, learned[at].row) for item, at in zip(tested, known, strict=True) if at is not None]


def _prints(
    items: Sequence[Item], broken: dict[str, None], name: Callable[[MediaRef], str], *, alike: bool
) -> tuple[dict[str, prints.Print], Mapping[str, list[int]]]:
    """Digest -> fingerprint of every different medium, and the places of its items; `broken` as above."""
    found: dict[str, prints.Print] = {}
    owners: dict[str, list[int]] = defaultdict(list)
    for place, item in enumerate(items):
        for medium in item.media:
            try:
                digest = name(medium)
                owners[digest].append(place)
                if alike and digest not in found and (made := prints.print_of(medium)) is not None:
                    found[digest] = made
            except InputError as error:
                broken[f"{error.where}: {error.what}"] = None
    return found, owners


def digest_of(medium: MediaRef, name: Callable[[MediaRef], str] = attrgetter("digest")) -> str:
    """Digest of a medium; "" if it cannot be read."""
    try:
        return name(medium)
    except InputError:
        return ""


def sample(items: Sequence[Item], task: TaskSpec, split: str, limit: int, notes: list[str]) -> list[Item]:
    """Items of a split, evenly taken if there are more than `limit`."""
    step = -(-len(items) // limit)
    taken = list(items[::step])
    if step > 1:
        notes.append(f"{task.task}: {len(taken):,} of the {len(items):,} {split} items were read (--limit)")
    return taken
