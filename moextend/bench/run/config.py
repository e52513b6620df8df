"""The resolved config of a run."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from moextend.bench.checkpoints import Checkpoint
from moextend.bench.methods import MethodSpec, parse
from moextend.bench.methods.elsewhere import spec_of
from moextend.bench.scoring import Backend
from moextend.bench.sequence import OWN, SequenceSpec
from moextend.bench.task import Mode, TaskSpec
from moextend.bench.tuned import STATED
from moextend.errors import SpecError
from moextend.util import content, files, spec
from moextend.util.spec import Record, problem_of, unset

JOINT = "joint"
"""Name of the only stage of a joint run."""
CONTENT = ("tasks", "registry", "methods", "scorers", "data")
"""Folders of a workspace with what runs are made of."""


class Identity(BaseModel):
    """`identity` of config.json: equal for two runs exactly if they are the same run."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    sequence: dict[str, Any]
    """The sequence with its stages in training order, and all overrides applied."""
    tasks: dict[str, dict[str, Any]]
    """Name -> spec of every task for alignment, training or scoring."""
    method: str
    """`name` or `name:key=value,...`."""
    seed: int = 0
    """Seed of the data order, of the training and of new weights."""
    order: str = "given"
    """`given`, `reverse` or `random:K`, the name of one order; the stages of `sequence` already have it."""
    mode: Mode = "sequence"
    """sequence, independent (each task from the base) or joint (all tasks at once)."""
    scored: bool = unset(False)
    """Whether the stages were trained elsewhere and are only scored (`moextend bench score`). Missing: no."""


class About(BaseModel):
    """What config.json says of a run besides its identity."""

    places: dict[str, Any] = Field(default_factory=dict)
    """Where the specs came from, for relative paths: {"workspace", "sequence", "tasks": {name: path}}; of a run that
    only scores also "stages", a list of its checkpoints."""
    device: str = "auto"
    """Requested device: auto, cpu, cuda, ..."""
    protocol: str | None = None
    """Published protocol of the sequence. null: none."""
    tuned_on: str | None = Field(default=None, pattern=STATED)
    """Source of the method's settings: validation items, the same of another sequence ("validation items of tiny"),
    published, default, nothing, test items, or no settings. null: not stated."""
    oracle: bool = False
    """Whether learned tasks are also scored at the end with only their own extension active."""
    deterministic: bool = False
    """Whether only deterministic algorithms are used, from the first command that asked for it."""
    backend: dict[str, Any] = unset({})
    """Settings of the backend that scores, of the last command. Missing: transformers, in the process of the run."""


