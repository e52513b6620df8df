"""The model card (README.md) of an extension or an exported folder, with the metadata of the hub."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from moextend.certificate.certify import trained_scope
from moextend.certificate.record import PAGE, Certificate, check_record, files_in
from moextend.errors import counted
from moextend.extension import task_inference
from moextend.extension.card import Card, read_extension
from moextend.extension.origin import Effect
from moextend.model.sources import is_hub_name
from moextend.sharing.contents import Kind, Pushed
from moextend.util.release import __version__

MARK = "<!-- made by moextend push -->"
"""Marks a card that may be made again; another README.md stays as it is."""
LOADS = {
    "extension": "extension = moextend.load_extension(model, {id!r})",
    "moextend": "model = moextend.load_model({id!r})",
    "stock": "lm = AutoModelForCausalLM.from_pretrained({id!r})",
    "peft": "lm = PeftModel.from_pretrained(base, {id!r})",
}
IS = {
    "extension": "an extension of a Mixture-of-Experts language model: new experts and their router rows. The base is "
    "not part of it, and does not change",
    "moextend": "an extended Mixture-of-Experts language model, for `transformers` "
    "after `moextend.register_auto_classes()`",
    "stock": "a checkpoint with the experts of an extension, for plain `transformers`",
    "peft": "a LoRA adapter of a Mixture-of-Experts language model, for `peft`",
}
USE = {
    "own": "The task is given: activate it for inputs of its task only. All others are answered by the base.",
    "auto": "The task is inferred from each input; inputs that are too far from the training inputs are answered by "
    "the base.",
    "all": "It is active for every input, together with its co-active extensions.",
}


@dataclass(frozen=True)
class TaskResult:
    """Scores of a task in a run, 0..100; None: not scored."""

    task: str
    metric: str
    kind: str
    """learned: the task of a stage. text: one that is only scored."""
    before: float | None
    """Of the base."""
    learned: float | None
    """After its own stage."""
    final: float | None
    """After the last stage."""
    licence: str = ""
    """Licence of its data."""


@dataclass(frozen=True)
class RunFacts:
    """A run of the benchmark that made an extension."""

    name: str
    stage: str
    task: str
    method: str
    task_identity: str
    row: Mapping[str, float]
    """Name of a metric -> its value in points."""
    tasks: Sequence[TaskResult] = ()
    base: str = ""
    """Name of the base."""
    scope: str = ""
    command: str = ""


@dataclass(frozen=True)
class CardFacts:
    """Everything that a model card says."""

    name: str
    """Name of the extension or of the folder."""
    kind: Kind
    base: str
    """Name of the base; "" if it is not known."""
    licence: str
    """"" if it is not stated."""
    names: tuple[str, ...]
    bytes: int
    card: Card | None = None
    reads: tuple[str, ...] = ()
    scope: str = ""
    run: RunFacts | None = None
    certificates: tuple[Certificate, ...] = ()
    """One for each scope that is certified for these files."""
    modalities: tuple[str, ...] = field(default=())

    @property
    def base_model(self) -> str | None:
        """Hub id of the base; None for one that has none."""
        return self.base if is_hub_name(self.base) else None

    @property
    def datasets(self) -> list[str]:
        """Hub ids of the data."""
        data = self.card.made.data if self.card and self.card.made else ""
        return [data] if is_hub_name(data) else []


def facts_of(what: Pushed, *, base: str = "", licence: str = "", run: RunFacts | None = None) -> CardFacts:
    """Facts for the model card of a folder.

    Args:
        base: name of the base; "": that of the card or of the run. licence: "": that of the card.
    """
    folder, card = what.folder, None
    if what.kind == "extension":
        card = read_extension(folder)
    made = card.made if card else None
    scope = (str(made.recipe.get("scope", "")) if made else "") or (run.scope if run else "")
    scope = scope or (trained_scope(card, folder) if card else "")
    return CardFacts(
        name=card.name if card else folder.resolve().name, kind=what.kind, names=what.names, bytes=what.bytes,
        base=base or (made.base if made else "") or (run.base if run else "") or _base_of(what),
        licence=licence or (made.licence if made else ""), card=card, reads=_reads(folder, card), scope=scope,
        run=run, certificates=_certificates(folder), modalities=_modalities(folder, card),
    )  # fmt: skip


def _base_of(what: Pushed) -> str:
    """Name of the base in the config of an exported folder."""
    from moextend.util import files

    keys = {"moextend": ("config.json", "base"), "peft": ("adapter_config.json", "base_model_name_or_path")}
    if what.kind not in keys:
        return ""
    name, key = keys[what.kind]
    return str(files.read_json(what.folder / name).get(key) or "")


def _reads(folder: Path, card: Card | None) -> tuple[str, ...]:
    if card is None or task_inference.find(folder) is None:
        return ()
    return task_inference.read(folder).kind


def _modalities(folder: Path, card: Card | None) -> tuple[str, ...]:
    from moextend.model.base_name import base_parts

    return tuple(base_parts(card.base)[1]) if card else ()


def _certificates(folder: Path) -> tuple[Certificate, ...]:
    """The certificates in the folder that are about these files."""
    checked = [check_record(path, folder) for path in files_in(folder)]
    return tuple(found for found, problems in checked if not problems)


def model_card(facts: CardFacts, repository: str) -> str:
    """Text of README.md for a repository."""
    parts = [
        f"---\n{_metadata(facts, repository)}\n---\n{MARK}",
        f"# {facts.name}\n\nThis is {IS[facts.kind]}. Made with moextend {__version__}.",
        _what(facts),
        _use(facts, repository),
        _training(facts),
        _results(facts.run) if facts.run else "",
        _certified(facts),
        _limits(facts),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _metadata(facts: CardFacts, repository: str) -> str:
    from huggingface_hub import ModelCardData

    tags = ["moextend", "mixture-of-experts", "continual-learning"]
    if facts.card:
        tags += [f"routing-{facts.card.mode}", *([f"scope-{facts.scope}"] if facts.scope else [])]
    image = "image" in facts.modalities or "image" in facts.reads
    values: dict[str, Any] = {
        "library_name": {"stock": "transformers", "peft": "peft"}.get(facts.kind, "moextend"),
        "tags": tags,
        "pipeline_tag": "image-text-to-text" if image else "text-generation",
        "base_model": facts.base_model,
        "datasets": facts.datasets or None,
    }
    if facts.base_model:
        values["base_model_relation"] = "adapter" if facts.kind in ("extension", "peft") else "finetune"
    if facts.licence:
        named = facts.licence.strip().lower().replace(" ", "-")
        values |= (
            {"license": named}
            if _is_identifier(named)
            else {"license": "other", "license_name": facts.licence}
        )
    if facts.run and (results := _eval_results(facts.run)):
        values |= {"model_name": facts.name, "eval_results": results}
    return str(ModelCardData(**{key: value for key, value in values.items() if value is not None}).to_yaml())


def _is_identifier(licence: str) -> bool:
    """Whether a licence may be one of the hub's names, as "apache-2.0"."""
    return (
        bool(licence) and all(letter.isalnum() or letter in "-._" for letter in licence) and len(licence) < 40
    )


