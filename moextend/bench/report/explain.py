"""From one number of a table to what it was made of: items, predictions, scorer, weights, data, versions, command."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from moextend.bench.report.collect import called
from moextend.bench.run.complete import EVERY, STEM, stage_problem
from moextend.bench.run.inputs import checkpoint_part, data_part
from moextend.bench.run.records import BASE, encoder_of
from moextend.bench.run.rundir import Cell, RunConfig, RunDir, slug
from moextend.bench.score.kept import SAME, read_predictions
from moextend.bench.score.lines import text_item
from moextend.bench.score.vqa import score_items
from moextend.bench.scorers import search, shows
from moextend.bench.sequence import find_sequence
from moextend.errors import InputError, MoextendError, SpecError, UnknownName
from moextend.util.files import read_json, read_lines, sha256
from moextend.util.foreign import explained

NOT_KEPT = "not kept"
"""What a check finds of predictions that a pack left out."""


@dataclass(frozen=True)
class Answer:
    """One item of the cell."""

    id: str
    question: str
    image: str
    expected: str
    answer: str
    score: float | None
    """0..1; None where the item counts only together with others."""


@dataclass(frozen=True)
class Explanation:
    """What one score rests on."""

    run: str
    stage: int
    stage_name: str
    task: str
    score: float
    """Percent."""
    stderr: float | None
    items: int
    checks: dict[str, str]
    """What was checked now -> "ok", or what is wrong."""
    sources: dict[str, str]
    """What the score depends on -> its name, version or digest."""
    command: str
    """The command that makes the run, or what it lacks, again."""
    answers: list[Answer]

    @property
    def sound(self) -> bool:
        """Whether no check failed; what is not there cannot be checked."""
        return all(found in ("ok", NOT_KEPT) for found in self.checks.values())

    def record(self) -> dict[str, Any]:
        """For machines."""
        return {**asdict(self), "sound": self.sound}


def explain(run: RunDir, stage: int, task: str) -> Explanation:
    """What the score of `task` after `stage` was made of, its files checked now.

    Raises:
        UnknownName: the run scores no such task. InputError: it has no such stage, or did not score it yet.
    """
    config, cells = run.config, run.cells()
    names = ["base", *config.stage_names]
    known = [*config.stages, *config.retention, *config.transfer]
    if task not in known:
        raise UnknownName("task", task, known, where="TASK")
    if not 0 <= stage < len(names):
        raise InputError(
            f"no stage {stage}.", where="STAGE", hint=f"Name one of 0 (the base) to {len(names) - 1}."
        )
    cell = cells.get((stage, task))
    if cell is None:
        raise InputError(
            f"'{task}' was not scored after stage {stage} yet.",
            where=str(run.folder),
            hint=f"Run: {command(config)}",
        )
    answers, checks = check_cell(run, cell)
    checks |= _checked_weights(run, names[: stage + 1])
    return Explanation(
        str(run.folder), stage, names[stage], task, cell.value, cell.stderr, cell.n, checks,
        _sources(run, cell, names), command(config), answers,
    )  # fmt: skip


def command(config: RunConfig, *, anywhere: bool = False) -> str:
    """The command that makes a run, as far as options say what it is; its YAMLs must be those of the run.

    `--steps` and `--limit` are named where they are not those of the sequence as it is now; with `anywhere` no
    workspace is named.
    """
    name = str(config.sequence["sequence"])
    place = [] if anywhere else ["--workspace", str(config.workspace)]
    method = called(config)
    if config.scored:
        stages = [word for one in config.checkpoints for word in ("--stage", one.word)]
        words = ["moextend", "bench", "score", name, "--name", method, *stages, "--seed", str(config.seed)]
        return shlex.join([*words, *place])
    words = ["moextend", "bench", "run", name, "--method", method, "--seed", str(config.seed)]
    words += ["--order", config.order] if config.order != "given" else []
    words += ["--also", "oracle"] * config.oracle + ["--deterministic"] * config.deterministic
    with suppress(MoextendError):  # a sequence that is gone
        now = find_sequence(name, config.workspace).model_dump()
        for option, own, other in zip(("steps", "limit"), _sizes(config.sequence), _sizes(now), strict=True):
            words += [f"--{option}", str(own)] if own not in (None, other) else []
    return shlex.join([*words, *place])


def _sizes(sequence: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """Steps of a stage, and the limit of items."""
    return (sequence.get("train") or {}).get("steps"), (sequence.get("scoring") or {}).get("limit")


def check_cell(run: RunDir, cell: Cell) -> tuple[list[Answer], dict[str, str]]:
    """The items of the cell, and what can be checked without a model: the file, and the score made of it again."""
    if cell.predictions is None:
        return [], {"predictions": NOT_KEPT}
    path = run.folder / cell.predictions
    try:
        same = "ok" if sha256(path) == cell.sha256 else "not the file that was scored"
        answers, value = (_text if cell.by_lm_eval else _vqa)(run, path, cell)
    except Exception as error:  # a damaged file, whatever is wrong with it
        return [], {"predictions": f"cannot be read: {explained(error)}"}
    again = "ok" if abs(value - cell.value) < SAME else f"{value:.4f} when made again from the predictions"
    return answers, {"predictions": same, "score": again}


def _checked_weights(run: RunDir, names: Sequence[str]) -> dict[str, str]:
    """What is wrong with the files that the stages learned, as far as they are here; a pack may have left them out."""
    here = [folder for folder in stage_folders(run, names) if (folder / f"{STEM}.safetensors").is_file()]
    found = {folder.name: stage_problem(folder, run.id, costs=False, most=EVERY) for folder in here}
    wrong = [f"stages/{name}: {problem}" for name, problem in found.items() if problem]
    return {"weights": "; ".join(wrong) or "ok"} if found else {}


def _sources(run: RunDir, cell: Cell, names: Sequence[str]) -> dict[str, str]:
    """What the score depends on."""
    # Readings of lm-eval are fractions, and left out.
    readings = [] if cell.by_lm_eval else [f"{name} {value:.1f}" for name, value in cell.readings.items()]
    found = {"scorer": cell.scorer, "score is": shows(cell.scorer), "readings": ", ".join(readings)}
    found |= {"predictions": cell.predictions or "", "weights": cell.weights} | method_sources(run)
    for stage, folder in enumerate(stage_folders(run, names[: cell.stage + 1]), 1):
        found[f"stage {stage} ({names[stage]})"] = f"{folder.relative_to(run.folder)}{_weights(folder)}"
    if run.config.scored:
        found |= _checkpoint(run, cell)
    found |= data_sources(run, cell.task)
    found |= {f"made with ({number})": _versions(made) for number, made in enumerate(run.environments, 1)}
    return {name: value for name, value in found.items() if value}


def _checkpoint(run: RunDir, cell: Cell) -> dict[str, str]:
    """The checkpoint that answered, and what is stated of its training."""
    part = checkpoint_part(cell.stage)
    one = dict(enumerate(run.config.checkpoints)).get(cell.stage)
    found = {part: f"{one.word if one else ''}, digest {cell.inputs.get(part, '')}"}
    stated = run.facts().stated.get(str(cell.stage), {})
    return found | {f"{key} (stated, not measured)": str(value) for key, value in stated.items()}


def method_sources(run: RunDir) -> dict[str, str]:
    """The base and the method of a run."""
    base, facts = run.config.sequence.get("base") or {}, run.facts()
    found = {BASE: _named(base["model"], base.get("revision"))} if base else {}
    encoders = {"image": base.get("vision"), "audio": base.get("audio"), **base.get("encoders", {})}
    found |= {encoder_of(modality): str(name) for modality, name in encoders.items() if name}
    for what, commits in facts.models.items():
        found[what] = ", ".join(
            [found.get(what, ""), *(f"commit {sha} of {name}" for name, sha in commits.items())]
        )
    settings = json.dumps(facts.settings) if facts.settings else ""
    return {**found, "method": run.config.method, "settings": settings}


def stage_folders(run: RunDir, names: Sequence[str]) -> list[Path]:
    """The folders of stages; `names` start with the base."""
    return [run.folder / "stages" / f"{stage}-{slug(name)}" for stage, name in enumerate(names[1:], 1)]


def data_sources(run: RunDir, task: str) -> dict[str, str]:
    """The data of a task, and the file that describes it."""
    config = run.config
    spec = config.task_spec(task).model_dump()
    data = (spec.get("data") or {}).get("path") or (spec.get("lm_eval") or {}).get("task")
    facts, revision = run.facts(), (spec.get("data") or {}).get("revision")
    digest, commit = facts.inputs.get(data_part("test", task)), facts.revisions.get(task)
    noted = [f"commit {sha} of {name}" for name, sha in facts.text_data.get(task, {}).items()]
    noted += [f"commit {commit}"] * bool(commit) + [f"digest {digest}"] * bool(digest)
    return {
        "data": ", ".join([_named(str(data), revision), *noted]),
        "task file": str(config.places.get("tasks", {}).get(task, "")),
    }


def _weights(folder: Path) -> str:
    """The digest of what a stage learned, as its card has it, and whether the weights are here."""
    try:
        digest = str(read_json(folder / f"{STEM}.json")["sha256"])
    except (OSError, SpecError, KeyError, TypeError):
        return ""
    return f" sha256 {digest}{'' if (folder / f'{STEM}.safetensors').is_file() else ', weights not here'}"


def _named(model: str, revision: str | None) -> str:
    return f"{model}@{revision}" if revision else model


def commit_of(made: Mapping[str, Any]) -> str:
    """The commit of this package that an environment records, with a mark where files had changed; "" without one."""
    commit = made.get("commit") or {}
    return f"{commit['commit'][:12]}{' with changes' if commit.get('dirty') else ''}" if commit else ""


def packages_of(made: Mapping[str, Any]) -> dict[str, str]:
    """Package -> its version, as far as an environment records it."""
    return {name: str(version) for name, version in (made.get("packages") or {}).items() if version}


def _versions(made: Mapping[str, Any]) -> str:
    commit = [f"commit {commit_of(made)}"] if commit_of(made) else []
    code = ", ".join([*commit, *(f"{name} {version}" for name, version in packages_of(made).items())])
    return f"{made.get('at', '')}: {code}, Python {made.get('python')}, {made.get('platform')}"


def _vqa(run: RunDir, path: Path, cell: Cell) -> tuple[list[Answer], float]:
    """The items of an image task, and the score that the scorer makes of them now."""
    search(run.config.workspace)
    records = read_predictions(path, "")
    made, items = score_items(records, cell.scorer)
    scores = {item.id: item.score for item in items}
    answers = [
        Answer(
            record.id, record.question, record.image, " / ".join(record.answers), record.prediction,
            scores.get(record.id),
        )
        for record in records
    ]  # fmt: skip
    return answers, made.value


def _text(run: RunDir, path: Path, cell: Cell) -> tuple[list[Answer], float]:
    """The items of a text task, and lm-eval's score of them."""
    lines = read_lines(path)
    answers = []
    for line in lines:
        if "summary" not in line:
            right = line.get("right")
            score = float(right) if isinstance(right, int | float) else None
            asked, gold, answer = (str(line.get(key, "")) for key in ("question", "gold", "prediction"))
            answers.append(Answer(text_item(line), asked, "", gold, answer, score))
    return answers, float(lines[-1]["summary"]["value"])


