"""The tests of a comparison on simulated experiments whose truth is known: size, coverage, equivalence, power.

``python -m tests.bench.simulated --experiments 4000`` prints the tables of docs/statistics.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import TYPE_CHECKING, Any

from moextend.bench import stats
from moextend.bench.stats import planning
from moextend.bench.stats.planning import Design, Pilot

if TYPE_CHECKING:
    from numpy import ndarray

    Array = ndarray[Any, Any]

TASKS, SEEDS = (3, 5, 10, 20), (3, 5)
DEPTH = 20.0
"""Points that a run loses that collapses."""
BLOCK = 50
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
    metric: str = "ACC"
    """Or BWT: the last row less each task's own."""
    collapse: tuple[float, float] = (0.0, 0.0)
    """Shares of the runs of the two methods that lose DEPTH points in the last row."""

    @property
    def true(self) -> float:
        """Difference in expectation over all runs."""
        return self.difference - DEPTH * (self.collapse[0] - self.collapse[1])

    @property
    def rows(self) -> dict[int, float]:
        """Row (0 of its own stage, 1 the last) -> weight of a task."""
        return {1: 1 / self.tasks} if self.metric == "ACC" else {0: -1 / self.tasks, 1: 1 / self.tasks}

    @property
    def unseen(self) -> float:
        """What a report adds to the variance from items; see `stats.unseen`."""
        return self.tasks * stats.unseen(100 / self.tasks, self.images)


@dataclass(frozen=True)
class Drawn:
    """Experiments of a world."""

    scores: Array
    """[E, method, S], the metric of each run, in points."""
    parts: Array
    """[E, S, T, G], what each image adds to the difference in each task, less the mean."""
    here: Array
    """[E], the true difference of the weights that were trained: of these runs, over all items."""

    @property
    def values(self) -> Array:
        """[E, S], differences in points."""
        found: Array = self.scores[:, 0] - self.scores[:, 1]
        return found


def simulate(world: World, experiments: int, rng: Any) -> Drawn:
    """Experiments, drawn in blocks."""
    import numpy as np

    blocks = [_block(world, min(BLOCK, experiments - start), rng) for start in range(0, experiments, BLOCK)]
    return Drawn(
        *(np.concatenate([getattr(one, name) for one in blocks]) for name in ("scores", "parts", "here"))
    )


def _block(world: World, experiments: int, rng: Any) -> Drawn:
    import numpy as np

    e, s, t, g, q = experiments, world.seeds, world.tasks, world.images, world.an_image
    f = np.float32
    # axes: experiment, method, seed, task, image, question
    around = rng.uniform(-0.15, 0.15, (e, 2, 1, 1 if world.shared else t, g, 1)).astype(f)
    kept = rng.random((e, 2, 1, t, g, q), f)
    alike = rng.random((e, 2, 1, 1 if world.shared else t, g, 1), f)
    kind = rng.random((e, 1, 1, t, g, q), f)
    sums, here = np.zeros((e, 2, s, t, g)), np.zeros((e, 2, s))
    for row, weight in world.rows.items():
        run = rng.standard_normal((e, 2, s), f) * f(world.run_sd / 100)
        run -= f(DEPTH / 100) * (rng.random((e, 2, s)) < row * np.array(world.collapse)[:, None])
        run[:, 0] += f(world.difference / 100 * row)
        drawn = np.where(kind < world.kept, kept, rng.random((e, 2, s, t, g, q), f))
        drawn = np.where(kind > 1 - world.alike, alike, drawn)
        sums += 100 * weight / (g * q) * (drawn < f(0.6) + run[..., None, None, None] + around).sum(-1)
        here += 100 * weight * t * run
    difference = sums[:, 0] - sums[:, 1]
    here = (here[:, 0] - here[:, 1]).mean(-1)
    return Drawn(sums.sum((-1, -2)), difference - difference.mean(-1, keepdims=True), here)


def by_cluster(world: World, parts: Array, *, apart: bool = False) -> Array:
    """[E, S, T, G] -> [E, S, clusters]: an image is one cluster over all tasks, or, `apart`, one per task."""
    shaped: Array = parts.sum(2) if world.shared and not apart else parts.reshape(*parts.shape[:2], -1)
    return shaped


