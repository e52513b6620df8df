"""The model card (README.md) of an extension or an exported folder, with the metadata of the hub."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, StrictUndefined

from moextend.certificate.certify import trained_scope
from moextend.certificate.record import check_record, files_in, table
from moextend.errors import counted
from moextend.extension import task_inference
from moextend.extension.card import Card, Made, read_extension
from moextend.model.base_name import base_parts
from moextend.model.sources import is_hub_name
from moextend.sharing.hub import Kind, Pushed
from moextend.util import files
from moextend.util.environment import __version__

MARK = "<!-- made by moextend push -->"
"""Marks a card that may be made again; another README.md stays as it is."""
TEMPLATE = Path(__file__).with_name("model_card.md.jinja")
LOADS = {
    "extension": "import moextend\n\nmodel = moextend.load({base!r})\n"
    "extension = moextend.load_extension(model, {id!r})",
    "moextend": "import moextend\n\nmodel = moextend.load_model({id!r})",
    "stock": "from transformers import AutoModelForCausalLM\n\nlm = AutoModelForCausalLM.from_pretrained({id!r})",
    "peft": "from peft import PeftModel\nfrom transformers import AutoModelForCausalLM\n\n"
    "base = AutoModelForCausalLM.from_pretrained({base!r})\nlm = PeftModel.from_pretrained(base, {id!r})",
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
    method: str
    task_identity: str
    row: Mapping[str, float]
    """Name of a metric -> its value in points."""
    tasks: Sequence[TaskResult] = ()
    base: str = ""
    """Name of the base."""
    scope: str = ""
    command: str = ""


def model_card(
    what: Pushed, repository: str, *, base: str = "", licence: str = "", run: RunFacts | None = None
) -> str:
    """Text of README.md for a repository with a folder.

    Args:
        base: name of the base; "": that of the card, of the run, or of the config of an export.
        licence: "": that of the card.
    """
    folder, card = what.folder, read_extension(what.folder) if what.kind == "extension" else None
    made = card.made if card else None
    base = base or (made.base if made else "") or (run.base if run else "") or _base_of(what)
    scope = (str(made.recipe.get("scope", "")) if made else "") or (run.scope if run else "")
    checked = [check_record(path, folder) for path in files_in(folder)]
    infers = card is not None and task_inference.find(folder) is not None
    facts: dict[str, Any] = {
        "name": card.name if card else folder.resolve().name, "kind": what.kind, "base": base, "card": card,
        "made": made, "run": run, "licence": licence or (made.licence if made else ""),
        "reads": task_inference.read(folder).kind if infers else (),
        "scope": scope or (trained_scope(card, folder) if card else ""),
        "certificates": [found for found, problems in checked if not problems],
        "modalities": list(base_parts(card.base)[1]) if card else [],
    }  # fmt: skip
    shown = "BASE" if base.startswith(("/", "~")) else base or "BASE"
    settings = {"recipe": made.recipe, "settings": made.settings} if made else {}
    env = Environment(trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)
    env.filters["points"] = _points
    text = env.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        **facts, files=what, mark=MARK, version=__version__, counted=counted, table=table,
        meaning=IS[what.kind], use=USE.get(facts["scope"], ""), metadata=_metadata(**facts),
        loads=LOADS[what.kind].format(id=repository, base=shown),
        data=_last(made.data) if made else "", command=_command(facts["name"], made) if made else "",
        config=yaml.safe_dump(settings, sort_keys=False, allow_unicode=True),
    )  # fmt: skip
    return re.sub(r"\n{3,}", "\n\n", text).rstrip() + "\n"


def _base_of(what: Pushed) -> str:
    """Name of the base in the config of an exported folder."""
    keys = {"moextend": ("config.json", "base"), "peft": ("adapter_config.json", "base_model_name_or_path")}
    if what.kind not in keys:
        return ""
    name, key = keys[what.kind]
    return str(files.read_json(what.folder / name).get(key) or "")


def _metadata(
    *, name: str, kind: Kind, base: str, licence: str, card: Card | None, made: Made | None, run: RunFacts | None,
    scope: str, modalities: Sequence[str], reads: Sequence[str], **_: object,
) -> str:  # fmt: skip
    from huggingface_hub import EvalResult, ModelCardData

    tags = ["moextend", "mixture-of-experts", "continual-learning"]
    tags += [f"routing-{card.mode}", *([f"scope-{scope}"] if scope else [])] if card else []
    values: dict[str, Any] = {
        "library_name": {"stock": "transformers", "peft": "peft"}.get(kind, "moextend"), "tags": tags,
        "pipeline_tag": "image-text-to-text" if "image" in (*modalities, *reads) else "text-generation",
    }  # fmt: skip
    if made and is_hub_name(made.data):
        values["datasets"] = [made.data]
    if is_hub_name(base):
        relation = "adapter" if kind in ("extension", "peft") else "finetune"
        values |= {"base_model": base, "base_model_relation": relation}
    if licence:
        named = licence.strip().lower().replace(" ", "-")
        known = re.fullmatch(r"[\w.-]{1,39}", named) is not None  # as the hub names them
        values |= {"license": named} if known else {"license": "other", "license_name": licence}
    if scored := [one for one in (run.tasks if run else ()) if one.final is not None]:
        values |= {"model_name": name, "eval_results": [
            EvalResult(
                task_type="text-generation" if one.kind == "text" else "visual-question-answering",
                dataset_type=one.task, dataset_name=one.task, metric_type=one.metric,
                metric_name=f"{one.metric} after the last stage", metric_value=round(one.final or 0.0, 4),
            )
            for one in scored
        ]}  # fmt: skip
    return str(ModelCardData(**values).to_yaml())


def _command(name: str, made: Made) -> str:
    """The command that made an extension, without paths of the author's machine."""
    words = ["moextend", "extend", _last(made.base) or "BASE", "--data", _last(made.data) or "DATA"]
    words += ["--name", name, "--out", name, "--config", "config.yaml"]
    for option, values in made.options.items():
        words += [word for value in values for word in (option, _last(value))]
    return shlex.join(words)


def _last(name: str) -> str:
    """A name of data or a base; of a path on the author's machine only its last part."""
    return name.rstrip("/").rpartition("/")[2] if name.startswith(("/", "~")) else name


def _points(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
