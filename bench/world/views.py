"""Views: data sets that ask the same questions in another domain."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from moextend.bench.world.domains import DOMAINS, DRIFT, PLAIN, Domain
from moextend.bench.world.questions import ASKERS, Asker, Question, attributes
from moextend.bench.world.scenes import Scene

LOOKING = ("plain", "night", "pastel", "sketch", "negative", *(f"drift-{step + 1}" for step in range(DRIFT)))
"""Domains with a data set `DOMAIN-looking`."""


class View(NamedTuple):
    """Questions about scenes that are drawn in a domain."""

    asker: Asker
    domain: Domain = PLAIN

    def questions(self, scene: Scene) -> Iterator[Question]:
        """All questions about the scene, in the names of the domain."""
        return self.asker(self.domain.named(scene))


def looking(scene: Scene) -> Iterator[Question]:
    """Asks for the color, the shape and the letter at a place."""
    for t in scene.things:
        yield Question("color-at", f"what color at {t.place}", t.color)
        yield Question("shape-at", f"what shape at {t.place}", t.shape)
        yield Question("letter-at", f"which letter at {t.place}", t.letter)


def coloring(scene: Scene) -> Iterator[Question]:
    """Asks for the color at a place, of a shape and with a letter."""
    kinds = ("color-at", "color-of-shape", "color-of-letter")
    return (question for question in attributes(scene) if question.kind in kinds)


VIEWS: dict[str, View] = {
    **{f"{name}-looking": View(looking, DOMAINS[name]) for name in LOOKING},
    **{f"{name}-coloring": View(coloring, DOMAINS[name]) for name in ("bright", "dim", "dark")},
    **{f"dusk-{name}": View(asker, DOMAINS["dusk"]) for name, asker in ASKERS.items()},
}
"""Data set -> what is asked of it, and how it is drawn."""


def view_of(name: str) -> View:
    """The view of a data set about images; those of `ASKERS` are drawn plain."""
    return VIEWS.get(name) or View(ASKERS[name])
