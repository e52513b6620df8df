"""MoExtend (arXiv 2408.03511): each stage adds an expert set to the frozen model: probe, expand, tune."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

import moextend
from moextend.bench.methods import inferred, trained
from moextend.bench.methods.method import Loop, Stage
from moextend.spec import Spec

if TYPE_CHECKING:
    from moextend import MultimodalLM


class Config(Spec):
    """Settings of MoExtend."""

    learning_rate: float | None = None
    """None takes the sequence's."""
    routing: Literal["exact", "paper", "slot"] = "exact"
    scope: Literal["own", "auto", "all"] = "own"
    """own: a task's inputs reach its own extension only, so the task is told at inference. auto: likewise, but the
    task is recognised from the input. all: every input may reach every extension, and the routers decide."""
    layers: Literal["probe", "all", "first", "last", "random"] = "probe"
    share: float = Field(0.5, gt=0, le=1)
    """Share of the MoE layers that get new experts (the paper's p)."""
    experts: int = Field(1, ge=1)
    """New experts a layer."""
    parent: Literal["selection", "random"] = "selection"
    """selection: copies of the most chosen experts (Eq. 9)."""
    calibration: bool = True
    """paper routing only."""
    probe_steps: int = Field(30, ge=1)
    retention: Literal["none", "memory"] = "memory"
    """With scope all: memory keeps a few router inputs of earlier stages, which new experts learn to leave alone."""
    memory_tokens: int = Field(4000, ge=1)
    """Router inputs kept a layer and stage."""
    memory_sample: int = Field(1024, ge=1)
    """Of these, drawn at every step."""
    gate_rate: float = Field(10.0, gt=0)
    """Factor on the learning rate of router rows and biases where a memory is kept: they have far to go."""
    margin: float = 0.2
    memory_weight: float = 10.0

    @model_validator(mode="after")
    def _paper_has_no_memory(self) -> Config:
        if self.routing == "paper" and "retention" not in self.model_fields_set:
            return self.model_copy(update={"retention": "none"})
        return self


def told(config: Config) -> bool:
    """scope own is told the task, to choose its extension."""
    return config.scope == "own"


def probe_steps(config: Config) -> int:
    """Steps of router tuning before each stage."""
    return config.probe_steps if config.layers == "probe" else 0


def start(model: MultimodalLM, config: Config, seed: int) -> None:
    """Nothing to prepare."""


def learn(model: MultimodalLM, config: Config, stage: Stage, loop: Loop) -> dict[str, Any]:
    """Probes which layers change most, adds experts there, and trains these alone."""
    moextend.activate(model.lm, _beside(config, stage))
    probe = _probe(model, config, stage, loop)
    layers = moextend.choose_layers(config.layers, config.share, probe, stage.seed)
    plan = moextend.parents(probe, layers, config.experts)
    if config.parent == "random":
        drawn = random.Random(stage.seed)
        plan = {layer: drawn.sample(range(len(probe.before[layer])), config.experts) for layer in layers}
    memory = _memory(model, config, stage)
    moextend.attach(
        model.lm, stage.task, plan, mode=config.routing, calibrate=config.calibration, seed=stage.seed
    )
    new = moextend.new_parameters(model.lm, stage.task)
    model.learn_only([f"lm.{name}" for name in new])
    report = loop(
        learning_rate=config.learning_rate,
        rates={".rows": config.gate_rate, ".bias": config.gate_rate} if memory else None,
        extra_loss=moextend.keep_closed(
            model, stage.task, memory, margin=config.margin, weight=config.memory_weight,
            sample=config.memory_sample, seed=stage.seed,
        )
        if memory
        else None,
    )  # fmt: skip
    facts = {
        **trained.facts(report),
        "layers": layers,
        "parents": [plan[layer] for layer in layers],
        "change": probe.change,
    }
    if config.scope == "auto":
        facts["recognised"] = inferred.portray(model, stage)
    return facts


def _beside(config: Config, stage: Stage) -> list[str]:
    """The extensions that a new one is made beside."""
    return [task for task, _ in stage.earlier] if config.scope == "all" else []


def _probe(model: MultimodalLM, config: Config, stage: Stage, loop: Loop) -> Any:
    if config.layers != "probe":
        return moextend.Probe(moextend.selection_shares(model, stage.held_out), [])
    return moextend.probe_layers(model, stage.held_out, lambda: loop(steps=config.probe_steps, phase="probe"))


def _memory(model: MultimodalLM, config: Config, stage: Stage) -> Any:
    """Router inputs of the generic text and of all earlier stages; nothing where no memory is kept."""
    if config.scope != "all" or config.retention == "none":
        return {}
    memories = [moextend.memory.read(folder) for _, folder in stage.earlier]
    if stage.generic:
        memories.insert(0, moextend.memory.remember(model, stage.generic, config.memory_tokens, stage.seed))
    return moextend.memory.join(memories)


def save(model: MultimodalLM, config: Config, stage: Stage) -> None:
    """Writes the expert set, and the memory that later stages keep closed."""
    if config.scope == "all" and config.retention == "memory":
        kept = moextend.memory.remember(model, stage.held_out, config.memory_tokens, stage.seed)
        moextend.memory.write(kept, stage.folder)
    moextend.save_extension(model, stage.task, beside=_beside(config, stage), folder=stage.folder)
    if config.scope == "auto":
        inferred.choose(model, stage)


def restore(model: MultimodalLM, config: Config, stage: Stage) -> None:
    """Attaches the expert set of that stage."""
    moextend.load_extension(model, stage.folder)
    if config.scope == "auto":
        inferred.choose(model, stage)


def select(model: MultimodalLM, config: Config, task: str, learnt: Sequence[str]) -> str:
    """own: the task's own extension, or the base where there is none. auto, all: whatever is asked."""
    if config.scope == "auto":
        # Text reaches no extension: there is none that takes inputs without an image.
        moextend.activate(model.lm, learnt)
        assert model.choose is not None, "restore and save set it"
        named = moextend.active_fingerprint(model)
        moextend.activate(model.lm, [])
        return f"{named}-{model.choose.fingerprint()}"
    reach = [name for name in learnt if config.scope == "all" or name == task]
    moextend.activate(model.lm, reach)
    return moextend.active_fingerprint(model)
