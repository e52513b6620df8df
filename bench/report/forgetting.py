"""The forgetting table: what each method learned, what was left of it at the end, and what became of text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import fmean

from moextend.bench import methods, metrics
from moextend.bench.report import footnotes
from moextend.bench.report.collect import (
    Experiment,
    Groups,
    Result,
    base_runs,
    grouped,
    has_base_row,
    lacking_notes,
    row_name,
    run_notes,
    scale_notes,
    unfinished_mark,
)
from moextend.bench.report.footnotes import UNTOUCHED, backend_notes, media_of, seeds_note
from moextend.bench.report.table import Column, Table, Value, named, number, over_runs, text

COLUMNS = [
    Column("method", "method", numeric=False),
    Column("task_id", "task id", numeric=False, paper=False),
    Column("la", "LA", paper=False),
    Column("acc", "ACC"),
    Column("bwt", "BWT"),
    Column("fm", "FM", paper=False),
    Column("fwt", "FWT", paper=False),
    Column("text_change", "Δ text"),
    *footnotes.COLUMNS,
    Column("text_after", "text", wide=True),
    Column("runs", "runs", wide=True),
    Column("maa", "MAA", wide=True),
    Column("bwt_t", "BWT/T", wide=True),
    Column("fm_max_all", "FM (max. incl. last)", wide=True),
    Column("worst_case", "worst case", wide=True),
    Column("intransigence", "intransigence", wide=True),
    Column("text_before", "text before", wide=True),
    Column("text_retention", "text kept %", wide=True),
]

NOTES = [
    "task id: what the method knows at inference of the task that an input belongs to: given with the input, "
    "inferred from it, or none.",
    "LA: learning accuracy, the mean accuracy on each task right after it was learned. ACC: mean accuracy after the "
    "last stage. BWT: backward transfer, the mean of ACC minus LA over all tasks but the last (divisor T-1). FM: "
    "forgetting measure, the mean of the best accuracy since a task was learned, last stage not counted, minus the "
    "final one (divisor T-1; positive where something was forgotten).",
    "FWT: forward transfer, the mean change of a task's score before it is learned, from the base to the stage before "
    "its own; negative where learning other tasks costs what the base could do.",
]
MAJORITY = "majority answer"


def forgetting_table(experiment: Experiment) -> Table:
    """One row per method, below the bounds that are known."""
    groups = grouped(experiment.of("sequence"))
    joint = grouped(experiment.of("joint"))
    wanted = footnotes.reference_count(experiment)
    rows = [
        _row(group, joint.get(key) or joint.get((key[0], "given")), wanted) for key, group in groups.items()
    ]
    bounds = _bounds(experiment, joint)
    title = f"{experiment.name}: {_count(experiment)}"
    if experiment.differs:
        title += f" ({experiment.differs})"
    sections = [part for part in (bounds, rows) if part]
    return Table(experiment.name, title, _columns(sections), sections, _notes(experiment, groups))


def _columns(sections: Sequence[Sequence[Sequence[Value]]]) -> list[Column]:
    """The columns; those of costs are wide where no run knows any."""
    costs = [place for place, column in enumerate(COLUMNS) if column in footnotes.COLUMNS]
    if any(row[place].number is not None for rows in sections for row in rows for place in costs):
        return COLUMNS
    return [replace(column, wide=column.wide or place in costs) for place, column in enumerate(COLUMNS)]


def summary(result: Result) -> dict[str, float | None]:
    """The metrics of one run, by name."""
    final = result.row(result.last, result.tasks)
    return run_metrics(result.matrix, final, *_before_after(result), joint=result.config.mode == "joint")


def run_metrics(
    a: metrics.Matrix,
    final: Sequence[float | None],
    before: Sequence[float | None],
    after: Sequence[float | None],
    *,
    joint: bool,
) -> dict[str, float | None]:
    """The metrics of a run, by name, from its matrix, its last row, and its text scores before and after all stages."""
    return {
        "la": None if joint else metrics.mft(a),
        "acc": metrics.average(final),
        "maa": None if joint else metrics.maa(a),
        "bwt": None if joint else metrics.bwt(a),
        "bwt_t": None if joint else metrics.bwt(a, divisor="T"),
        "fm": None if joint else metrics.forgetting(a),
        "fwt": None if joint else metrics.fwt(a),
        "zero_shot": metrics.zero_shot(a),
        "text_before": metrics.average(before),
        "text_after": metrics.average(after),
        "text_change": metrics.text_change(before, after),
    }


def _row(group: list[Result], joint: list[Result] | None, reference: float | None) -> list[Value]:
    def over(metric: Callable[[metrics.Matrix], float | None], *, signed: bool = False) -> Value:
        return over_runs([metric(result.matrix) for result in group], signed=signed)

    after, change = _text(group)
    return [
        row_name(group, mark=unfinished_mark(group)),
        text(group[0].facts.task_identity or "?"),
        over(metrics.mft),
        over(metrics.acc),
        over(metrics.bwt, signed=True),
        over(metrics.forgetting, signed=True),
        over(metrics.fwt, signed=True),
        change,
        *footnotes.costs(group, reference),
        after,
        Value(str(len(group)), len(group)),
        over(metrics.maa),
        over(lambda a: metrics.bwt(a, divisor="T"), signed=True),
        over(lambda a: metrics.forgetting(a, variant="max-all")),
        over(metrics.worst_case_acc),
        _intransigence(group, joint),
        over_runs([metrics.average(_before_after(result)[0]) for result in group]),
        over_runs([_percent(metrics.text_retention(*_before_after(result))) for result in group]),
    ]


def _intransigence(group: list[Result], joint: list[Result] | None) -> Value:
    if not joint:
        return Value("-")
    tasks = group[0].tasks
    rows = [result.row(result.last, tasks) for result in joint]
    upper = [metrics.mean_and_sd(column)[0] for column in zip(*rows, strict=True)]
    return over_runs([metrics.intransigence(result.matrix, upper) for result in group], signed=True)


def _percent(part: float | None) -> float | None:
    return None if part is None else 100 * part


def _before_after(result: Result) -> tuple[list[float | None], list[float | None]]:
    return result.row(0, result.text), result.row(result.last, result.text)


def _text(group: list[Result]) -> list[Value]:
    """Mean text score after the last stage, and its change; marked where it is 0 by construction."""
    pairs = [_before_after(result) for result in group]
    after = over_runs([metrics.average(after) for _, after in pairs])
    change = over_runs([metrics.text_change(*pair) for pair in pairs], signed=True)
    if change.number is not None and all(map(text_untouched, group)):
        change = change.marked(UNTOUCHED)
    return [after, change]


def text_untouched(result: Result) -> bool:
    """Whether nothing learned can have answered the text tasks: the run says so, or the base's weights answered."""
    if result.facts.text_untouched is not None:
        return result.facts.text_untouched
    return _answered_by_base(result, result.text) and not _answered_by_base(result, result.tasks)


