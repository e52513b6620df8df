"""Scenes as sounds, and what all sounds of the world have in common.

A scene with one thing in each column is recited from left to right: for each thing a note (its color is the timbre, its
row the register, its size the length), then the name of its letter. The shape cannot be heard.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np

from moextend.bench.world.scenes import GRID, Scene, Split, Thing, draw_scene
from moextend.bench.world.sound import (
    PERFORMERS,
    Melody,
    Note,
    Sound,
    describe,
    play,
    played,
    recorded,
    split_of,
    style_of,
)
from moextend.bench.world.speech import Utterance, pronounced, say, spell, voice_of
from moextend.bench.world.words import ROWS


@dataclass(frozen=True)
class Recital:
    """A scene, recited once by one performer, who plays and speaks."""

    scene: Scene
    performer: int = 0
    take: int = 0
    """Seed of pauses, loudness, intonation and background noise."""

    @property
    def things(self) -> tuple[Thing, ...]:
        """Things from left to right."""
        return tuple(sorted(self.scene.things, key=lambda thing: thing.column))

    def content(self) -> str:
        """What can be heard, as text."""
        return " ; ".join(f"{t.place} {t.size} {t.color} {t.letter}" for t in self.things) + " ."

    def split(self) -> Split | None:
        """Split of the scene; None for a performer of the other split."""
        split = self.scene.split()
        return split if split_of(self.performer, "", 1) == split else None


Performance = Melody | Utterance | Recital


def draw_recital(rng: random.Random, split: Split) -> Recital:
    """A recital of the split."""
    while True:
        scene = draw_scene(rng, split, least=GRID, most=GRID)
        found = Recital(scene, rng.randrange(PERFORMERS), rng.getrandbits(32))
        if len({thing.column for thing in scene.things}) == GRID and found.split() == split:
            return found


def recite(recital: Recital) -> Sound:
    """The sound of a recital, about 2 s."""
    rng = np.random.default_rng(recital.take)
    style, voice = style_of(recital.performer), voice_of(recital.performer)
    parts = []
    for thing in recital.things:
        note = Note(thing.color, ROWS[thing.row], thing.size)
        parts += [played(note, style, rng), pronounced(thing.letter, voice, rng)]
    return recorded(parts, (0.05, 0.08), rng)


def perform(what: Performance) -> Sound:
    """The sound of a melody, an utterance or a recital."""
    match what:
        case Melody():
            return play(what)
        case Utterance():
            return say(what)
    return recite(what)


def tell(what: Performance) -> str:
    """Full description of what can be heard; words of the tiny base."""
    match what:
        case Melody():
            return describe(what)
        case Utterance():
            return spell(what)
    return what.content()