def _eval_results(run: RunFacts) -> list[Any]:
    """Results of the run for the model index."""
    from huggingface_hub import EvalResult

    return [
        EvalResult(
            task_type="text-generation" if one.kind == "text" else "visual-question-answering",
            dataset_type=one.task, dataset_name=one.task, metric_type=one.metric,
            metric_name=f"{one.metric} after the last stage", metric_value=round(one.final, 4),
        )
        for one in run.tasks
        if one.final is not None
    ]  # fmt: skip


def _what(facts: CardFacts) -> str:
    card, lines = facts.card, [f"- Base: {facts.base or 'not stated'}"]
    if card is None:
        return "\n".join([*lines, f"- Size: {facts.bytes / 1e6:.2f} MB in {len(facts.names)} files"])
    layers = ", ".join(card.plan)
    lines[0] += f", fingerprint `{card.base}`" + (f", {card.base_dtype}" if card.base_dtype else "")
    lines += [
        f"- New experts in MoE layers {layers}; {card.mode} routing; {card.width:g} of the width of their parents",
        f"- Size: {facts.bytes / 1e6:.2f} MB in {len(facts.names)} files",
        f"- Licence: {facts.licence or 'not stated; ask the author before you use it'}",
    ]
    if card.beside:
        lines.append(f"- Needs, loaded before it: {', '.join(each['name'] for each in card.beside)}")
    if facts.modalities:
        lines.append(f"- Modalities of the base: {', '.join(facts.modalities)}")
    return "\n".join(lines)


def _use(facts: CardFacts, repository: str) -> str:
    base = facts.base if facts.base and not facts.base.startswith(("/", "~")) else "BASE"
    loads = LOADS[facts.kind].format(id=repository)
    lines = {
        "extension": ["import moextend", "", f"model = moextend.load({base!r})", loads],
        "moextend": ["import moextend", "", loads],
        "stock": ["from transformers import AutoModelForCausalLM", "", loads],
        "peft": [
            "from peft import PeftModel", "from transformers import AutoModelForCausalLM", "",
            f"base = AutoModelForCausalLM.from_pretrained({base!r})", loads,
        ],
    }[facts.kind]  # fmt: skip
    identity = f"\n\n{USE[facts.scope]}" if facts.scope in USE else ""
    return "## Use\n\n```python\n" + "\n".join(lines) + f"\n```{identity}"