def _answered_by_base(result: Result, tasks: Sequence[str]) -> bool:
    """Whether the weights that answered these tasks at the end are known to be those of row 0."""
    ends = [(result.cells.get((0, task)), result.cells.get((result.last, task))) for task in tasks]
    return bool(ends) and all(a and b and a.weights == b.weights != "" for a, b in ends)


def _bounds(experiment: Experiment, joint: Groups) -> list[list[Value]]:
    known = [_majority(experiment.results)]
    if not has_base_row(experiment):
        known.append(_zero_shot(base_runs(experiment)))
    rows = [row for row in known if row]
    for group in joint.values():
        finals = [metrics.average(result.row(result.last, result.tasks)) for result in group]
        rows.append(
            _bound(
                row_name(group, before="joint, "), len(group), acc=over_runs(finals), words=_text(group),
                costs=footnotes.costs(group),
            )
        )  # fmt: skip
    for group in grouped(experiment.of("independent")).values():
        learned = over_runs([metrics.mft(result.matrix) for result in group])
        rows.append(_bound(row_name(group, before="each alone, "), len(group), la=learned))
    return rows


def _bound(
    name: Value, runs: int, *, la: Value | None = None, acc: Value | None = None,
    words: list[Value] | None = None, costs: list[Value] | None = None,
) -> list[Value]:  # fmt: skip
    after, change = words or (Value(), Value())
    known = {
        "method": name, "la": la, "acc": acc, "text_after": after, "text_change": change,
        "runs": Value(str(runs), runs) if runs else None,
    }  # fmt: skip
    known |= {column.key: cost for column, cost in zip(footnotes.COLUMNS, costs or [], strict=False)}
    return [known.get(column.key) or Value() for column in COLUMNS]