class RunConfig(About, Identity):
    """The resolved config of a run; written before the run starts."""

    def identity(self) -> dict[str, Any]:
        """The part that is equal for two runs exactly if they are the same run."""
        return self.model_dump(mode="json", include=set(Identity.model_fields))

    @cached_property
    def digest(self) -> str:
        """Digest of the identity."""
        return files.digest(self.identity())

    @cached_property
    def method_spec(self) -> MethodSpec:
        """The method with its settings, those of the sequence included."""
        if self.scored:
            return spec_of(self.method, self.sequence.get("settings"))
        return parse(self.method, self.sequence.get("settings"), self.workspace)

    @cached_property
    def checkpoints(self) -> list[Checkpoint]:
        """The checkpoints of a run that only scores, from the base on; later ones may not be there yet."""
        return [
            spec.parse(Checkpoint, one, where=f"config.json: places.stages[{number}]")
            for number, one in enumerate(self.places.get("stages", []))
        ]

    @cached_property
    def sequence_spec(self) -> SequenceSpec:
        """The sequence as a typed spec."""
        found = spec.parse(SequenceSpec, self.sequence, where="config.json: sequence")
        path = _path(self.places.get("sequence"))
        if path is None or not path.is_file():  # an unpacked run
            known = content.names("registry", self.workspace)
            path = known.get(found.sequence, known.get(OWN, path))
        return found.model_copy(update={"path": path})

    @cached_property
    def read_tasks(self) -> dict[str, TaskSpec]:
        """The tasks that `task_spec` has read."""
        return {}

    def task_spec(self, name: str) -> TaskSpec:
        """A task as a typed spec, with the data of this seed.

        Relative paths start from its file, or from that of the same name if it is gone.
        """
        if name not in self.read_tasks:
            found = spec.parse(TaskSpec, self.tasks[name], where=f"config.json: tasks.{name}")
            path = _path(self.places.get("tasks", {}).get(name))
            if path is None or not path.is_file():  # an unpacked run, or another checkout
                path = content.names("tasks", self.workspace).get(self.visited(name), path)
            self.read_tasks[name] = found.model_copy(update={"path": path}).of_seed(self.seed)
        return self.read_tasks[name]

    def __copy__(self) -> Self:
        """Without what was read of the values, which `model_copy` changes."""
        copied = super().__copy__()
        for name in vars(copied).keys() - type(self).model_fields.keys():
            del vars(copied)[name]
        return copied

    def experiment(self) -> dict[str, Any]:
        """The part that runs in one table have in common: everything except method, seed, order and mode."""
        stages = sorted(self.sequence["stages"], key=lambda stage: str(stage["task"]))
        return {"sequence": {**self.sequence, "stages": stages, "settings": {}}, "tasks": self.tasks}

    @property
    def stages(self) -> list[str]:
        """Tasks in training order."""
        return [stage["task"] for stage in self.sequence["stages"]]

    @property
    def stage_names(self) -> list[str]:
        """Names of the stages: their tasks, or the name of the joint stage."""
        return [JOINT] if self.mode == "joint" else self.stages

    @property
    def steps(self) -> dict[str, int]:
        """Stage -> its training steps."""
        return {
            stage["task"]: stage.get("steps") or self.sequence["train"]["steps"]
            for stage in self.sequence["stages"]
        }

    @property
    def visits(self) -> tuple[tuple[str, int | None], ...]:
        """(task, steps) in training order, each visit by the name of its task: equal for equal orders."""
        return tuple(
            (stage.get("visit_of") or stage["task"], stage.get("steps")) for stage in self.sequence["stages"]
        )

    def visited(self, stage: str) -> str:
        """Task of a stage: another name than that of the stage for visits after the first."""
        return next(
            (s["visit_of"] for s in self.sequence["stages"] if s["task"] == stage and "visit_of" in s), stage
        )

    @property
    def retention(self) -> list[str]:
        """Text tasks that are only scored."""
        return list(self.sequence.get("retention", []))

    @property
    def transfer(self) -> list[str]:
        """Image tasks that are only scored."""
        return list(self.sequence.get("transfer", []))

    @property
    def workspace(self) -> Path:
        """The user's folder with content."""
        return Path(self.places.get("workspace", "."))

    def backend_settings(self) -> Backend:
        """The backend that scores."""
        return spec.parse(Backend, self.backend, where="config.json: backend")

    @property
    def slug(self) -> str:
        """Name of the folder: method, seed, and settings other than the default."""
        more = [] if self.order == "given" else [self.order]
        more += [] if self.mode == "sequence" else [self.mode]
        return "-".join([slug(self.method), f"s{self.seed}", *map(slug, more)])


def grows(old: dict[str, Any], new: dict[str, Any]) -> bool:
    """Whether `new` only adds later stages or scored tasks to `old`, so that all results stay valid."""
    if new["mode"] == "joint" or old["mode"] != new["mode"]:
        return False
    stages = old["sequence"]["stages"]
    scored = {key: old["sequence"][key] for key in ("retention", "transfer") if key in old["sequence"]}
    if any(not set(names) <= set(new["sequence"].get(key, [])) for key, names in scored.items()):
        return False
    cut = {**new["sequence"], "stages": new["sequence"]["stages"][: len(stages)], **scored}
    tasks = {name: task for name, task in new["tasks"].items() if name in old["tasks"]}
    return not differences(old, {**new, "sequence": cut, "tasks": tasks})


