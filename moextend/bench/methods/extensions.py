"""Base class of methods with an extension for each stage: new experts in the frozen MoE."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import moextend
from moextend.bench.methods import trained
from moextend.bench.methods.method import Knob, LearningRate, Loop, Method, Parameters, Stage
from moextend.moe.recipe import Recipe, check_name, count_layers

if TYPE_CHECKING:
    from moextend import MultimodalLM

KEPT = ("memory_tokens", "memory_sample", "margin", "gate_rate", "memory_weight")
"""Settings of what is kept for retention, and of its loss."""


class Extensions(Method):
    """New experts for each stage, by a recipe."""

    scales = "each"

    class Config(Recipe):
        """What can be set."""

        learning_rate: LearningRate = None
        """None: that of the sequence."""

    config: Config

    @property
    def probe_steps(self) -> int:
        """Steps of router tuning before each stage."""
        return self.config.probe_steps if self.config.layers == "probe" else 0

    @property
    def unused(self) -> Mapping[str, str]:
        """Settings of a probe, of calibrations and of a share of the layers, where there is none."""
        config, found = self.config, dict[str, str]()
        if config.layers != "probe":
            found["probe_steps"] = "layers=probe"
        if config.layers == "all" or isinstance(config.layers, list):
            found["share"] = "layers that are chosen"
        if config.routing != "paper":
            found["calibration"] = "routing=paper"
        return found

    def check_stages(self, names: Sequence[str]) -> None:
        """Refuses what cannot be the name of an extension."""
        for name in names:
            check_name(name)

    def check(self, model: Any) -> None:
        """Raises InputError if the model lacks one of the layers that are named, or cannot have the routing."""
        from moextend.extension.learning import check_fits

        check_fits(model.lm, self.config)

    def learn(self, model: MultimodalLM, stage: Stage, loop: Loop) -> dict[str, Any]:
        """Probes which layers change most, adds experts there, and trains only these."""
        from moextend.extension import learning

        config, earlier = self.config, stage.earlier
        learned = learning.learn(
            model, stage.task, config, loop, held_out=stage.held_out, seed=stage.seed,
            learning_rate=config.learning_rate,
            coactive=[task for task, _ in earlier] if config.scope == "all" else [],
            earlier=[folder for _, folder in earlier] if config.keeps_memory else [], generic=stage.generic,
            batch_size=stage.batch_size, folder=stage.folder,
        )  # fmt: skip
        return {
            **trained.facts(learned.report),
            "layers": list(learned.plan),
            "parents": list(learned.plan.values()),
            "change": learned.probe.change,
        }

    def save(self, model: MultimodalLM, stage: Stage) -> None:
        """Writes the expert set."""
        from moextend.extension import learning

        learning.keep(
            model, stage.task, self.config, stage.folder, held_out=stage.held_out, seed=stage.seed,
            batch_size=stage.batch_size,
        )  # fmt: skip

    def restore(self, model: MultimodalLM, stage: Stage) -> None:
        """Attaches the expert set of that stage."""
        moextend.load_extension(model, stage.folder)

    @property
    def knobs(self) -> tuple[Knob, ...]:
        """The number of new experts, and in exact routing their width."""
        return (Knob("experts"), *([Knob("width", fraction=True)] if self.config.routing == "exact" else []))

    def trainable(self, model: Any) -> Parameters:
        """Parameters of a first extension: in the lowest layers, as their number does not depend on the layers."""
        config, lm = self.config, model.lm
        layers = config.layers if isinstance(config.layers, list) else range(self._extended(lm))
        plan = {layer: [0] * config.experts for layer in layers}
        moextend.attach(
            lm, "first", plan, mode=config.routing, calibrate=config.calibration, width=config.width
        )
        return {f"lm.{name}": parameter for name, parameter in moextend.new_parameters(lm, "first").items()}

    def _extended(self, lm: Any) -> int:
        """Number of layers that get new experts."""
        from moextend.moe import sites

        return count_layers(self.config.layers, self.config.share, len(sites.find_sites(lm)))
