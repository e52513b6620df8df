"""Which extension an input belongs to, found without being told: `scope: auto`.

Each extension keeps the mean and the scatter of frozen features of its own inputs (the mean embedding of the text
tokens and the mean image feature); an input goes to the extension with the nearest mean under the shared covariance
(linear discriminant analysis), and to none where its text or its images are farther from that mean than those of the
extension's own held-out inputs. A later extension never changes the mean of an earlier one, and no raw data is kept.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from math import ceil, inf
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from moextend.data.images import MARK
from moextend.model.batches import Conversation
from moextend.model.feature_cache import See
from moextend.model.fingerprint import tensors_digest
from moextend.model.generation import Prompt
from moextend.model.multimodal import MultimodalLM
from moextend.moe import attach
from moextend.util import files

log = logging.getLogger(__name__)

FILE = "recogniser.safetensors"
RULE = "lda3"
"""Version of the rule that chooses; part of every fingerprint."""
REJECTED = 0.01
"""Share of an extension's own inputs that its threshold may reject."""
FEWEST = 39
"""Held-out inputs that thresholds need: with n of them no rate below 1 / (n + 1) can be promised for each."""
SLACK = 1e-4
"""Squared distance, for each feature of a part, by which an input may lie beyond a threshold. Where many inputs are
alike (one question for all), many distances equal the threshold, and rounding would decide about them."""
CHUNK = 64
"""Prompts whose images are encoded at a time."""


@dataclass(frozen=True, eq=False)
class Portrait:
    """What the inputs of one extension look like; two are equal where they are the same object."""

    mean: Tensor
    """[D]"""
    scatter: Tensor
    """[D, D]: sum of outer products of deviations from the mean."""
    count: int
    sample: Tensor
    """[n, D]: features of held-out inputs, which neither the mean nor the scatter was made from: they set the
    threshold."""
    sees: bool
    """Whether the inputs have images."""


@torch.no_grad()
def features(model: MultimodalLM, prompts: Sequence[Prompt], see: See | None = None) -> Tensor:
    """[prompts, H + vision width]: mean embedding of the text's tokens, then the mean image feature (0 without).

    `see`: the source of image features; None: the model's.
    """
    see = see or model.features or model.vision
    found = [_features(model, prompts[i : i + CHUNK], see) for i in range(0, len(prompts), CHUNK)]
    return torch.cat(found)


def _features(model: MultimodalLM, prompts: Sequence[Prompt], see: See | None) -> Tensor:
    texts = [prompt.text.replace(MARK, " ") for prompt in prompts]
    ids = [model.tokenizer(text, add_special_tokens=False)["input_ids"] or [0] for text in texts]
    flat = torch.tensor([token for row in ids for token in row], device=model.device)
    words = model.lm.get_input_embeddings()(flat).float().split([len(row) for row in ids])
    means = torch.stack([row.mean(0) for row in words]).cpu()
    seen = torch.zeros(len(prompts), model.vision.width if model.vision else 0)
    unique = {image.digest: image for prompt in prompts for image in prompt.images}
    if unique and see:
        known = dict(zip(unique, see(list(unique.values())), strict=True))
        for row, prompt in zip(seen, prompts, strict=True):
            if prompt.images:
                row.copy_(torch.cat([known[image.digest] for image in prompt.images]).mean(0))
    return torch.cat([means, seen], 1)


