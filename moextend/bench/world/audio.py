"""Audio encoder of the tiny base: a TinyAudio that names the notes and signs of melodies and utterances.

It learns with the truth of each moment: which timbre, register and length a note has or which sign is spoken, and
whether it belongs to the first, second, ... part of the sound.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from moextend.bench.world.base import recorded
from moextend.bench.world.hearing import Performance, Recital, draw_recital
from moextend.bench.world.language import Optimizers
from moextend.bench.world.scenes import Split
from moextend.bench.world.sound import MOST_NOTES, RATE, Melody, draw_melody
from moextend.bench.world.speech import NAMES, Utterance, draw_utterance
from moextend.bench.world.words import COLORS, NUMBERS, ROWS, SIZES
from moextend.model.tiny_audio import TinyAudio, TinyAudioConfig
from moextend.util.files import write_json

CONFIG = TinyAudioConfig(
    rate=RATE, fft=256, hop=80, mels=48, width=96, strides=(2, 2, 2), layers=2, heads=4, inner=192, seconds=30
)
"""A feature is 80 ms, about half a short note or half a vowel."""
STRIDE = CONFIG.hop * math.prod(CONFIG.strides)
"""Samples per feature."""
NOTHING = "none"
HEADS: dict[str, tuple[str, ...]] = {
    "color": (NOTHING, *COLORS),
    "row": (NOTHING, *ROWS),
    "size": (NOTHING, *SIZES),
    "sign": (NOTHING, *NAMES),
    "order": (NOTHING, *NUMBERS[1 : MOST_NOTES + 1]),
}
"""Classifier -> its classes; each moment has one of each."""
SCORED = 600
"""Number of test sounds that measure the encoder."""


@dataclass(frozen=True)
class Recipe:
    """Data, steps and seed of the training."""

    seed: int = 0
    sounds: int = 6000
    """Sounds in the training set: melodies, utterances and recitals."""
    steps: int = 700
    batch: int = 48
    adam: float = 2e-3
    muon: float = 0.02


class Example(NamedTuple):
    """A recording with the class of each feature."""

    samples: Tensor
    """[n]"""
    truth: dict[str, Tensor]
    """Head -> [features]"""


def build_heads(seed: int) -> nn.ModuleDict:
    """Untrained linear classifiers of features."""
    torch.manual_seed(seed)
    return nn.ModuleDict({name: nn.Linear(CONFIG.width, len(values)) for name, values in HEADS.items()})


def named(sound: Performance) -> list[dict[str, str]]:
    """Head -> class of each note or sign; what is left out is "none"."""
    found: list[dict[str, str]] = []
    match sound:
        case Melody():
            for order, note in zip(NUMBERS[1:], sound.notes, strict=False):
                found.append({"color": note.color, "row": note.row, "size": note.size, "order": order})
        case Utterance():
            for order, sign in zip(NUMBERS[1:], sound.signs, strict=False):
                found.append({"sign": sign, "order": order})
        case Recital():
            for order, t in zip(NUMBERS[1:], sound.things, strict=False):
                tone = {"color": t.color, "row": ROWS[t.row], "size": t.size, "order": order}
                found += [tone, {"sign": t.letter, "order": order}]
    return found


def example(sound: Performance) -> Example:
    """The recording of a sound, and what can be heard during each feature; silence is "none"."""
    samples, spans = sound.performed()
    truth = {head: torch.zeros(-(-len(samples) // STRIDE), dtype=torch.long) for head in HEADS}
    for (start, end), classes in zip(spans, named(sound), strict=True):
        inside = slice(int(start * RATE) // STRIDE, -(-int(end * RATE) // STRIDE))
        for head, name in classes.items():
            truth[head][inside] = HEADS[head].index(name)
    return Example(torch.from_numpy(samples), truth)


def draw_examples(seed: int, split: Split, count: int) -> list[Example]:
    """Recordings of a split: melodies, utterances and recitals in turn."""
    rng = random.Random(seed)
    draws: tuple[Callable[[random.Random, Split], Performance], ...]
    draws = (draw_melody, draw_utterance, draw_recital)
    return [example(draws[i % len(draws)](rng, split)) for i in range(count)]


def together(examples: Sequence[Example]) -> tuple[Example, Tensor]:
    """Recordings [B, n], padded with zeros, their classes [B, features], -100 behind them, and their lengths [B]."""
    pad = nn.utils.rnn.pad_sequence
    truth = {head: pad([one.truth[head] for one in examples], True, -100) for head in HEADS}
    lengths = torch.tensor([len(one.samples) for one in examples])
    return Example(pad([one.samples for one in examples], True), truth), lengths


def train_audio_model(model: TinyAudio, heads: nn.ModuleDict, recipe: Recipe) -> float:
    """Trains in place; returns the mean loss of the last 20 steps."""
    pool = draw_examples(recipe.seed, "train", recipe.sounds)
    rng = random.Random(recipe.seed)
    optimizers = Optimizers(
        nn.ModuleList([model, heads]), recipe.steps, _is_matrix, adam=recipe.adam, muon=recipe.muon
    )

    def loss_of() -> tuple[Tensor, Tensor]:
        batch, lengths = together(rng.sample(pool, recipe.batch))
        features = model(batch.samples, lengths)
        each = [
            functional.cross_entropy(heads[head](features).mT, right) for head, right in batch.truth.items()
        ]
        loss = torch.stack(each).sum()
        return loss, loss

    return optimizers.train("audio encoder", loss_of)


def _is_matrix(name: str, weight: Tensor) -> bool:
    return weight.dim() == 2 and "blocks" in name


@torch.no_grad()
def accuracies(model: TinyAudio, heads: nn.ModuleDict, examples: Sequence[Example]) -> dict[str, float]:
    """Percent of the features with a class other than "none" that a head names right."""
    hits = {head: list[Tensor]() for head in HEADS}
    for start in range(0, len(examples), 100):
        batch, lengths = together(examples[start : start + 100])
        features = model(batch.samples, lengths)
        for head, classes in batch.truth.items():
            hits[head].append((heads[head](features).argmax(-1) == classes)[classes > 0])
    return {head: round(100 * torch.cat(found).float().mean().item(), 1) for head, found in hits.items()}


def build(recipe: Recipe, out: Path) -> dict[str, Any]:
    """Trains the encoder and saves it under `out` with a record, which it returns."""
    torch.set_num_threads(1)  # one thread keeps the order of sums, so that builds are reproducible
    start = time.perf_counter()
    torch.manual_seed(recipe.seed)
    model, heads = TinyAudio(CONFIG), build_heads(recipe.seed)
    loss = train_audio_model(model, heads, recipe)
    model.save(out)
    scored = draw_examples(recipe.seed + 1, "test", SCORED)
    record = {
        **recorded(recipe),
        "parameters": sum(p.numel() for p in model.parameters()),
        "loss": round(loss, 4),
        "accuracy": accuracies(model, heads, scored),
        "seconds": round(time.perf_counter() - start),
    }
    write_json(out / "build.json", record)
    return record
