"""Notes and marks that tables share: seeds, servers, text, and where settings come from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from moextend.bench import methods
from moextend.bench.report.collect import BOUND_WORDS, Experiment, Result, grouped
from moextend.bench.report.table import ON_TEST, Row, Table, Value, words_column
from moextend.bench.task import Mode
from moextend.bench.tuned import NO_SETTINGS, NOT_STATED, TEST, VALIDATION
from moextend.errors import counted

UNTOUCHED = "†"
NOT_REACHED = (
    "by construction, not by learning. These text tasks have no media, and what is learned from media takes no input "
    "without any, so the base answers. It says nothing about text that looks like a learned task."
)
BY_CONSTRUCTION = f"{UNTOUCHED}: {NOT_REACHED}"
_RANK = [TEST, NOT_STATED, "nothing", "default", "published", VALIDATION, NO_SETTINGS]
"""Sources, the least favourable first."""


def seeds_note(experiment: Experiment) -> str:
    """ "Seeds: 0, 1, 2; lora: 0, 1."; "" where nothing was learned in sequence."""
    seeds = {
        method: tuple(sorted({result.config.seed for result in group}))
        for (method, _), group in grouped(experiment.of("sequence")).items()
    }
    if not seeds:
        return ""
    common = max(seeds.values(), key=list(seeds.values()).count)
    others = [f"{method}: {_numbers(own)}" for method, own in seeds.items() if own != common]
    return f"Seeds: {'; '.join([_numbers(common), *others])}."


def _numbers(seeds: Sequence[int]) -> str:
    return ", ".join(map(str, seeds))


def backend_notes(results: Sequence[Result]) -> list[str]:
    """The runs that a server scored, with what shows that it answers as transformers do; one note for each."""
    return [_backend_note(result) for result in results if result.parities]


def _backend_note(result: Result) -> str:
    served = [cell for cell in result.cells.values() if cell.backend]
    shown = [found for cell in served if (found := result.parities.get(cell.parity or "")) is not None]
    engines = ", ".join(dict.fromkeys(one.engine or "a server" for one in shown))
    distinct = list({(one.weights_id, one.task): one for one in shown}.values())
    differences = [one.difference for one in distinct if one.difference is not None]
    part = "" if len(served) == len(result.cells) else f" in {len(served)} of {len(result.cells)} cells"
    likelihoods = f", log-likelihoods within {max(differences):.1g} nats per token" if differences else ""
    answers = sum(one.answers for one in distinct)
    return (
        f"{result.name} is scored by {engines}{part}: weights proved, {counted(answers, 'sampled answer')} equal to "
        f"those of transformers{likelihoods}."
    )


def elsewhere_notes(results: Sequence[Result]) -> list[str]:
    """The runs whose models were trained elsewhere, and what is stated of their training."""
    found = []
    for result in results:
        if result.config.scored:
            stated = "; ".join(
                f"stage {stage}: " + ", ".join(f"{key} {value}" for key, value in own.items())
                for stage, own in result.facts.stated.items()
            )
            more = f" Stated, not measured: {stated}." if stated else ""
            found.append(f"{result.name}: trained elsewhere, and only scored here.{more}")
    return found


def untouched_notes(results: Sequence[Result]) -> list[str]:
    """The note of the mark † if the text of a run is what it is by construction; else none."""
    return [BY_CONSTRUCTION] if any(result.text_untouched for result in results) else []


def change_of(group: Sequence[Result], change: Value) -> Value:
    """The change of text of the runs of a row; marked where it is 0 by construction."""
    untouched = change.number is not None and all(result.text_untouched for result in group)
    return change.marked(UNTOUCHED) if untouched else change


def source(result: Result) -> str:
    """Source of the settings of a run."""
    if methods.role_of(result.config.method) == "base":
        return NO_SETTINGS
    return result.config.tuned_on or NOT_STATED


Sources = dict[tuple[str, Mode], str]
"""(method, mode) -> source of its settings."""


def sources(experiments: Sequence[Experiment]) -> Sources:
    """The least favourable source of the runs of each method and mode; empty if no run states one."""
    found: Sources = {}
    for result in (result for experiment in experiments for result in experiment.results):
        own, key = source(result), (result.config.method, result.config.mode)
        found[key] = min(own, found.get(key, own), key=_rank)
    stated = {*found.values()} - {NOT_STATED, NO_SETTINGS}
    return found if stated else {}


def with_sources(experiments: Sequence[Experiment], table: Table) -> Table:
    """The table with a note on where the settings of its methods come from; of all methods if its rows name none.

    Rows of methods also have a mark where that is test items, and the source as a wide column.
    """
    known = sources(experiments)
    named = {key for row in table.rows if (key := (row[0].of, row[0].mode)) in known}
    note = source_note({key: own for key, own in known.items() if key in named or not named})
    table = table.noted(*([note] if note else []))
    if not named:
        return table
    column = words_column("settings_source", "settings from", wide=True)
    sections = [[_with_source(row, known) for row in section] for section in table.sections]
    return replace(table, columns=[*table.columns, column], sections=sections)


def _with_source(row: Row, known: Sources) -> Row:
    own = known.get((row[0].of, row[0].mode), "")
    return [row[0].marked(ON_TEST if own == TEST else ""), *row[1:], Value(own)]


def source_note(known: Sources) -> str:
    """ "Settings: ‡ tuned on test items: full-ft; default: lora."; "" if no method has settings."""
    parts = [f"{words}: {', '.join(methods)}" for words, methods in by_source(known).items()]
    return f"Settings: {'; '.join(parts)}." if parts else ""


def by_source(known: Sources, name: Callable[[str], str] = str) -> dict[str, list[str]]:
    """Source in words -> the methods whose settings it is of, as `name` writes them, the least favourable first."""
    stated = sorted({*known.values()} - {NO_SETTINGS}, key=lambda source: (_rank(source), source))
    return {
        _worded(source): [
            name(method) + (f" ({BOUND_WORDS[mode]})" if mode in BOUND_WORDS else "")
            for (method, mode), own in known.items()
            if own == source
        ]
        for source in stated
    }


def _worded(source: str) -> str:
    """A source as a note names it."""
    if source == TEST:
        return f"{ON_TEST} tuned on {source}"
    if source == "nothing":
        return "not tuned"
    return f"tuned on {source}" if source.startswith(VALIDATION) else source


def _rank(source: str) -> tuple[int, bool]:
    """Its place; what was tuned on another sequence stands before what was tuned on this one."""
    return _RANK.index(VALIDATION if source.startswith(VALIDATION) else source), source == VALIDATION
