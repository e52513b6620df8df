"""Measures the vision encoder: linear probes on its patch tokens, and retrieval of captions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from moextend.bench.world.domains import PLAIN, Domain
from moextend.bench.world.scenes import Scene
from moextend.bench.world.vision import caption_ids, patch_features, pixels, probe_scenes
from moextend.bench.world.words import COLORS, LETTERS, SHAPES, SIZES

VALUES = {"color": COLORS, "shape": SHAPES, "size": SIZES, "letter": LETTERS}


def probe_accuracies(
    model: Any, seed: int, learned: int = 3000, scored: int = 500, domain: Domain = PLAIN
) -> dict[str, float]:
    """Percent of things in test scenes whose attribute a linear probe predicts from the token of their cell.

    The probe is trained and scored on pictures of the domain.
    """
    train, test = probe_scenes(seed, learned, "train"), probe_scenes(seed + 1, scored, "test")
    train_x, test_x = _thing_tokens(model, train, domain), _thing_tokens(model, test, domain)
    mean, std = train_x.mean(0), train_x.std(0)
    train_x, test_x = (train_x - mean) / std, (test_x - mean) / std
    accuracies = {}
    for attribute, values in VALUES.items():
        classifier = _linear_probe(train_x, _labels(train, attribute), len(values), seed)
        hits = classifier(test_x).argmax(-1) == _labels(test, attribute)
        accuracies[attribute] = round(100 * hits.float().mean().item(), 1)
    return accuracies


def _thing_tokens(model: Any, scenes: list[Scene], domain: Domain) -> Tensor:
    features = patch_features(model, pixels(scenes, domain))
    return torch.stack([features[i, t.cell] for i, scene in enumerate(scenes) for t in scene.things])


def _labels(scenes: list[Scene], attribute: str) -> Tensor:
    values = VALUES[attribute]
    return torch.tensor([values.index(getattr(t, attribute)) for scene in scenes for t in scene.things])


def _linear_probe(x: Tensor, y: Tensor, classes: int, seed: int, steps: int = 300) -> nn.Linear:
    torch.manual_seed(seed)
    classifier = nn.Linear(x.shape[1], classes)
    optimizer = torch.optim.AdamW(classifier.parameters(), lr=0.03, weight_decay=1e-3)
    for _ in range(steps):
        loss = functional.cross_entropy(classifier(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return classifier.requires_grad_(False)


@torch.no_grad()
def retrieval(model: Any, seed: int, count: int = 100) -> float:
    """Percent of test images whose caption is the nearest of `count` captions."""
    scenes = probe_scenes(seed, count, "test")
    image = model.encode_image(pixels(scenes), normalize=True)
    text = model.encode_text(caption_ids(scenes), normalize=True)
    hits = (image @ text.T).argmax(1) == torch.arange(count)
    return round(100 * float(hits.float().mean()), 1)


def feature_scale(model: Any, seed: int, count: int = 500) -> float:
    """Standard deviation of the raw patch tokens over training scenes; a projector divides by it."""
    features = patch_features(model, pixels(probe_scenes(seed, count, "train")))
    return float(features.std())
