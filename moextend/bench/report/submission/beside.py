"""Checks of submitted runs beside published ones and each other: base, row 0, seeds, answers, data and costs."""

from __future__ import annotations

from collections.abc import Mapping

from moextend.bench.report.collect import Result
from moextend.bench.report.submission.plausible import Costs, Likeness
from moextend.bench.report.submission.submitted import Problem, Submission, made, some
from moextend.bench.report.verify import Check
from moextend.bench.run.inputs import weights_parts
from moextend.bench.run.rundir import Cell, run_name
from moextend.errors import counted, listed

LEAST_SEEDS = 3
"""Runs of a method: consecutive seeds, from the first published one of the sequence, or from 0."""
POINTS, ITEMS = 2.0, 4
"""Row 0 may differ from the published one by so many points, or by so many items if these are more points: projectors
aligned on another machine have other last bits. Published runs of one seed from two machines differ by 3 items."""


def _first(result: Result) -> Cell | None:
    return next((cell for (stage, _), cell in sorted(result.cells.items()) if stage == 0), None)


def base(submission: Submission) -> Check:
    """Weights of base and encoders, beside those of published runs that name the same."""
    known: dict[str, dict[str, str]] = {}
    for other in submission.published:
        if not other.config.scored and (cell := _first(other)):
            known.setdefault(_named_base(other), {}).update(weights_parts(cell.weights))
    elsewhere: dict[tuple[str, ...], set[str]] = {}
    for result in submission.results:
        if result.config.scored and (cell := _first(result)):
            elsewhere.setdefault(_method(result), set()).add(cell.weights)
    several = [key[1] for key, weights in elsewhere.items() if len(weights) > 1]
    problems: list[Problem] = [
        ("its seeds have different bases, so no table has them all", one) for one in several
    ]
    compared = 0
    for result in submission.results:
        wanted, cell = known.get(_named_base(result)), _first(result)
        if result.config.scored or wanted is None:
            continue
        compared += 1
        own = weights_parts(cell.weights) if cell else {}
        for part, one in wanted.items():
            if own.get(part, one if own else "") != one:
                problems.append(
                    (
                        f"the {part} have the fingerprint {own.get(part) or 'none'}, published {one}",
                        result.name,
                    )
                )
    done = f"{counted(compared, 'run')}, fingerprints as published"
    unchecked = "" if compared else "no published run names this base"
    return made("base", problems, done, "Run with the base of the sequence.", unchecked=unchecked)


def _named_base(result: Result) -> str:
    base = result.config.sequence.get("base") or {}
    return str({key: one for key, one in base.items() if one is not None})


def row0(submission: Submission) -> Check:
    """Row 0 beside that of a published run of the same seed, and of other runs of the submission."""
    problems: list[Problem] = []
    largest, compared, alone = 0.0, 0, list[str]()
    for result in submission.results:
        like = [*submission.alike(result)]
        first = [one for one in submission.results if one.config.seed == result.config.seed
                 and one.config.experiment() == result.config.experiment()]  # fmt: skip
        if result.config.scored:  # each has a base of its own
            like, first = ([one for one in each if _same_row0(result, one)] for each in (like, first))
        same = [other for other in like if other.config.seed == result.config.seed]
        alone += [] if same else [result.name]
        same = same or first[:1] or [result]
        compared += 1
        apart = min((_apart(result, other) for other in same), key=lambda found: len(found[0]))
        largest = max(largest, apart[1])
        problems += [(what, result.name) for what in apart[0]]
        seeds = {other.config.seed for other in like if _same_row0(result, other)}
        if (
            seeds
            and result.config.seed not in seeds
            and result.config.seed in {one.config.seed for one in like}
        ):
            problems.append((f"row 0 is that of seed {min(seeds)} of published runs", result.name))
    done = f"{counted(compared, 'run')}, at most {largest:.1f} points apart"
    what = "base" if all(result.config.scored for result in submission.results) else "seeds"
    rest = f"no published run has the {what} of {some(alone)}" if alone else ""
    hint = "Run with the base, alignment and seed of the sequence."
    unchecked = rest if len(alone) == compared else ""
    return made("row 0", problems, f"{done}{f'; {rest}' if rest else ''}", hint, unchecked=unchecked)