def check(
    world: World, experiments: int, *, margin: float = 1.0, level: float = 0.05, seed: int = 0
) -> dict[str, float]:
    """Percent of experiments in which the tests say something.

    size: p < 0.05 for the true difference as the null hypothesis; 100 less it is the coverage. these_runs: likewise for
    the difference of the weights that were trained. against_zero: p < 0.05 for no difference. items_only: the size
    where items are the only source of variance, as with one seed. tasks_apart: the size where each task's images count
    as others than those of the other tasks. equivalent: two one-sided tests pass at the margin. not_worse: a one-sided
    test excludes a loss of the margin.
    """
    import numpy as np

    drawn = simulate(world, experiments, np.random.default_rng(seed))
    values = drawn.values
    means, off = values.mean(-1), abs(values.mean(-1) - world.true)

    def half(deviations: Array, at: float, seeds: int) -> Array:
        over_seeds, items = stats.variances(values if seeds > 1 else means[:, None], deviations)
        sources = over_seeds, items + world.unseen
        found: Array = stats.half_width(at, *sources, seeds=seeds, clusters=deviations.shape[-1])
        return found

    clusters, apart = by_cluster(world, drawn.parts), by_cluster(world, drawn.parts, apart=True)
    alone = half(clusters.mean(1, keepdims=True), level, 1)
    hits = {
        "size": off > half(clusters, level, world.seeds),
        "these_runs": abs(means - drawn.here) > alone,
        "against_zero": abs(means) > half(clusters, level, world.seeds),
        "items_only": off > alone,
        "tasks_apart": off > half(apart, level, world.seeds),
        "equivalent": abs(means) + half(clusters, 2 * level, world.seeds) < margin,
        "not_worse": means - half(clusters, 2 * level, world.seeds) > -margin,
    }
    return {name: 100 * float(hit.mean()) for name, hit in hits.items()}


def power(world: World, promised: float, experiments: int) -> float:
    """Percent of experiments in which a test finds the difference that it should find with the promised power."""
    least = stats.detectable(
        stats.LEVEL, *_sources(world), seeds=world.seeds,
        clusters=world.images * (1 if world.shared else world.tasks), power=promised,
    )  # fmt: skip
    return check(replace(world, difference=least), experiments)["against_zero"]


def _sources(world: World) -> tuple[float, float]:
    """The variances of the mean over seeds from seeds and from items."""
    import numpy as np

    drawn = simulate(world, 1000, np.random.default_rng(1))
    over_seeds, over_items = stats.variances(drawn.values, by_cluster(world, drawn.parts))
    return float(over_seeds.mean()), float(over_items.mean()) + world.unseen


def pilots(world: World, experiments: int, seed: int = 1) -> list[Pilot]:
    """What experiments tell of the variances, each as a pilot."""
    import numpy as np

    drawn = simulate(world, experiments, np.random.default_rng(seed))
    return [
        planning.pilot_of(stats.contrast(list(values), parts, changed=99, floor=world.unseen))
        for values, parts in zip(drawn.values, by_cluster(world, drawn.parts), strict=True)
    ]


def delivered(world: World, effect: float, experiments: int) -> tuple[float, float, str]:
    """Power in percent that experiments have, in the mean, whose seeds are planned from pilots of this world.

    Also that of plans that take the pilot's variances for the true ones, and 10 to 90% of the planned seeds.
    """
    over_seeds, items = _sources(world)

    def true(seeds: int) -> float:
        return float(stats.power_of(
            effect, stats.LEVEL, over_seeds * world.seeds / seeds, items, seeds=seeds, clusters=world.images
        ))  # fmt: skip

    def seeds_of(pilot: Pilot) -> int:
        return planning.seeds_needed(pilot, Design(world.seeds), effect, stats.LEVEL) or planning.MOST_SEEDS

    found = pilots(world, experiments)
    sure = (replace(pilot, seeds=10**6, item_error=0.0) for pilot in found)
    seeds, plugged = sorted(map(seeds_of, found)), map(seeds_of, sure)
    most = f"{seeds[len(seeds) // 10]} to {seeds[-len(seeds) // 10]}"
    return 100 * fmean(map(true, seeds)), 100 * fmean(map(true, plugged)), most


def chosen_rows(tasks: int, seeds: int, experiments: int, sd: float = 1.0) -> float:
    """Percent of experiments in which a t test of FM against 0 finds forgetting, or the contrary, where there is none.

    Every cell of the matrix varies with the standard deviation alone.
    """
    import numpy as np

    rng = np.random.default_rng(0)
    matrix = sd * rng.standard_normal(
        (experiments, seeds, tasks, tasks)
    )  # row t, column i: after stage t + 1
    learned = np.where(np.tri(tasks, dtype=bool), matrix, -np.inf)[..., :-1, :-1]
    values = (learned.max(-2) - matrix[..., -1, :-1]).mean(-1)
    half = stats.half_width(stats.LEVEL, values.var(-1, ddof=1) / seeds, 0.0, seeds=seeds, clusters=2)
    return 100 * float((abs(values.mean(-1)) > half).mean())


METHODS = 11


