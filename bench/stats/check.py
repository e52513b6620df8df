"""The tests of a comparison on simulated experiments whose truth is known: size, coverage, equivalence, power.

    python -m moextend.bench.stats.check [--experiments 2000]

prints the tables of docs/statistics.md. Nothing is read; the figures depend on the seed alone.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from moextend.bench import stats

if TYPE_CHECKING:
    from numpy import ndarray

    Array = ndarray[Any, Any]

SEEDS = (2, 3, 5, 10)
RUN_SDS = (0.0, 1.0, 2.0, 3.0, 5.0)
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


@dataclass(frozen=True)
class Found:
    """Shares of experiments, in percent."""

    rejected: float
    """p < 0.05 for the true difference as the null hypothesis: the size; 100 less it is the coverage."""
    against_zero: float
    """p < 0.05 for no difference."""
    items_only: float
    """Rejected where items are the only source of variance, as with one seed."""
    tasks_apart: float
    """Rejected where each task's images count as others than those of the other tasks."""
    equivalent: float
    """Two one-sided tests pass at the margin."""


def check(
    world: World, experiments: int, *, margin: float = 1.0, level: float = 0.05, seed: int = 0
) -> Found:
    """How often the tests say what in `experiments` experiments."""
    import numpy as np

    values, parts = simulate(world, experiments, np.random.default_rng(seed))
    means, off = values.mean(-1), abs(values.mean(-1) - world.difference)

    def half(deviations: Array, at: float, seeds: int) -> Array:
        over_seeds, items = stats.variances(values if seeds > 1 else means[:, None], deviations)
        sources = over_seeds, items + world.unseen
        found: Array = stats.half_width(at, *sources, seeds=seeds, clusters=deviations.shape[-1])
        return found

    def percent(hits: Array) -> float:
        return 100 * float(hits.mean())

    clusters, apart = by_cluster(world, parts), by_cluster(world, parts, apart=True)
    return Found(
        rejected=percent(off > half(clusters, level, world.seeds)),
        against_zero=percent(abs(means) > half(clusters, level, world.seeds)),
        items_only=percent(off > half(clusters.mean(1, keepdims=True), level, 1)),
        tasks_apart=percent(off > half(apart, level, world.seeds)),
        equivalent=percent(abs(means) + half(clusters, 2 * level, world.seeds) < margin),
    )


def truth(world: World, experiments: int = 1000, seed: int = 1) -> tuple[float, float]:
    """The two variances of the mean difference, averaged over many experiments: (seeds, items)."""
    import numpy as np

    values, parts = simulate(world, experiments, np.random.default_rng(seed))
    over_seeds, over_items = stats.variances(values, by_cluster(world, parts))
    return float(over_seeds.mean()), float(over_items.mean()) + world.unseen


def power(world: World, promised: float, experiments: int, seed: int = 0) -> tuple[float, float]:
    """The difference that a test should find with the promised power, and the percent in which it does find it."""
    known = truth(world)
    clusters = world.images * (1 if world.shared else world.tasks)
    least = stats.detectable(stats.LEVEL, *known, seeds=world.seeds, clusters=clusters, power=promised)
    return least, check(replace(world, difference=least), experiments, seed=seed).against_zero


def size_rows(
    experiments: int, seeds: Sequence[int] = SEEDS, sds: Sequence[float] = RUN_SDS
) -> list[list[str]]:
    """Rejections of a true null hypothesis."""
    rows = []
    for count in seeds:
        for sd in sds:
            found = check(World(seeds=count, run_sd=sd), experiments)
            numbers = [found.rejected, 100 - found.rejected, found.items_only, found.tasks_apart]
            rows.append([str(count), f"{sd:g}", *(f"{n:.1f}" for n in numbers)])
    return rows


OTHERS = {
    "one seed, shared images": World(seeds=1),
    "one seed, one task, 5 questions an image": World(seeds=1, tasks=1, images=60, an_image=5),
    "one seed, one question an image": World(seeds=1, an_image=1, shared=False, images=100),
    "3 seeds, images of each task its own": World(shared=False, run_sd=1.0),
    "3 seeds, 30 images": World(images=30, run_sd=1.0),
    "3 seeds, 30 images, all answers drawn again": World(images=30, run_sd=3.0, kept=0.0, alike=0.0),
    "5 seeds, all answers drawn again": World(seeds=5, kept=0.0, alike=0.0),
    "5 seeds, answers all kept": World(seeds=5, kept=1.0, alike=0.0, run_sd=1.0),
    "3 seeds, a difference of 4 points": World(run_sd=1.0, difference=4.0),
}
"""Name -> what else the size and the coverage are looked at for."""

POWERS = [
    World(seeds=s, run_sd=sd) for s, sd in ((1, 0.0), (2, 1.0), (3, 0.0), (3, 1.0), (5, 1.0), (10, 3.0))
]


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description="Simulates comparisons whose truth is known.")
    parser.add_argument("--experiments", type=int, default=2000, help="of each row")
    experiments = parser.parse_args().experiments
    head = ["seeds", "run sd", "size %", "coverage %", "items only %", "tasks apart %"]
    _print("Size", head, size_rows(experiments))
    rows = [[name, _size(world, experiments)] for name, world in OTHERS.items()]
    _print("Size elsewhere", ["experiment", "size %"], rows)
    worlds = [World(seeds=1, run_sd=sd, images=images) for images in (150, 600) for sd in (3.0, 5.0)]
    rows = [[str(world.images), f"{world.run_sd:g}", _size(world, experiments)] for world in worlds]
    _print("One seed, where runs differ", ["images", "run sd", "size %"], rows)
    rows = []
    for world in POWERS:
        least, found = power(world, stats.POWER, experiments)
        rows.append([str(world.seeds), f"{world.run_sd:g}", f"{least:.1f}", f"{found:.1f}"])
    _print("Power at the MDD", ["seeds", "run sd", "MDD", "found %"], rows)
    rows = []
    for margin in (1.0, 2.0, 4.0):
        at = [
            check(World(seeds=5, difference=d, images=600), experiments // 2, margin=margin)
            for d in (margin, 0.0)
        ]
        rows.append([f"{margin:g}", *(f"{found.equivalent:.1f}" for found in at)])
    _print("Equivalence", ["margin", "called at the margin %", "called at 0 %"], rows)


def _size(world: World, experiments: int) -> str:
    return f"{check(world, experiments).rejected:.1f}"


def _print(title: str, head: list[str], rows: list[list[str]]) -> None:
    print(f"\n### {title}\n")
    for row in [head, [":---"] + ["---:"] * (len(head) - 1), *rows]:
        print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
