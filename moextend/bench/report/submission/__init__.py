"""Checks packs that somebody submits: what their evidence shows, what is wrong, and what it cannot show.

Answers are scored again and compared with the data here; runs with the sequence here, and with published runs. What an
author edits with all its digests is found only where these say otherwise (docs/howto/share.md).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from moextend.bench import methods
from moextend.bench.methods.table import OWN
from moextend.bench.plugins import code_digest
from moextend.bench.report.collect import Result, collect
from moextend.bench.report.submission import beside
from moextend.bench.report.submission.rescoring import Rescorer
from moextend.bench.report.submission.submitted import SHOWN, Problem, Submission, made, some
from moextend.bench.report.table import Table, words_column
from moextend.bench.report.table import text as words
from moextend.bench.report.verify import Check, Verification, answers_check
from moextend.bench.run.complete import EVERY, lacks
from moextend.bench.run.config import differences, without_notes
from moextend.bench.run.inputs import method_part
from moextend.bench.run.pack import CODE
from moextend.bench.run.rundir import RunDir
from moextend.bench.tuned import NOT_STATED, TEST
from moextend.errors import counted
from moextend.util import files
from moextend.util.foreign import explained

LINE = 46
"""Characters of what a check found, beside its name and verdict in 80 columns."""
PASS, FAIL, UNKNOWN = "pass", "fail", "cannot be shown"


def check(
    runs: Sequence[RunDir],
    published: Sequence[RunDir],
    workspace: Path,
    batches: int = 0,
    on_cell: Callable[[str], None] = lambda words: None,
) -> tuple[Check, ...]:
    """The checks of submitted runs, unpacked, against published ones; nothing in them is changed or run as code.

    Args:
        published: those that are among `runs` are left out.
        workspace: where sequences, tasks, scorers and data are looked up, before the package's.
        batches: of every cell, answered again where a pack has weights.
        on_cell: called with words for what is answered again.
    """
    found = collect(runs, unfinished=True)
    own = {_itself(result) for experiment in found for result in experiment.results}
    submission = Submission(
        [result for experiment in found for result in experiment.results],
        [name for experiment in found for name in experiment.left_out],
        [one for each in collect(published) for one in each.results if _itself(one) not in own],
        workspace,
    )
    made_by: dict[str, Callable[[], Check | tuple[Check, ...]]] = {
        "files": lambda: _files(submission),
        "protocol": lambda: _protocol(submission),
        "answers": lambda: _answers(submission),
        "code": lambda: _code(submission),
        "base": lambda: beside.base(submission),
        "row 0": lambda: beside.row0(submission),
        "seeds": lambda: beside.seeds(submission),
        "settings": lambda: _settings(submission),
        "copied answers": lambda: beside.copies(submission),
        "data": lambda: beside.data(submission),
        "costs": lambda: beside.costs(submission),
        "versions": lambda: _versions(submission),
        "model": lambda: _model(submission, batches, on_cell),
    }
    return tuple(one for name, make in made_by.items() for one in _tried(name, make))


def _tried(name: str, make: Callable[[], Check | tuple[Check, ...]]) -> tuple[Check, ...]:
    """What a check found; records that it cannot read are a problem of the pack."""
    try:
        found = make()
    except Exception as error:
        what = f"cannot be checked, as a record has no valid form ({explained(error).what.rstrip('.')})"
        return (Check(name, "not done", (what,), "Pack the runs as bench run made them."),)
    return found if isinstance(found, tuple) else (found,)


def _itself(result: Result) -> tuple[str, str, str]:
    """What only copies of a run have in common, whatever id a run states."""
    return result.run.id, result.config.digest, files.sha256(result.run.folder / "scores.jsonl")


def _files(submission: Submission) -> Check:
    """Every byte, and all cells of the matrix."""
    problems = [(what, "") for what in submission.damaged]
    for result in submission.results:
        problems += [(f"lacks {what}", result.name) for what in lacks(result.run, most=EVERY)]
        problems += [(f"is {result.state}", result.name)] * (result.state != "done")
    ids = Counter(result.run.id for result in submission.results)
    problems += [("has the id of another run", one.name) for one in submission.results if ids[one.run.id] > 1]
    done = f"{counted(len(submission.results), 'run')}, all cells, every byte"
    return made("files", problems, done, "Finish the runs with the same bench run, and pack them again.")


def _protocol(submission: Submission) -> Check:
    """The sequence and its tasks, beside those of the same name here."""
    problems: list[Problem] = []
    for result in submission.results:
        here, sequence = submission.here(result), result.config.sequence
        if isinstance(here, str):
            problems.append((here, result.name))
            continue
        now, name = here.sequence["version"], sequence["sequence"]
        if sequence["version"] != now:
            problems.append((f"is of {name}@{sequence['version']}, and {name}@{now} is here", result.name))
            continue
        found = differences(without_notes(here.experiment()), without_notes(result.config.experiment()))
        problems += [
            (f"{place} is {_word(new)} instead of {_word(old)}", result.name) for place, old, new in found
        ]
    sequences = {
        f"{one.config.sequence['sequence']}@{one.config.sequence['version']}" for one in submission.results
    }
    hint = "Run the sequence as it is here: without --limit, --steps and tasks or sequences of your own."
    return made("protocol", problems, ", ".join(sorted(sequences)), hint)


def _word(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _answers(submission: Submission) -> tuple[Check, Check, Check]:
    """That answers are there, to all items of the tasks as they are here, with the scores that they give."""
    bare: list[Problem] = []
    items: list[Problem] = []
    scores: list[Problem] = []
    unknown: dict[str, None] = {}
    rescorer, cells, compared = Rescorer(submission.workspace), 0, 0
    for result in submission.results:
        here = submission.here(result)
        bare += [("has no answers", result.name)] * result.bare
        if isinstance(here, str):
            unknown[here] = None
            continue
        for cell in result.cells.values():
            if cell.predictions is None or cell.task not in here.tasks:
                continue
            limit = here.sequence_spec.scoring.limit
            again = rescorer(result.run, cell, here.task_spec(cell.task), limit)
            cells, compared = cells + 1, compared + (not again.unknown)
            where = f"{result.name}, {cell.task} after stage {cell.stage}"
            items += [(again.items, where)] * bool(again.items)
            if problem := again.problem(cell):
                scores.append((problem, where))
            if again.unknown:
                unknown[f"{cell.task}: {again.unknown}"] = None
    done = counted(cells, "cell")
    nothing = "" if cells else "no answers are here"
    notes = "; ".join(unknown)
    return (
        made("answers", bare, f"of {done}", "Pack them with their answers: bench pack without --no-predictions."),
        made(
            "items", items, f"{counted(compared, 'cell')}{f'; not compared: {notes}' if notes else ''}",
            "Answer all items of the tasks, as they are here.", unchecked=nothing or ("" if compared else notes),
        ),
        made("scores", scores, f"{done}, made again", "Score with the task's own scorer, and change no record.",
              unchecked=nothing),
    )  # fmt: skip


def _code(submission: Submission) -> Check:
    """The code of methods that are not of this package, and of scorers."""
    problems: list[Problem] = []
    stated: dict[str, None] = {}
    for result in submission.results:
        parts = {part: one for cell in result.cells.values() for part, one in cell.inputs.items()}
        for part in parts:
            if part.startswith("code of scorer"):
                problems.append((f"is scored by a plug-in ({part})", result.name))
        if result.config.scored or result.config.method.partition(":")[0] in OWN:
            continue
        own, part = parts.get(method_part(result.config), ""), method_part(result.config)
        plugins = [path for path in sorted((result.run.folder / CODE).glob("*.py")) if path.name[0] != "_"]
        if not own:
            problems.append((f"states no digest of the {part}", result.name))
        elif not any(code_digest(path)[:16] == own for path in plugins):
            what = (
                "includes other code than that with the digest"
                if plugins
                else "does not include that with the digest"
            )
            problems.append((f"{part}: the pack {what} {own}", result.name))
        else:
            stated[f"{result.config.method.partition(':')[0]} {own}"] = None
    hint = (
        "Pack the runs in the workspace with the plug-in that trained them, and score with the task's scorer."
    )
    elsewhere = all(result.config.scored for result in submission.results)
    done = f"included: {', '.join(stated)}" if stated else "of this package"
    done = "trained elsewhere" if elsewhere else done
    return made("code", problems, done, hint)


def _settings(submission: Submission) -> Check:
    """Where settings come from, as stated."""
    found: dict[str, dict[str, None]] = {}
    for result in submission.results:
        found.setdefault(result.config.tuned_on or NOT_STATED, {})[result.config.method] = None
    problems = [("its settings were chosen on test items", name) for name in found.pop(TEST, {})]
    for result in submission.results:
        config, facts = result.config, result.facts
        if config.scored or config.method.partition(":")[0] not in OWN:
            continue
        spec = config.method_spec
        if facts.task_identity not in (None, own := spec.make().task_identity):
            problems.append(
                (f"records the task id '{facts.task_identity}', and its method '{own}'", result.name)
            )
        known = spec.config.model_dump(mode="json")
        other = [key for key, value in facts.settings.items() if known.get(key, value) != value]
        problems += [(f"records another {key} than its config", result.name) for key in other]
    done = "; ".join(f"{source}: {some([*own])}" for source, own in found.items())
    return made("settings", problems, done, "Choose them on validation items: bench tune.")


def _versions(submission: Submission) -> Check:
    """Versions of this package that made the runs, and whether its code had changes."""
    problems: list[Problem] = []
    versions, commits, changed = set[str](), set[str](), list[str]()
    for result in submission.results:
        if not result.environments:
            problems.append(("states no versions", result.name))
        for each in result.environments:
            commit = each.get("commit") or {}
            versions.add(str((each.get("packages") or {}).get("moextend")))
            commits |= {str(commit["commit"])} if commit.get("commit") else set()
            changed += [result.name] * bool(commit.get("dirty"))
    unchecked = f"changes in no commit: {some(changed)}" if changed else ""
    done = f"moextend {', '.join(sorted(versions))}, {counted(len(commits), 'commit')}"
    return made("versions", problems, done, "Pack the runs as they are.", unchecked=unchecked)


def _model(submission: Submission, batches: int, on_cell: Callable[[str], None]) -> Check:
    """Whether the model of each stage gives these answers, where its weights are here."""
    problems: list[Problem] = []
    done: list[str] = []
    for result in submission.results:
        has_weights = "weights" not in result.run.left_out and not result.config.scored
        if batches and has_weights and methods.role_of(result.config.method) is not None:  # no plug-in is run
            own = answers_check(result.run, batches, on_cell)
            problems += [(what, result.name) for what in own.problems]
            done.append(f"{result.name}: {own.done}")
    unchecked = "" if done else "no weights in the pack (bench pack --weights)"
    if all(result.config.scored for result in submission.results):
        unchecked = "models that were trained elsewhere are in no pack"
    return made(
        "model",
        problems,
        some(done) if done else "",
        "Pack the weights that gave the answers.",
        unchecked=unchecked,
    )


def verdict(check: Check) -> str:
    """pass, fail, or cannot be shown."""
    return FAIL if check.problems else UNKNOWN if check.unchecked else PASS


def table(found: Verification) -> Table:
    """The checks as a table, with every problem and what does not fit into a line below it."""
    rows, notes = [], []
    for each in found.checks:
        shown = counted(len(each.problems), "problem") if each.problems else each.unchecked or each.done
        fits = len(shown) <= LINE
        rows.append([words(each.name), words(verdict(each)), words(shown if fits else "see below")])
        more = [] if fits else [shown]
        more += each.problems[:SHOWN]
        more += [f"and {len(each.problems) - SHOWN} more"] * (len(each.problems) > SHOWN)
        notes += [f"{each.name}: {one}" for one in [*more, *filter(None, [each.hint])]]
    columns = [words_column("check"), words_column("verdict"), words_column("found")]
    return Table("submission", found.run, columns, [rows], notes)
