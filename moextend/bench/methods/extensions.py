"""Base class of methods with an extension for each stage: new experts in the frozen MoE."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import moextend
from moextend.bench.methods.method import Knob, LearningRate, Method, Parameters
from moextend.moe.recipe import Recipe, check_name, count_layers


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
