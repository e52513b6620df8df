"""Verifies a run: its files against their digests, its scores and a sample of its answers made again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from moextend.bench.report.explain import check_cell, command
from moextend.bench.run import complete
from moextend.bench.run.inputs import refuse_other_inputs
from moextend.bench.run.items import read_items
from moextend.bench.run.rundir import TO_GET, RunDir, run_name
from moextend.bench.score.kept import ScoreReader
from moextend.bench.score.lines import Words
from moextend.errors import InputError, MoextendError, counted, listed
from moextend.util.environment import environment
from moextend.util.foreign import explained
from moextend.util.quiet import quiet_loggers

AGAIN = "Run the same command with the same settings, which makes again what is missing or damaged: {}"
FIRST = "Repair what is wrong with the data first. "
MACHINE = ("python", "packages", "platform")
"""Parts of an environment that change the last bits of an answer."""


@dataclass(frozen=True)
class Check:
    """One part of a verification."""

    name: str
    """files, scores, data or answers; of a submission, see submission.py."""
    done: str
    """What was compared, in words."""
    problems: tuple[str, ...] = ()
    hint: str = ""
    """How to repair or check it; "" if all was checked and found right."""
    unchecked: str = ""
    """Why nothing could be compared; "" if something was."""


@dataclass(frozen=True)
class Verification:
    """What is right and wrong with a run."""

    run: str
    """`<sequence>/<run>`, or the packs of a submission."""
    checks: tuple[Check, ...]

    @property
    def sound(self) -> bool:
        """Whether no check found a problem."""
        return not any(check.problems for check in self.checks)

    def record(self) -> dict[str, Any]:
        """For machines."""
        return {**asdict(self), "sound": self.sound}


def verify(run: RunDir, batches: int = 1, on_cell: Callable[[str], None] | None = None) -> Verification:
    """Verifies a run, and changes nothing in it.

    Args:
        batches: of every cell, answered again by the restored model; 0: no model is loaded.
        on_cell: called with words for what is answered again.

    Raises:
        InputError: the config of the run is missing or damaged.
    """
    files, left_out = _files(run), run.left_out
    if "predictions" in left_out:
        checks = [files, *_packed_scores(run)]
    else:
        data = _inputs(run)
        if files.problems and data.problems:  # the command would be refused
            files = replace(files, hint=FIRST + files.hint)
        checks = [files, _scores(run), data]
    if batches and left_out:
        checks.append(_left_out(run, "answers", left_out))
    elif batches:
        with quiet_loggers("moextend.extension"):  # a run has shown its warnings already
            checks.append(answers_check(run, batches, on_cell or (lambda words: None)))
    return Verification(run_name(run.folder), tuple(checks))


def _files(run: RunDir) -> Check:
    """Every byte of weights, predictions and notes."""
    problems = complete.lacks(run, most=complete.EVERY)
    words = f"{len(run.config.stage_names)} stages and their cells, every byte"
    return Check("files", words, tuple(problems), AGAIN.format(command(run.config)) if problems else "")


def _left_out(run: RunDir, name: str, what: Sequence[str]) -> Check:
    """A check that cannot be made, since the pack that the run is from has left out what it needs."""
    return Check(
        name,
        "nothing",
        hint=f"To check them, {TO_GET[0].lower()}{TO_GET[1:].format(run.folder)}",
        unchecked=f"the pack of this run left out {listed(what)}",
    )


def _packed_scores(run: RunDir) -> list[Check]:
    """The scores of items in a pack, whose answers are not here; the pack may have none."""
    hint = TO_GET.format(run.folder)
    scores = _left_out(run, "scores", ["predictions"])
    try:
        items, cells = read_items(run), run.cells()
    except InputError as error:
        return [Check("items", "not read", (str(error),), hint), scores]
    if items is None:
        return [scores]
    problems = [
        f"{task} after stage {stage}: no scores of items"
        for stage, task in cells
        if not items.of(stage, task)
    ]
    return [Check("items", f"{len(cells)} cells", tuple(problems), hint if problems else ""), scores]


def _scores(run: RunDir) -> Check:
    """The score of every cell, made of its predictions again."""
    try:
        cells = run.cells()
    except InputError as error:
        return Check("scores", "no cells", (str(error),), AGAIN.format(command(run.config)))
    problems = []
    reader = ScoreReader(Words())
    for cell in cells.values():
        if cell.predictions and not cell.by_lm_eval and not reader.is_right(run.folder, cell):
            kept = "the kept scores of its items do not give its score; a report computes them again"
            problems.append(f"{cell.task} after stage {cell.stage}: {kept}")
        found = {name: what for name, what in check_cell(run, cell)[1].items() if what != "ok"}
        problems += [f"{cell.task} after stage {cell.stage}: {name} {what}" for name, what in found.items()]
    hint = (
        "If scores.jsonl was edited or a scorer changed, remove the lines of these cells from it. "
        + AGAIN.format(command(run.config))
    )
    return Check("scores", f"{len(cells)} cells", tuple(problems), hint if problems else "")


def _inputs(run: RunDir) -> Check:
    """The digests that the run recorded of its data, files and code, compared with those that are on this machine."""
    done = "digests of the data, files and code that are here"
    try:
        refuse_other_inputs(run, {})
    except MoextendError as error:
        hint = "Restore them, or make the run again, in another workspace, with what is here."
        return Check("data", done, (error.what,), hint)
    except Exception as error:  # damaged records, which the other checks name
        return Check("data", "nothing", unchecked=str(explained(error)))
    return Check("data", done)


def answers_check(run: RunDir, batches: int, on_cell: Callable[[str], None]) -> Check:
    """A sample of the answers of every cell, made again by the model of its stage."""
    from moextend.bench.run.regenerate import answer_again

    cells = items = 0
    problems = []
    try:
        for again in answer_again(run, batches):
            where = f"{again.task} after stage {again.stage}"
            on_cell(where)
            cells, items = cells + 1, items + again.items
            if again.problem:
                problems.append(f"{where}: {again.problem}")
            elif again.other:
                named = ", ".join(again.other[:3]) + (", ..." if len(again.other) > 3 else "")
                problems.append(f"{where}: {len(again.other)} of {again.items} answers differ ({named})")
    except InputError as error:
        problems.append(str(error))
    done = f"{counted(items, 'answer')} of {counted(cells, 'cell')}"
    return Check("answers", done, tuple(problems), _answers_hint(run) if problems else "")


def _answers_hint(run: RunDir) -> str:
    """Why answers may differ here."""
    made = run.environments[-1] if run.environments else {}
    now = environment()
    other = [name for name in MACHINE if made.get(name) != now[name]]
    if other:
        return (
            f"The run was made with another {' and other '.join(other)}, where the last bits of a number differ: "
            "verify it there."
        )
    return "The weights, the data or the code changed: compare them with moextend bench explain."


def text(found: Verification) -> str:
    """For people."""
    lines = [found.run]
    for check in found.checks:
        how = f"not checked, {check.unchecked}" if check.unchecked else f"ok ({check.done})"
        lines.append(f"  {check.name}: " + (f"PROBLEMS ({check.done})" if check.problems else how))
        lines += [f"    - {problem}" for problem in check.problems]
        lines += [f"    hint: {check.hint}"] if check.hint else []
    return "\n".join(lines)
