"""What can be read from the features of frozen encoders: linear probes, without the language model."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from moextend.bench.data import Item
from moextend.bench.score.majority import Majority, question_forms
from moextend.bench.scorers import Answered, is_lettered, own_answer, score_set
from moextend.bench.sequence import Base
from moextend.bench.task import TaskSpec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from moextend.data.media import MediaRef
    from moextend.model.modality import See

    Vector = NDArray[np.float32]

LEARNED, SCORED = 2000, 1000
"""Most items that the probes of a task are trained and scored on, evenly taken."""
SUPPORT = 50
"""Training questions of a form that has a probe of its own."""
BATCH = 64
"""Media that are pooled at once."""


def feature_sources(base: Base, workspace: Path) -> dict[str, See]:
    """Modality -> features by the encoder of a base, kept where the runs of a workspace keep them.

    Raises:
        InputError: an encoder cannot be found or loaded.
    """
    from moextend.model.feature_store import FeatureStore
    from moextend.model.loading import make_encoder

    folder = workspace / ".cache" / "features"
    return {
        modality: FeatureStore(make_encoder(modality, name, base.resize), folder)
        for modality, name in base.encoders_in(workspace).items()
    }


def probe_level(
    task: TaskSpec, train: Sequence[Item], test: Sequence[Item], sources: Mapping[str, See]
) -> float | None:
    """Score in percent of linear probes on the features of the media; None without media that are encoded.

    Modalities that no training item has are left out.

    Each question form (see `Majority`) with 50 training questions has a ridge classifier of its own, whose penalty is
    chosen by leave-one-out on training items. Its input are the mean and the maximum over the tokens of a medium. A
    linear classifier binds nothing across tokens, so this is a lower bound of what a model can learn.
    """
    learned, asked = _some(train, LEARNED), _some(test, SCORED)
    if not learned or not sources.keys() & {medium.modality for item in asked for medium in item.media}:
        return None
    vectors = _vectors([*learned, *asked], sources)
    widths = {
        medium.modality: len(vectors[medium.digest])
        for item in learned
        for medium in item.media
        if medium.modality in sources
    }
    if not widths:
        return None
    inputs = _inputs(learned, vectors, widths), _inputs(asked, vectors, widths)
    answers = _answers(task, learned, asked, *inputs)
    return 100 * score_set(task.scorer, [Answered.by(*one) for one in zip(answers, asked, strict=True)]).value


def _some(items: Sequence[Item], most: int) -> list[Item]:
    """At most `most` items, evenly taken."""
    return list(items[:: max(1, -(-len(items) // most))])


def _vectors(items: Sequence[Item], sources: Mapping[str, See]) -> dict[str, Vector]:
    """Digest of a medium -> mean and maximum over its tokens, [2 x width]."""
    import torch

    media: dict[str, dict[str, MediaRef]] = {modality: {} for modality in sources}
    for item in items:
        for medium in item.media:
            if medium.modality in media:
                media[medium.modality].setdefault(medium.digest, medium)
    found = {}
    for modality, see in sources.items():
        each = list(media[modality].values())
        for at in range(0, len(each), BATCH):
            part = each[at : at + BATCH]
            for medium, tokens in zip(part, see(part), strict=True):
                found[medium.digest] = torch.cat([tokens.mean(0), tokens.amax(0)]).numpy()
    return found


def _inputs(items: Sequence[Item], vectors: Mapping[str, Vector], widths: Mapping[str, int]) -> Vector:
    """Per item the mean vector of its media of each modality, side by side; zeros where it has none.

    `widths`: modality -> size of its vectors.
    """
    import numpy as np

    parts = []
    for modality, width in widths.items():
        own = [[vectors[m.digest] for m in item.media if m.modality == modality] for item in items]
        blank = np.zeros(width, np.float32)
        parts.append(np.stack([np.mean(each, axis=0) if each else blank for each in own]))
    return np.concatenate(parts, axis=1)


def _answers(
    task: TaskSpec, train: Sequence[Item], test: Sequence[Item], learned: Vector, asked: Vector
) -> list[str]:
    """Answers of the probes; the majority answer where all training questions of a form have the same."""
    majority, targets = Majority(task, train), [own_answer(task.scorer, item) for item in train]
    places: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for place, item in enumerate(train):
        for form in question_forms(item):
            places[form].append(place)
    groups: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for place, item in enumerate(test):
        fit = (form for form in question_forms(item) if not form or len(places[form]) >= SUPPORT)
        groups[next(fit)].append(place)
    answers = [majority(item) for item in test]
    for form, members in groups.items():
        own = places[form]
        if len({targets[place] for place in own}) > 1:
            ranked = _ranked(learned[own], [targets[place] for place in own], asked[members])
            for place, order in zip(members, ranked, strict=True):
                answers[place] = _allowed(task, test[place], order)
    return answers


def _ranked(learned: Vector, targets: Sequence[str], asked: Vector) -> list[list[str]]:
    """Answers of a ridge classifier to each input, the best first."""
    import numpy as np
    from sklearn.linear_model import RidgeClassifierCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    probe = make_pipeline(StandardScaler(), RidgeClassifierCV(alphas=np.logspace(1, 5, 9)))
    scores = probe.fit(learned, targets).decision_function(asked)
    if scores.ndim == 1:  # of two classes only the score of the second
        scores = np.stack([-scores, scores], axis=1)
    return [[str(probe.classes_[place]) for place in row] for row in np.argsort(-scores, axis=1)]


def _allowed(task: TaskSpec, item: Item, order: Sequence[str]) -> str:
    """The best answer that is among the choices of the item, if they are texts."""
    if item.choices and not is_lettered(task.scorer):
        return next((answer for answer in order if answer in item.choices), item.choices[0])
    return order[0]