def _training(facts: CardFacts) -> str:
    made = facts.card.made if facts.card else None
    run = f"Stage {facts.run.stage} of the run {facts.run.name}." if facts.run else ""
    if run and facts.run and facts.run.command:
        run += f"\n\n```sh\n{facts.run.command}\n```"
    if made is None:
        return f"## Training\n\n{run}" if run else ""
    data = _without_place(made.data)
    lines = [
        f"- Data: {data or 'not stated'}, {made.conversations} conversations (digest `{made.data_digest}`)",
        f"- Loss: {made.loss_first:.3f} in the first tenth of the steps, {made.loss_last:.3f} in the last",
        f"- Made {made.date} with moextend {made.version}",
    ]
    if made.effect is not None:
        lines.insert(2, f"- Quality: {_quality(made.effect)}")
    words = ["moextend", "extend", _without_place(made.base) or "BASE", "--data", data or "DATA"]
    words += ["--name", facts.name, "--out", facts.name, "--config", "config.yaml"]
    for option, values in made.options.items():
        words += [word for value in values for word in (option, _without_place(value))]
    command = shlex.join(words)
    shown = _yaml({"recipe": made.recipe, "settings": made.settings})
    block = f"```sh\n{command}\n```\n\nwith `config.yaml`:\n\n```yaml\n{shown}```"
    return "\n\n".join(part for part in ["## Training", run, "\n".join(lines), block] if part)


def _quality(effect: Effect) -> str:
    first, last = effect.before, effect.after
    exact = "" if first.exact is None else f", exact answers {first.exact:.1%} -> {last.exact:.1%}"
    return (
        f"log-likelihood per token {first.likelihood:.3f} -> {last.likelihood:.3f}{exact} on "
        f"{counted(effect.held_out, 'held-out conversation')} of its data; change of generic text {effect.generic:+.3f}"
    )


def _without_place(name: str) -> str:
    """A name of data or a base; of a path on the author's machine only its last part."""
    return name.rstrip("/").rpartition("/")[2] if name.startswith(("/", "~")) else name


def _yaml(values: Any) -> str:
    import yaml

    return str(yaml.safe_dump(values, sort_keys=False, allow_unicode=True))


def _results(run: RunFacts) -> str:
    row = _table(list(run.row), [[f"{value:.2f}" for value in run.row.values()]])
    tasks = [
        [
            one.task,
            one.kind,
            one.metric,
            *map(_number, (one.before, one.learned, one.final)),
            one.licence or "?",
        ]
        for one in run.tasks
    ]
    titles = ["task", "kind", "metric", "base", "when learned", "final", "licence of the data"]
    what = (
        f"The run {run.name} learned its tasks one after the other with the method {run.method}; task id at inference: "
        f"{run.task_identity}. All values are in points. FM is what was forgotten of the tasks, and the change of text "
        "is negative where the base lost."
    )
    return "\n\n".join(["## Results of its run", what, row, _table(titles, tasks)])


def _certified(facts: CardFacts) -> str:
    if not facts.certificates:
        return "## Certificate\n\nNone. `moextend certify` makes one."
    parts, scopes = ["## Certificate"], [one.scope for one in facts.certificates]
    if facts.scope and facts.scope not in scopes:
        parts.append(
            f"**Warning:** this extension was made for scope {facts.scope}, and is certified for scope "
            f"{' and '.join(scopes)} only. What follows says nothing about its use with scope {facts.scope}."
        )
    for one in facts.certificates:
        rows = [[claim.name, claim.status, str(claim.items or "-")] for claim in one.claims]
        details = f"made {one.date}; details are in `{PAGE.format(one.scope)}`."
        parts += [
            f"Scope {one.scope}: {one.verdict[:-1]}, {details}",
            _table(["claim", "status", "compared"], rows),
        ]
    return "\n\n".join(parts)


def _limits(facts: CardFacts) -> str:
    lines = []
    if facts.card:
        lines.append(
            "- It loads only on exactly this base (weights, number type, and the encoders and projectors of its "
            "media); others are refused."
        )
    if facts.scope == "all":
        lines.append("- It is active for every input, so answers to text may differ from those of the base.")
    if facts.scope == "auto" and not facts.reads:
        lines.append(
            "- Text whose words resemble those of its task may reach it; name the task where it is known."
        )
    if facts.scope == "auto" and facts.reads:
        lines.append(
            f"- Inputs without {' and '.join(facts.reads)} never reach it; similar ones of other tasks may."
        )
    if facts.kind == "stock":
        lines.append("- Every input reaches the new experts; the task is neither given nor inferred.")
    if not facts.run:
        lines.append("- No benchmark run is named, so its forgetting is not measured here.")
    return "\n\n".join(["## Limits", "\n".join(lines)]) if lines else ""


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _table(titles: list[str], rows: list[list[str]]) -> str:
    lines = [titles, ["---"] * len(titles), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
