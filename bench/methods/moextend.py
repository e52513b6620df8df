"""MoExtend (arXiv 2408.03511): each stage adds an expert set to the frozen model: probe, expand, tune."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import moextend
from moextend.bench.methods import inferred, trained
from moextend.bench.methods.method import Loop, Rate, Stage
from moextend.recipe import Recipe

if TYPE_CHECKING:
    from moextend import MultimodalLM


class Config(Recipe):
    """Settings of MoExtend."""

    learning_rate: Rate | None = None
    """None takes the sequence's."""


def told(config: Config) -> bool:
    """scope own is told the task, to choose its extension."""
    return config.scope == "own"


def text_untouched(config: Config) -> bool:
    """own, auto: an extension learnt from inputs with images is reached by no input without one."""
    return config.scope in ("own", "auto")


def probe_steps(config: Config) -> int:
    """Steps of router tuning before each stage."""
    return config.probe_steps if config.layers == "probe" else 0


def start(model: MultimodalLM, config: Config, seed: int) -> None:
    """Nothing to prepare."""


def learn(model: MultimodalLM, config: Config, stage: Stage, loop: Loop) -> dict[str, Any]:
    """Probes which layers change most, adds experts there, and trains these alone."""
    learnt = moextend.extending.learn(
        model, stage.task, config, loop, held_out=stage.held_out, seed=stage.seed,
        learning_rate=config.learning_rate, beside=_beside(config, stage),
        earlier=[folder for _, folder in stage.earlier] if config.remembers else [], generic=stage.generic,
        batch_size=stage.batch_size, folder=stage.folder,
    )  # fmt: skip
    facts = {
        **trained.facts(learnt.report),
        "layers": list(learnt.plan),
        "parents": list(learnt.plan.values()),
        "change": learnt.probe.change,
    }
    if config.scope == "auto":
        facts["recognised"] = inferred.portray(model, stage)
    return facts


def _beside(config: Config, stage: Stage) -> list[str]:
    """The extensions that a new one is made beside."""
    return [task for task, _ in stage.earlier] if config.scope == "all" else []


def save(model: MultimodalLM, config: Config, stage: Stage) -> None:
    """Writes the expert set, and the memory that later stages keep closed."""
    moextend.extending.keep(
        model, stage.task, config, stage.folder, held_out=stage.held_out, seed=stage.seed,
        batch_size=stage.batch_size,
    )  # fmt: skip
    moextend.extending.forget_probe(stage.folder)
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
    # The oracle asks with scope own for extensions that were made beside others.
    moextend.expand.activate(model.lm, reach, partial=config.scope == "own")
    return moextend.active_fingerprint(model)