def text(found: Explanation, items: int = 5) -> str:
    """For people; of the answers `items`, wrong ones first."""
    error = f" ±{found.stderr:.1f}" if found.stderr is not None else ""
    lines = [
        f"{found.score:.1f}{error}: {found.task} after stage {found.stage} ({found.stage_name}), {found.items:,} items",
        f"run: {found.run}",
        "",
        *(f"check {name}: {what}" for name, what in found.checks.items()),
        *(f"{name}: {value}" for name, value in found.sources.items()),
        "",
        "make it again:",
        f"  {found.command}",
    ]
    shown = sorted(found.answers, key=lambda answer: 2.0 if answer.score is None else answer.score)[:items]
    if shown:
        wrong = sum(answer.score is not None and answer.score < 1 for answer in found.answers)
        lines += ["", f"answers ({len(shown)} of {len(found.answers):,}; {wrong:,} not fully right):"]
    for answer in shown:
        score = "-" if answer.score is None else f"{answer.score:.2f}"
        lines.append(f"  {score}  {answer.id}{f', file {answer.image}' if answer.image else ''}")
        lines += [f"        asked: {answer.question}"] if answer.question else []
        lines += [f"        expected: {answer.expected}", f"        answered: {answer.answer}"]
    return "\n".join(lines)
