"""MoExtend (arXiv 2408.03511): each stage adds an expert set to the frozen model: probe, expand, tune."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import moextend
from moextend.bench.methods import inferred
from moextend.bench.methods.extensions import KEPT, Extensions
from moextend.bench.methods.method import Stage
from moextend.bench.methods.shapes import Extra
from moextend.bench.task import TaskIdentity
from moextend.moe.recipe import Scope

if TYPE_CHECKING:
    from moextend import MultimodalLM

SIZE = 4
"""Bytes of the size of an output in a router-input memory."""
IDENTITY: dict[str, TaskIdentity] = {"own": "given", "auto": "inferred", "all": "none"}
"""scope -> task identity at inference."""


class MoExtend(inferred.Narrowed, Extensions):
    """New experts in the frozen MoE for each stage."""

    role = "reference"
    look = ("blue", "o")

    class Config(Extensions.Config):
        """What can be set."""

        scope: Scope = "own"
        """own: the benchmark gives the task by default."""

    config: Config

    @property
    def task_identity(self) -> TaskIdentity:
        """own: given, to choose the extension. auto: inferred. all: none."""
        return IDENTITY[self.config.scope]

    @property
    def text_untouched(self) -> bool:
        """own, auto: inputs without an image never use an extension that was trained on images."""
        return self.config.scope in ("own", "auto")

    @property
    def unused(self) -> Mapping[str, str]:
        """Also settings of retention, where no later extension computes for the inputs of an earlier one."""
        config, found = self.config, {**super().unused}
        if config.scope != "all":
            found |= dict.fromkeys(("retention", *KEPT), "scope=all")
        elif not config.keeps_memory:
            found |= dict.fromkeys(KEPT, "retention")
        elif config.retention != "memory":
            found["margin"] = "retention=memory"
        return found

    inference_files = (inferred.FILE,)

    @property
    def training_settings(self) -> dict[str, Any]:
        """own and auto train the same extensions: alone, on the base."""
        found = self.config.model_dump(mode="json")
        return {**found, "scope": "own"} if self.config.scope == "auto" else found

    @property
    def trains_alone(self) -> bool:
        """own, auto: no other extension is active in the training."""
        return self.config.scope != "all"

    def prepare_inference(self, model: MultimodalLM, stage: Stage) -> dict[str, Any]:
        """auto: writes the task statistics of the stage."""
        return inferred.facts(model, stage) if self.config.scope == "auto" else {}

    def save(self, model: MultimodalLM, stage: Stage) -> None:
        """Writes the expert set, and the router-input memory for later stages."""
        super().save(model, stage)
        if self.config.scope == "auto":
            inferred.choose(model, stage)

    def restore(self, model: MultimodalLM, stage: Stage) -> None:
        """Attaches the expert set of that stage."""
        super().restore(model, stage)
        if self.config.scope == "auto":
            inferred.choose(model, stage)

    def select(self, model: MultimodalLM, task: str, learned: Sequence[str]) -> str:
        """own: activates the task's own extension, or none. auto, all: the same for every task."""
        from moextend.moe import attach

        scope = self.config.scope
        if scope == "auto":
            # Text reaches no extension: all of them are for inputs with images.
            moextend.activate(model.lm, learned)
            assert model.choose is not None, "restore and save set it"
            named = moextend.active_fingerprint(model)
            moextend.activate(model.lm, [])
            return f"{named}-{model.choose.fingerprint()}"
        reach = [name for name in learned if scope == "all" or name == task]
        # The oracle uses scope own for extensions with co-active ones.
        attach.activate(model.lm, reach, partial=scope == "own")
        return moextend.active_fingerprint(model)

    def scale(self, model: MultimodalLM, task: str, strengths: Mapping[str, float]) -> str:
        """own: a strength for the task's own extension. auto: for each; one without strength is not chosen."""
        from moextend.moe import attach

        scope = self.config.scope
        given = {name: own for name, own in strengths.items() if scope != "own" or name == task}
        attach.activate(model.lm, given, partial=True)
        named = moextend.active_fingerprint(model)
        present = [name for name, strength in given.items() if strength]
        if scope != "auto":
            return named
        attach.activate(model.lm, given, chosen=True)
        narrowed = self._narrowed(model, present)
        return f"{named}-{narrowed}" if present else named

    def with_given_task(self) -> Self | None:
        """The same extensions, chosen by the task's name."""
        if self.config.scope == "own":
            return None
        return type(self)(self.config.model_copy(update={"scope": "own"}))

    def extra(self, model: Any) -> Extra:
        """What is kept of a stage: latent or router inputs for retention, statistics of the task."""
        from moextend.model.lm_head import text_config
        from moextend.moe.sites import find_sites

        config, lm = self.config, model.lm
        layers = self._extended(lm) if config.same_layers else len(find_sites(lm))
        wide = text_config(lm.config).hidden_size * lm.dtype.itemsize
        kept = min(config.memory_tokens, model.held_out_tokens) if config.keeps_memory else 0
        stored = kept * (wide if config.retention == "latent" else layers * (wide + SIZE))
        stored += inferred.stored(model) if config.scope == "auto" else 0
        return Extra(adds=True, together=config.scope == "all", stored=stored)
