"""The tests of a comparison on simulated experiments whose truth is known: size, coverage, equivalence, power.

``python -m tests.bench.simulated --experiments 4000`` prints the table of docs/statistics.md.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from moextend.bench import stats

if TYPE_CHECKING:
    from numpy import ndarray

    Array = ndarray[Any, Any]

ROWS = ((2, 0.0), (2, 5.0), (3, 0.0), (3, 3.0), (3, 5.0), (5, 3.0), (10, 5.0))
"""Seeds and run sd of the rows of docs/statistics.md."""
BLOCK = 100
"""Experiments at a time, to bound memory."""


@dataclass(frozen=True)
class World:
    """Two methods that answer the same items in several runs.

    An answer is right if a uniform number is below 0.6, plus what the method's run adds, plus what the method adds on
    this image. The uniform number is drawn for every answer, or once for all runs of a method (`kept`, the answers
    that retraining does not change), or once for all questions of an image (`alike`).
    """

    seeds: int = 3
    run_sd: float = 0.0
    """Points, of each method's accuracy over its runs."""
    tasks: int = 3
    images: int = 150
    """Of a task; shared by all tasks or not."""
    an_image: int = 2
    """Questions a task about one image."""
    shared: bool = True
    kept: float = 0.6
    alike: float = 0.3
    difference: float = 0.0
    """True difference in points."""

    @property
    def unseen(self) -> float:
        """What a report adds to the variance from items; see `stats.unseen`."""
        return self.tasks * stats.unseen(100 / self.tasks, self.images)


def simulate(world: World, experiments: int, rng: Any) -> tuple[Array, Array]:
    """Differences [E, S] in points, and what each image adds to them in each task [E, S, T, G]."""
    import numpy as np

    blocks = [_block(world, min(BLOCK, experiments - start), rng) for start in range(0, experiments, BLOCK)]
    values, deviations = zip(*blocks, strict=True)
    return np.concatenate(values), np.concatenate(deviations)


def _block(world: World, experiments: int, rng: Any) -> tuple[Array, Array]:
    import numpy as np

    e, s, t, g, q = experiments, world.seeds, world.tasks, world.images, world.an_image
    f = np.float32
    # axes: experiment, method, seed, task, image, question
    run = rng.standard_normal((e, 2, s, 1, 1, 1), f) * f(world.run_sd / 100)
    around = rng.uniform(-0.15, 0.15, (e, 2, 1, 1 if world.shared else t, g, 1)).astype(f)
    level = f(0.6) + run + around
    level[:, 0] += f(world.difference / 100)
    fresh = rng.random((e, 2, s, t, g, q), f)
    kept = rng.random((e, 2, 1, t, g, q), f)
    alike = rng.random((e, 2, 1, 1 if world.shared else t, g, 1), f)
    kind = rng.random((e, 1, 1, t, g, q), f)
    drawn = np.where(kind < world.kept, kept, fresh)
    drawn = np.where(kind > 1 - world.alike, alike, drawn)
    right = (drawn < level).astype(f)
    difference = 100 * (right[:, 0] - right[:, 1]).sum(-1) / (g * q * t)  # what an image adds, task by task
    centred = difference - difference.mean(-1, keepdims=True)
    return difference.sum((-1, -2)).astype(float), centred.astype(float)


def by_cluster(world: World, parts: Array, *, apart: bool = False) -> Array:
    """[E, S, T, G] -> [E, S, clusters]: an image is one cluster over all tasks, or, `apart`, one per task."""
    shaped: Array = parts.sum(2) if world.shared and not apart else parts.reshape(*parts.shape[:2], -1)
    return shaped


def check(
    world: World, experiments: int, *, margin: float = 1.0, level: float = 0.05, seed: int = 0
) -> dict[str, float]:
    """Percent of experiments in which the tests say something.

    size: p < 0.05 for the true difference as the null hypothesis; 100 less it is the coverage. against_zero: p < 0.05
    for no difference. items_only: the size where items are the only source of variance, as with one seed. tasks_apart:
    the size where each task's images count as others than those of the other tasks. equivalent: two one-sided tests
    pass at the margin.
    """
    import numpy as np

    values, parts = simulate(world, experiments, np.random.default_rng(seed))
    means, off = values.mean(-1), abs(values.mean(-1) - world.difference)

    def half(deviations: Array, at: float, seeds: int) -> Array:
        over_seeds, items = stats.variances(values if seeds > 1 else means[:, None], deviations)
        sources = over_seeds, items + world.unseen
        found: Array = stats.half_width(at, *sources, seeds=seeds, clusters=deviations.shape[-1])
        return found

    clusters, apart = by_cluster(world, parts), by_cluster(world, parts, apart=True)
    hits = {
        "size": off > half(clusters, level, world.seeds),
        "against_zero": abs(means) > half(clusters, level, world.seeds),
        "items_only": off > half(clusters.mean(1, keepdims=True), level, 1),
        "tasks_apart": off > half(apart, level, world.seeds),
        "equivalent": abs(means) + half(clusters, 2 * level, world.seeds) < margin,
    }
    return {name: 100 * float(hit.mean()) for name, hit in hits.items()}


def power(world: World, promised: float, experiments: int) -> float:
    """Percent of experiments in which a test finds the difference that it should find with the promised power."""
    import numpy as np

    values, parts = simulate(world, 1000, np.random.default_rng(1))
    over_seeds, over_items = stats.variances(values, by_cluster(world, parts))
    least = stats.detectable(
        stats.LEVEL, float(over_seeds.mean()), float(over_items.mean()) + world.unseen, seeds=world.seeds,
        clusters=world.images * (1 if world.shared else world.tasks), power=promised,
    )  # fmt: skip
    return check(replace(world, difference=least), experiments)["against_zero"]


def main() -> None:
    """Prints the table of docs/statistics.md."""
    parser = argparse.ArgumentParser(description="Simulates comparisons whose truth is known.")
    parser.add_argument("--experiments", type=int, default=2000, help="of each row")
    experiments = parser.parse_args().experiments
    print("| seeds | run sd | size % | coverage % | items only % | tasks apart % |")
    print("| :--- | ---: | ---: | ---: | ---: | ---: |")
    for seeds, sd in ROWS:
        found = check(World(seeds=seeds, run_sd=sd), experiments)
        numbers = [found["size"], 100 - found["size"], found["items_only"], found["tasks_apart"]]
        print(f"| {seeds} | {sd:g} | {' | '.join(f'{number:.1f}' for number in numbers)} |", flush=True)


if __name__ == "__main__":
    main()