def pooled(seeds: int, sd: float, collapse: float, experiments: int) -> list[float]:
    """Percent of t tests that reject for one of 11 methods, whose runs vary or collapse otherwise than the others'.

    With its own variance; with that of all methods where Bartlett's test does not reject equal ones at 25%; and with
    variances that are shrunken to a common one (empirical Bayes: Smyth, 2004).
    """
    import numpy as np
    from scipy.special import digamma, polygamma
    from scipy.stats import chi2, t

    rng, free = np.random.default_rng(0), seeds - 1
    runs = 2.0 * rng.standard_normal((experiments, METHODS, seeds))
    runs[:, 0] *= sd / 2
    runs[:, 0] -= DEPTH * (rng.random((experiments, seeds)) < collapse)
    mean, own = abs(runs[:, 0].mean(-1)), runs.var(-1, ddof=1)
    every = own.mean(-1)
    small = 1 + (METHODS + 1) / (3 * METHODS * free)
    equal = METHODS * free * np.log(every) - free * np.log(own).sum(-1) < small * chi2.ppf(0.75, METHODS - 1)
    logs = np.log(own) - digamma(free / 2) + np.log(free / 2)
    over = np.maximum(logs.var(-1, ddof=1) - polygamma(1, free / 2), 1e-9)
    prior = np.geomspace(1e-2, 1e4, 2000)  # degrees of freedom of the common variance
    known = np.interp(-over, -polygamma(1, prior / 2), prior)
    common = np.exp(logs.mean(-1) + digamma(known / 2) - np.log(known / 2))
    shrunken = (known * common + free * own[:, 0]) / (known + free)
    many = np.full(experiments, METHODS * free)
    variances = own[:, 0], np.where(equal, every, own[:, 0]), shrunken
    degrees = free, np.where(equal, many, free), np.minimum(known + free, many)
    return [
        100 * float((mean > t.ppf(0.975, df) * np.sqrt(variance / seeds)).mean())
        for variance, df in zip(variances, degrees, strict=True)
    ]


def table(*head: str, rows: Iterable[Sequence[object]]) -> None:
    """Prints a table in Markdown, row by row."""
    print(f"| {' | '.join(head)} |\n| {' | '.join(['---:'] * len(head))} |")
    for row in rows:
        words = (f"{cell:.1f}" if isinstance(cell, float) else str(cell) for cell in row)
        print(f"| {' | '.join(words)} |", flush=True)
    print()


SIZES: dict[str, tuple[str, dict[str, Any]]] = {
    "run sd 0": ("size", {}),
    "run sd 5": ("size", {"run_sd": 5.0}),
    "BWT": ("size", {"run_sd": 3.0, "metric": "BWT"}),
    "both collapse": ("size", {"run_sd": 2.0, "collapse": (0.2, 0.2)}),
    "one collapses: other runs": ("against_zero", {"run_sd": 2.0, "collapse": (0.2, 0.0)}),
    "mean of all runs": ("size", {"run_sd": 2.0, "collapse": (0.2, 0.0)}),
}
"""Column -> what is counted, see `check`, and the world."""
LOSS = 2.0
"""Points lost in the table of the gate, which are its margin."""


def main() -> None:
    """Prints the tables of docs/statistics.md."""
    parser = argparse.ArgumentParser(description="Simulates comparisons whose truth is known.")
    parser.add_argument("--experiments", type=int, default=2000, help="of each row")
    experiments = parser.parse_args().experiments
    sizes = (
        [tasks, seeds, *(size(tasks, seeds, column, experiments) for column in SIZES)]
        for tasks in TASKS
        for seeds in SEEDS
    )
    table("tasks", "seeds", *SIZES, rows=sizes)
    gate = (
        (
            seeds,
            sd,
            check(replace(many(1), seeds=seeds, run_sd=sd, difference=-LOSS), experiments, margin=LOSS),
        )
        for seeds, sd in ((1, 0.0), (3, 0.0), (3, 3.0), (5, 0.0), (5, 3.0))
    )
    names = {"kept": "not_worse", "these runs": "these_runs", "training again, by items alone": "items_only"}
    rows = ([seeds, sd, *(found[name] for name in names.values())] for seeds, sd, found in gate)
    table("seeds", "run sd", *names, rows=rows)
    planned = (
        [seeds, sd, effect, *delivered(World(seeds=seeds, run_sd=sd, images=600), effect, experiments // 10)]
        for seeds in SEEDS
        for sd, effect in ((2.0, 4.0), (4.0, 5.0), (4.0, 8.0))
    )
    table("pilot", "run sd", "effect", "delivered %", "by estimates %", "seeds", rows=planned)
    chosen = ([tasks, *(chosen_rows(tasks, seeds, experiments) for seeds in SEEDS)] for tasks in TASKS)
    table("tasks", "3 seeds", "5 seeds", rows=chosen)
    shared = (
        [seeds, sd, share, *pooled(seeds, sd, share, 5 * experiments)]
        for seeds in SEEDS
        for sd, share in ((2.0, 0.0), (6.0, 0.0), (2.0, 0.2))
    )
    table("seeds", "run sd", "share of collapses", "own variance", "pooled", "shrunken", rows=shared)


def size(tasks: int, seeds: int, column: str, experiments: int) -> float:
    """A cell of the table of sizes, in percent."""
    null, own = SIZES[column]
    return check(many(tasks, seeds=seeds, **own), experiments)[null]


def many(tasks: int, **settings: Any) -> World:
    """A world of so many tasks, with fewer images where there are many."""
    return World(tasks=tasks, images=150 if tasks < 5 else 60, **settings)


if __name__ == "__main__":
    main()