def _apart(one: Result, other: Result) -> tuple[list[str], float]:
    """What differs in two rows 0 by more than machines do, and the largest difference in points."""
    found, largest = [], 0.0
    for (stage, task), cell in one.cells.items():
        wanted = other.cells.get((stage, task))
        if stage or wanted is None:
            continue
        difference = abs(cell.value - wanted.value)
        largest = max(largest, difference)
        if difference > max(POINTS, 100 * ITEMS / max(wanted.n, 1)) or cell.n != wanted.n:
            found.append(
                f"{task} of the base is {cell.value:.1f} ({cell.n} items), published {wanted.value:.1f} ({wanted.n})"
            )
    return found, largest


def _same_row0(one: Result, other: Result) -> bool:
    """Whether two runs have the same weights in row 0, which alignment makes different ones for each seed."""
    first, second = _first(one), _first(other)
    return first is not None and second is not None and first.weights == second.weights


def seeds(submission: Submission) -> Check:
    """The first seeds of every method, none left out, and none for a row that is published."""
    found: dict[tuple[str, ...], set[int]] = {}
    for result in submission.results:
        found.setdefault(_method(result), set()).add(result.config.seed)
    rows = {_method(other) for other in submission.published}
    published: dict[str, int] = {}
    for other in submission.published:
        name, seed = _method(other)[0], other.config.seed
        published[name] = min(seed, published.get(name, seed))
    first = {key: published.get(key[0], 0) for key in found}
    problems = [
        (f"has the seeds {', '.join(map(str, sorted(seeds)))}", key[1])
        for key, seeds in found.items()
        if seeds != set(range(first[key], first[key] + max(LEAST_SEEDS, len(seeds))))
    ]
    problems += [("is a published row, which others do not add to", key[1]) for key in found if key in rows]
    sizes = sorted({len(seeds) for seeds in found.values()})
    wanted = ", ".join(str(min(first.values(), default=0) + place) for place in range(LEAST_SEEDS))
    hint = f"Submit the first seeds without a gap, {LEAST_SEEDS} or more: {wanted}."
    return made(
        "seeds",
        problems,
        f"{counted(len(found), 'method')}, {listed([*map(str, sizes)]) if sizes else 0} each",
        hint,
    )


def _method(result: Result) -> tuple[str, ...]:
    """What the runs of one row of a table have in common."""
    config = result.config
    settings = str((config.sequence.get("settings") or {}).get(config.method.partition(":")[0]))
    return str(config.sequence["sequence"]), config.method, config.order, config.mode, settings


def copies(submission: Submission) -> Check:
    """Answers of another method, or of another seed."""
    likeness, problems, same = Likeness(), list[Problem](), list[str]()
    for place, one in enumerate(submission.results):
        for other in [*submission.results[:place], *submission.published]:
            name, theirs = one.config.method.partition(":")[0], other.config.method.partition(":")[0]
            again = name == theirs and one.config.seed == other.config.seed
            if one.config.mode != other.config.mode or not (share := likeness(one, other)):
                continue
            if again:  # settings that change no answer, or the same run made again
                same.append(f"{one.name} as {other.name}")
            else:
                problems.append((f"has {share} of {run_name(other.run.folder)}", one.name))
    done = "none" + (f"; the same answers, as settings of one method: {some(same)}" if same else "")
    return made("copied answers", problems, done, "Submit the answers of the method and seed that are named.")


def data(submission: Submission) -> Check:
    """Digests of data, beside those of published runs of the same sequence."""
    problems: list[Problem] = []
    compared: set[str] = set()
    for result in submission.results:
        own = _recorded_data(result)
        for other in submission.alike(result):
            for part, one in _recorded_data(other).items():
                compared |= {part} & own.keys()
                if own.get(part, one) != one:
                    problems.append((f"the {part} differ from those of published runs", result.name))
    unchecked = "" if compared else "no published run records these digests"
    return made("data", problems, f"{counted(len(compared), 'digest')} of published runs",
                 "Use the data of the sequence.", unchecked=unchecked)  # fmt: skip


def _recorded_data(result: Result) -> Mapping[str, str]:
    return {part: one for part, one in result.made_of.items() if "data " in part}


def costs(submission: Submission) -> Check:
    """Parameters, operations and kept bytes, beside what shapes give; the rest is stated."""
    costs = Costs(submission.published, submission.workspace)
    found = [(result, costs(result)) for result in submission.results]
    problems = [(what, result.name) for result, own in found for what in own or []]
    stated = [result.config.method for result, own in found if own is None]
    checked = len(found) - len(stated)
    done = f"{counted(checked, 'run')} by shapes; times as stated{f'; all as stated: {some(stated)}' if stated else ''}"
    return made("costs", problems, done, "Pack the costs that bench run recorded.",
                 unchecked="" if checked else f"as stated: {some(stated)}")  # fmt: skip
