"""Orthogonal subspace fine-tuning (OSF, Nayak et al., 2025, arXiv 2504.07097) of attention with peft.

Each stage decomposes each linear map of attention by singular values: ``W = U_high S_high V_high + U_low S_low V_low``.
The largest of them stay frozen with their directions; the rest is trained with gradients that are orthogonal to the
frozen directions. At its end the map becomes the sum again, and the next stage decomposes that: peft's page unloads
without merging, which in peft 0.21 drops what was learned. AdamW scales each coordinate of the projected gradients, so
that updates are orthogonal only roughly, as in peft and in the authors' code.

Other than in the paper the frozen share is the same for all layers and stages (peft's default is half), and experts
stay as they are: peft decomposes linear maps, and experts are stacks.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from moextend.bench.methods import adapters
from moextend.bench.methods.method import Parameters, Stage
from moextend.bench.methods.shapes import Extra
from moextend.bench.methods.weights import LM, TrainedWeights
from moextend.errors import InputError
from moextend.util.search_space import Choices

if TYPE_CHECKING:
    from moextend import MultimodalLM

MARK = ".osf_svd_params."
"""Part of the names of the trained factors."""


class Osf(TrainedWeights):
    """The small singular directions of attention are trained, the large ones frozen."""

    look = ("ochre", "*")

    class Config(TrainedWeights.Config):
        """What can be set."""

        preserved: Annotated[float, Choices((0.25, 0.5, 0.75, 0.9))] = Field(default=0.5, gt=0, lt=1)
        """Frozen share of the singular directions of each map."""

    config: Config

    def check(self, model: Any) -> None:
        """Raises InputError if peft cannot decompose the model's attention."""
        import torch

        maps = self._maps(model)
        if not maps:
            what = f"osf finds no linear maps of attention in {type(model.lm).__name__}."
            raise InputError(what, hint="Choose another method, such as full-ft or moextend.")
        for name, module in maps.items():
            weight = module.weight
            if not isinstance(module, torch.nn.Linear) or weight.dtype.itemsize < 2:
                what = f"osf cannot decompose '{name}', a {type(module).__name__} of {weight.dtype}."
                raise InputError(what, hint="Load the base unquantised, or choose a LoRA method.")
            if int(self.config.preserved * min(weight.shape)) < 1:
                what = (
                    f"preserved={self.config.preserved:g} freezes none of the {min(weight.shape)} directions"
                )
                raise InputError(f"{what} of '{name}'.", hint="Raise it.")

    def parameters(self, model: MultimodalLM) -> Parameters:
        """Name -> weight of a linear map of attention; a stage trains their factors."""
        return {f"{LM}{name}.weight": module.weight for name, module in self._maps(model).items()}

    def prepare(self, model: MultimodalLM, stage: Stage) -> Parameters:
        """Decomposes the maps; returns the factors to train."""
        from peft import OSFConfig
        from peft.tuners.osf import OSFModel

        maps = self._maps(model)
        kinds = {name: module.weight.dtype for name, module in maps.items()}
        config = OSFConfig(target_modules=list(maps), effective_rank=self.config.preserved)
        for module in maps.values():
            module.weight.data = module.weight.data.float()  # the factors get its type
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._tuner = OSFModel(model.lm, config, adapters.ONE)
        for name, module in maps.items():
            module.weight.data = module.weight.data.to(kinds[name])
        return {name: p for name, p in model.named_parameters() if MARK in name}

    def after_stage(self, model: MultimodalLM, stage: Stage) -> Mapping[str, Any]:
        """Puts the sums in the places of the maps."""
        self._tuner.merge_and_unload(progressbar=False)
        return {}

    def trainable(self, model: Any) -> Parameters:
        """The factors of a stage."""
        return self.prepare(model, None)  # type: ignore[arg-type]

    def extra(self, model: Any) -> Extra:
        """The factors before training are held, too; the maps are stored."""
        stored = sum(weight.numel() * weight.element_size() for weight in self.parameters(model).values())
        return Extra(copies=1, merged=True, stored_copies=0, stored=stored)

    def _maps(self, model: Any) -> dict[str, Any]:
        """Name in the LM -> linear map of attention."""
        return {name: model.lm.get_submodule(name) for name in adapters.attention_maps(model.lm)}