def _majority(results: Sequence[Result]) -> list[Value] | None:
    """The best score without the media, from the first run that knows it for all tasks."""
    for result in results:
        majority = result.facts.majority or {}
        known = [level for task in result.tasks if (level := majority.get(task)) is not None]
        if known and len(known) == len(result.tasks):
            return _bound(text(MAJORITY), 0, acc=number(fmean(known)))
    return None


def _zero_shot(results: Sequence[Result]) -> list[Value] | None:
    if not results:
        return None
    known = [metrics.average(result.row(0, result.tasks)) for result in results]
    before = over_runs(metrics.average(_before_after(result)[0]) for result in results)
    return _bound(named(methods.named("base")), 0, acc=over_runs(known), words=[before, Value()])


def _count(experiment: Experiment) -> str:
    sequence = experiment.shared["sequence"]
    words = f"{len(sequence['stages'])} tasks, base {sequence['base']['model']}"
    limit = sequence.get("scoring", {}).get("limit")
    return words + (f", {limit} items per task" if limit else "")


def _notes(experiment: Experiment, groups: Groups) -> list[str]:
    notes = [*NOTES, *_text_note(experiment)]
    if any(len(group) > 1 for group in groups.values()):
        notes.append("±: standard deviation over runs.")
    if experiment.results:
        notes.append(" ".join(_bound_notes(experiment)))
        notes += [note for note in (seeds_note(experiment), _items(experiment.results)) if note]
    notes += footnotes.matched_notes(experiment)
    if any(text_untouched(result) for result in experiment.results):
        notes.append(media_of(experiment.results).by_construction)
    notes += scale_notes(experiment.results)
    notes += backend_notes(experiment.results)
    notes += lacking_notes(experiment.results)
    notes += run_notes(experiment)
    return notes


def _text_note(experiment: Experiment) -> list[str]:
    before = metrics.average(metrics.average(_before_after(run)[0]) for run in base_runs(experiment))
    if before is None:
        return []
    return [
        "Δ text: change of the mean score on the text tasks from the base "
        f"({before:.1f}) to the end; negative is a loss."
    ]


def _bound_notes(experiment: Experiment) -> list[str]:
    notes = [f"{methods.named('base')}: the base before the first stage."]
    if _majority(experiment.results):
        seen = media_of(experiment.results).the
        notes.append(
            f"{MAJORITY}: the most common training answer to questions of the same form, without {seen}."
        )
    if experiment.of("joint"):
        notes.append("joint: all tasks learned at once (usually an upper bound).")
    if experiment.of("independent"):
        notes.append("each alone: every task learned from the base (upper bound of LA).")
    return notes


def _items(results: Sequence[Result]) -> str | None:
    cells = [cell for result in results for cell in result.cells.values()]
    counts, errors = sorted({c.n for c in cells}), [c.stderr for c in cells if c.stderr is not None]
    if not cells:
        return None
    items = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    error = f", standard error over items {min(errors):.1f} to {max(errors):.1f} points" if errors else ""
    return f"One cell of the matrix: {items} items{error}."