class ConfigFile(About, Record):
    """`config.json`: the config of the run, paths of its specs, and its environment."""

    id: str
    """Unique id of the run, also among runs of the same config."""
    digest: str
    """Digest of `identity`, to refuse an edited one."""
    identity: dict[str, Any]
    """Equal for two runs exactly if they are the same run; its keys are below."""
    environments: list[dict[str, Any]] = Field(default_factory=list)
    """Versions, commit and machine of the run, with a new entry after each change. No score depends on them."""

    def config(self, path: Path) -> RunConfig:
        """The config; SpecError if `path`, the file, has none or was edited."""
        about = {name: getattr(self, name) for name in About.model_fields}
        try:
            config = RunConfig(**self.identity, **about)
        except (TypeError, ValidationError) as error:
            what = str(error) if isinstance(error, TypeError) else problem_of(error)
            raise SpecError(
                f"holds no config ({what}).", where=str(path), hint="Remove the folder of the run."
            ) from error
        if files.digest(self.identity) != self.digest:
            raise SpecError(
                "was edited: its digest does not match.",
                where=str(path),
                hint="Restore the original, or remove the folder of the run.",
            )
        return config


def slug(text: str) -> str:
    """A name for paths: "moextend:scope=all,k=2" -> "moextend+scope-all+k-2"."""
    return re.sub(r"[^\w.+-]+", "-", re.sub(r"[:,]", "+", text).replace("=", "-")).strip("-.") or "_"


def without_notes(record: dict[str, Any]) -> dict[str, Any]:
    """An identity, or an experiment, without the keys of tasks and trainings that change no result."""
    tasks = {}
    for name, task in record["tasks"].items():
        kept = _without(task, "licence", "non_commercial")
        tasks[name] = kept | {
            key: _without(kept[key], "prepare")
            for key in ("data", "lm_eval")
            if isinstance(kept.get(key), dict)
        }
    sequence, align = dict(record["sequence"]), record["sequence"].get("align")
    if "train" in sequence:  # else nothing is trained
        sequence["train"] = _without(sequence["train"], "report_to", "checkpoint_steps")
    if isinstance(align, list):
        sequence["align"] = [_without(each, "checkpoint_steps") for each in align]
    elif isinstance(align, dict):
        sequence["align"] = _without(align, "checkpoint_steps")
    return {**record, "sequence": sequence, "tasks": tasks}


def _without(record: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key not in keys}


def stage_name(names: Sequence[str]) -> str:
    """Task of a stage, or the name of the joint stage."""
    return names[0] if len(names) == 1 else JOINT


def differences(a: Any, b: Any, place: str = "") -> list[tuple[str, Any, Any]]:
    """(place, value in a, value in b) of all differences; a missing key counts as None."""
    if isinstance(a, dict) and isinstance(b, dict):
        parts = [(f"{place}.{key}".lstrip("."), a.get(key), b.get(key)) for key in {**a, **b}]
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        parts = [(f"{place}[{i}]", x, y) for i, (x, y) in enumerate(zip(a, b, strict=True))]
    else:
        return [] if a == b else [(place, a, b)]
    return [found for where, x, y in parts for found in differences(x, y, where)]


def _path(value: str | None) -> Path | None:
    return Path(value) if value else None


def places_now(places: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The places of the specs of the run in `folder`, also where its workspace was moved or copied.

    A run of a workspace lies in WORKSPACE/runs/SEQUENCE. Those of one elsewhere, as unpacked ones, are as recorded.
    """
    runs, was = folder.absolute().parent.parent, Path(places.get("workspace", "."))
    here, old = runs.parent, was / "runs"
    if runs.name != old.name or (old.is_dir() and old.samefile(runs)):
        return places
    if was.is_dir() and not any((here / name).is_dir() for name in CONTENT):
        return places

    def moved(path: str | None) -> str | None:
        return str(here / Path(path).relative_to(was)) if path and Path(path).is_relative_to(was) else path

    tasks = {name: moved(path) for name, path in places.get("tasks", {}).items()}
    return {**places, "workspace": str(here), "sequence": moved(places.get("sequence")), "tasks": tasks}
