"""Notes of tables: seeds, servers, the words for media, and what a comparison of methods holds fixed."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from moextend.bench import metrics
from moextend.bench.report.collect import Experiment, Result, grouped
from moextend.bench.report.costs import (
    KEPT,
    NEAR,
    UNMATCHED,
    kept_mb,
    mean_total,
    near,
    reference_of,
    trained_parameters,
    training_flops,
)
from moextend.bench.report.table import Column, Value
from moextend.data.modalities import modality_types
from moextend.errors import InputError, counted

UNTOUCHED = "†"
COLUMNS = [
    Column("params", "params", paper=False),
    Column("kept_mb", "MB", paper=False),
    Column("tflop", "TFLOP", paper=False),
]
MEANING = (
    f"params: parameters that a stage trains (the largest stage). {KEPT} TFLOP: operations of all trainings, probes "
    "included."
)
UNITS = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"))


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


@dataclass(frozen=True)
class Media:
    """The media that the learned tasks of a sequence show, as nouns: ("image", "images"), ("sound", "sounds")."""

    nouns: tuple[tuple[str, str], ...] = (("image", "images"),)

    @property
    def plural(self) -> str:
        """ "images or sounds"."""
        return " or ".join(many for _, many in self.nouns)

    @property
    def one(self) -> str:
        """ "an image or a sound"."""
        return " or ".join(f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}" for noun, _ in self.nouns)

    @property
    def the(self) -> str:
        """ "the image or the sound"."""
        return " or ".join(f"the {noun}" for noun, _ in self.nouns)

    @property
    def by_construction(self) -> str:
        """The note of the mark †."""
        return (
            f"{UNTOUCHED}: by construction, not by learning. These text tasks have no {self.plural}, and what is "
            f"learned from {self.plural} takes no input without one, so the base answers. It says nothing about text "
            "that looks like a learned task."
        )


def media_of(results: Sequence[Result]) -> Media:
    """The media of the learned tasks of these runs, which have the same tasks."""
    types = modality_types()
    names: dict[str, None] = {}
    for task in results[0].tasks if results else []:
        with suppress(InputError):  # an edited config.json
            names |= dict.fromkeys(results[0].config.task_spec(task).modalities)
    nouns = [
        (known.noun, known.plural) if (known := types.get(name)) else (name, f"{name}s") for name in names
    ]
    return Media(tuple(nouns)) if nouns else Media()


def short(number: float) -> str:
    """A number of at least 0 with up to three digits: 757k, 1.25M, 4.20, 0.59."""
    rounded = float(f"{number:.3g}")
    unit, letter = next((pair for pair in UNITS if rounded >= pair[0]), (1.0, ""))
    shown = rounded / unit
    decimals = 0 if shown >= 100 or not shown else 1 if shown >= 10 else 2
    return f"{shown:.{decimals}f}{letter}" if shown >= 1 or not shown else f"{shown:#.2g}"


def costs(group: Sequence[Result], reference: float | None = None) -> list[Value]:
    """Cells of COLUMNS for the runs of a row; trained parameters far from those of the `reference` are marked."""
    trained = trained_parameters(group).number
    kept = metrics.average(map(kept_mb, group))
    cells = [_cell(trained), _cell(kept), _cell(mean_total(group, training_flops, 1e-12))]
    return [cells[0].marked(UNMATCHED) if _differs(trained, reference) else cells[0], *cells[1:]]


def reference_count(experiment: Experiment) -> float | None:
    """Trained parameters of the method that others are matched with; None if they are not known."""
    reference = reference_of(experiment)
    return trained_parameters(grouped(experiment.of("sequence"))[reference]).number if reference else None


def matched_notes(experiment: Experiment) -> list[str]:
    """What the columns mean, and which methods are not matched in trained parameters; [] where nothing is known."""
    reference, wanted = reference_of(experiment), reference_count(experiment)
    if reference is None or wanted is None:
        return []
    groups = grouped(experiment.of("sequence"))
    counts = {method: trained_parameters(group).number for (method, _), group in groups.items()}
    others = [method for method, count in counts.items() if count and method != reference[0]]
    if not others:
        return [MEANING]
    against = f"within {NEAR:.0%} of {reference[0]}'s {wanted:,.0f}"
    far = [method for method in others if _differs(counts[method], wanted)]
    if not far:
        return [MEANING, f"Trained parameters are matched: all are {against}."]
    fixed = [method for method in far if _is_fixed(groups, method)]
    loose = [method for method in far if method not in fixed]
    found = [f"{UNMATCHED}: trained parameters are not {against}."]
    if fixed:
        found.append(f"{', '.join(fixed)}: cannot be matched.")
    if loose:
        found.append(f"NOT MATCHED: {', '.join(loose)} (moextend bench run --match params).")
    return [MEANING, " ".join(found)]


def _is_fixed(groups: dict[tuple[str, str], list[Result]], method: str) -> bool:
    """Whether no setting of the method changes how much it trains."""
    config = next(group[0].config for (name, _), group in groups.items() if name == method)
    with suppress(InputError):  # a plug-in that is gone
        return not config.method_spec.make().knobs
    return False


def _differs(count: float | None, reference: float | None) -> bool:
    return bool(count) and reference is not None and not near(count, reference)


def _cell(number: float | None) -> Value:
    return Value("-") if number is None else Value(short(number), number)