def portray(model: MultimodalLM, prompts: Sequence[Prompt], *, tested: int = 256) -> Portrait:
    """The portrait of an extension from its training prompts; the first `tested` of them only set the
    thresholds, and never more than half of them."""
    x = features(model, prompts)
    tested = min(tested, len(x) // 2)
    sample, x = x[:tested], x[tested:].double()
    deviation = x - x.mean(0)
    return Portrait(
        x.mean(0).float(), (deviation.T @ deviation).float(), len(x), sample, bool(prompts[0].images)
    )


def prompts_of(conversations: Sequence[Conversation]) -> list[Prompt]:
    """First questions, as `portray` takes them: of those with images, if there are any, else of all."""
    prompts = [
        Prompt(text, row.images[: text.count(MARK)]) for row in conversations for text, _ in row.turns[:1]
    ]
    return [prompt for prompt in prompts if prompt.images] or prompts


@dataclass(frozen=True)
class Threshold:
    """How far an input may be from the mean of an extension."""

    distances: tuple[float, ...]
    """Squared Mahalanobis distances, of the text and of the images; infinite where too few inputs were kept."""
    rejected: float
    """At most this share of the extension's own inputs is farther (false rejections), in expectation, 0..1."""


def threshold(distances: Sequence[Tensor]) -> Threshold:
    """The threshold that held-out distances set, [n] for each part of the features.

    With p parts each gets the ceil((n + 1)(1 - `REJECTED` / p))-th smallest of its distances, the largest where that
    is beyond n. A further input of the same distribution is as likely to take any place among them, so that it is
    farther in a part with a probability of at most 1 - rank / (n + 1) (split conformal prediction).
    """
    n, parts = len(distances[0]), len(distances)
    if n < FEWEST:
        return Threshold((inf,) * parts, 0.0)
    rank = min(n, ceil((n + 1) * (1 - REJECTED / parts)))
    kept = tuple(float(each.sort().values[rank - 1]) for each in distances)
    return Threshold(kept, parts * (1 - rank / (n + 1)))


class _Space:
    """Extensions that take the same kind of input, and the shared covariance of their inputs, factorised once.

    Features are scaled to unit variance, and the covariance is shrunk by a hundredth; without the scale, features
    of large numbers (images) would drown the others (text). Which extension is nearest is decided by all features;
    whether it is near enough by text and images apart: else a text as usual would make up for any image.
    """

    def __init__(self, portraits: Mapping[str, Portrait], parts: Sequence[slice]) -> None:
        self.names = list(portraits)
        means = torch.stack([p.mean for p in portraits.values()]).double()
        within = torch.zeros(means.shape[1], means.shape[1], dtype=torch.double)
        for portrait in portraits.values():
            within += portrait.scatter
        within /= sum(p.count for p in portraits.values())
        scale = (within.diagonal() + means.var(0, correction=0)).sqrt()
        self._scale = torch.where(scale > 0, scale, 1.0)
        within /= self._scale
        within /= self._scale[:, None]
        within.diagonal().add_(0.01)
        self._means = means / self._scale
        factor = torch.linalg.cholesky(within)
        self._whole = (slice(None), factor)
        # A leading block of the factor is the factor of the leading block.
        self._parts = [
            (part, factor[part, part] if not part.start else torch.linalg.cholesky(within[part, part]))
            for part in parts
        ]
        samples = [self._apart(p.sample) for p in portraits.values()]
        self.thresholds = [threshold([d[:, i] for d in ds]) if ds else None for i, ds in enumerate(samples)]

    def _distances(self, x: Tensor, part: slice, factor: Tensor) -> Tensor:
        """Squared Mahalanobis distances [n, extensions] of scaled features [n, D], by a part of them."""
        z, means = (
            torch.linalg.solve_triangular(factor, y[:, part].T, upper=False).T for y in (x, self._means)
        )
        return torch.stack([(z - mean).square().sum(1) for mean in means], 1)

    def _apart(self, x: Tensor) -> list[Tensor]:
        """The distances by each part, of features [n, D]."""
        return [self._distances(x.double() / self._scale, *part) for part in self._parts]

    def nearest(self, x: Tensor) -> list[int]:
        """The place of the nearest extension for features [n, D]."""
        found: list[int] = self._distances(x.double() / self._scale, *self._whole).argmin(1).tolist()
        return found

    def near_enough(self, x: Tensor, places: Sequence[int]) -> list[bool]:
        """Whether features [n, D] lie within the thresholds of the extensions at `places`."""
        within = torch.ones(len(x), dtype=torch.bool)
        for i, distances in enumerate(self._apart(x)):
            limits = torch.tensor(
                [known.distances[i] for known in self.thresholds if known], dtype=torch.double
            )
            own = torch.tensor(places)
            slack = SLACK * len(self._parts[i][1])
            within &= distances.gather(1, own[:, None]).squeeze(1) <= limits[own] + slack
        return within.tolist()


class Rule:
    """Chooses among extensions by what their inputs look like; the covariances are factorised here, once."""

    def __init__(self, portraits: Mapping[str, Portrait], words: int | None = None) -> None:
        """Args: words: width of the text's part of the features; None: the rule knows no thresholds."""
        self._spaces: dict[bool, _Space] = {}
        for sees in (False, True):
            fitting = {name: portrait for name, portrait in portraits.items() if portrait.sees == sees}
            parts = [] if words is None else [slice(0, words), *([slice(words, None)] if sees else [])]
            if fitting:
                self._spaces[sees] = _Space(fitting, parts)

    @property
    def thresholds(self) -> dict[str, Threshold]:
        """Of every extension, under the covariance that all of them share now."""
        known = [pair for s in self._spaces.values() for pair in zip(s.names, s.thresholds, strict=True)]
        return {name: threshold for name, threshold in known if threshold is not None}

    def nearest(self, x: Tensor, sees: bool) -> list[str | None]:
        """For features [n, D] the nearest extension that takes such inputs (with or without images), however far.

        None where there is none.
        """
        space = self._spaces.get(sees)
        return [space.names[i] for i in space.nearest(x)] if space else [None] * len(x)

    def choose(self, x: Tensor, sees: bool) -> list[str | None]:
        """The nearest extension, or None where the input lies beyond its threshold."""
        space = self._spaces.get(sees)
        if space is None:
            return [None] * len(x)
        places = space.nearest(x)
        near = space.near_enough(x, places)
        return [space.names[i] if ok else None for i, ok in zip(places, near, strict=True)]


def accuracy(portraits: Mapping[str, Portrait]) -> dict[str, float]:
    """Name -> share of the held-out inputs whose nearest extension is their own, 0..1; thresholds left aside.

    An extension of one input has none that is held out, and is not named.
    """
    rule, found = Rule(portraits), {}
    for name, portrait in portraits.items():
        taken = rule.nearest(portrait.sample, portrait.sees)
        if taken:
            found[name] = sum(other == name for other in taken) / len(taken)
    return found


class Recogniser:
    """Chooses the extension of each prompt; see `generation.generate`."""

    def __init__(
        self,
        model: MultimodalLM,
        portraits: Mapping[str, Portrait],
        reaching: Callable[[Sequence[str]], AbstractContextManager[None]] | None = None,
    ) -> None:
        self.model, self.portraits = model, dict(portraits)
        self._reaching = reaching or partial(attach.reaching, model.lm)
        self._made_of: dict[str, Portrait] = {}
        self._rule = Rule({})
        for name, portrait in portraits.items():
            if len(portrait.sample) < FEWEST:
                log.warning(
                    "Extension '%s' kept %d held-out inputs, too few for a threshold (%d): it takes every input "
                    "that is nearest to it, however far.", name, len(portrait.sample), FEWEST,
                )  # fmt: skip

    @property
    def rule(self) -> Rule:
        """The rule of the portraits as they are now; made again only where one came or went."""
        if self._made_of != self.portraits:
            words = self.model.lm.get_input_embeddings().weight.shape[1]
            self._rule, self._made_of = Rule(self.portraits, words), dict(self.portraits)
        return self._rule

    def reaching(self, names: Sequence[str]) -> AbstractContextManager[None]:
        """Within it, only these extensions compute (or what else `reaching` makes of the names)."""
        return self._reaching(names)

    def fingerprint(self) -> str:
        """Names the rule and the portraits."""
        known = {f"{name}.mean": p.mean for name, p in self.portraits.items()}
        known |= {f"{name}.scatter": p.scatter for name, p in self.portraits.items()}
        known |= {f"{name}.sample": p.sample for name, p in self.portraits.items()}
        return f"{RULE}-{tensors_digest(known)}"

    def __call__(self, prompts: Sequence[Prompt], see: See | None = None) -> list[tuple[str, ...]]:
        """The extensions that each prompt may reach: one, or none; `see`: the source of image features."""
        found: list[tuple[str, ...]] = [()] * len(prompts)
        for sees in (False, True):
            places = [i for i, prompt in enumerate(prompts) if bool(prompt.images) == sees]
            if not places or not any(portrait.sees == sees for portrait in self.portraits.values()):
                continue
            x = features(self.model, [prompts[i] for i in places], see)
            for i, name in zip(places, self.rule.choose(x, sees), strict=True):
                found[i] = (name,) if name else ()
        return found

    def shares(self, prompts: Sequence[Prompt]) -> dict[str, float]:
        """Extension ("": none, the base answers) -> share of the prompts that reach it, 0..1."""
        counts = Counter(names[0] if names else "" for names in self(prompts))
        return {name: counts[name] / len(prompts) for name in ("", *self.portraits)}


def write(portrait: Portrait, folder: Path) -> None:
    """Keeps a portrait beside an extension."""
    tensors = {
        "mean": portrait.mean,
        "scatter": portrait.scatter,
        "count": torch.tensor(portrait.count),
        "sample": portrait.sample.contiguous(),
        "sees": torch.tensor(portrait.sees),
    }
    with files.atomic(folder / FILE) as path:
        save_file(tensors, path)


def read(folder: Path) -> Portrait:
    """The portrait that `write` kept."""
    kept = load_file(folder / FILE)
    return Portrait(kept["mean"], kept["scatter"], int(kept["count"]), kept["sample"], bool(kept["sees"]))
