"""What the methods of this folder share: MoExtend with hooks around its memory, its gates and its loss."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from moextend.bench.methods.moextend import MoExtend
from moextend.extension import router_memory
from moextend.extension.probe import Which
from moextend.extension.retention import retention_loss
from moextend.moe.recipe import Scope

from ._gates import Gates


class OpenProblem(MoExtend):
    """New experts for every input (scope all), with a router-input memory that this class keeps itself."""

    class Config(MoExtend.Config):
        """Settings of the method; `layers`, `width` and `learning_rate` are by default those of `tiny`."""

        scope: Scope = "all"
        layers: Any = "all"
        width: float = Field(1.0, gt=0, le=1)
        learning_rate: float | None = 5e-3
        media: Literal["open", "shut"] = "open"
        """shut: new experts do not compute tokens of images, nor those before them."""
        kept: Literal["all", "text", "none"] = "all"
        """Which tokens the memory keeps: all, those of text only, or none (no retention)."""
        answers: float = Field(0, ge=0, le=1)
        """Share of the memory's tokens that are sampled from those that predict the answer."""

        @property
        def keeps_memory(self) -> bool:
            """The package keeps no memory; `OpenProblem.memory` does."""
            return False

    config: Config

    @property
    def training_settings(self) -> Mapping[str, Any] | None:
        """None: stages are not shared with runs of the package's method."""
        return None

    @property
    def keeps(self) -> bool:
        """Whether there is a memory."""
        return self.config.scope == "all" and self.config.kept != "none"

    @property
    def rates(self) -> dict[str, float]:
        """Factors on the learning rate of router rows and biases."""
        return dict.fromkeys((".rows", ".bias"), self.config.gate_rate)

    def learn(self, model: Any, stage: Any, loop: Any) -> dict[str, Any]:
        """Trains the new experts with the hooks below."""

        def trained(*, phase: str = "train", **given: Any) -> Any:
            if phase != "train":
                return loop(phase=phase, **given)
            gates = self.gates(model, stage.task)
            given |= self.around(model, stage, gates)
            return loop(phase=phase, **given)

        return super().learn(model, stage, trained)

    def around(self, model: Any, stage: Any, gates: Gates) -> dict[str, Any]:
        """Extra loss and factors on learning rates; the new experts are attached, and change nothing yet."""
        kept = self.memory(model, stage)
        if not kept:
            return {}
        return {"extra_loss": self.retention(model, stage, kept), "rates": self.rates}

    def gates(self, model: Any, name: str) -> Gates:
        """Adds hooks to the router parts of an extension."""
        return Gates(model, name, shut=self.config.media == "shut")

    def memory(self, model: Any, stage: Any) -> router_memory.Memory:
        """Memory of generic text and of all earlier stages; empty without a memory."""
        if not self.keeps:
            return router_memory.Memory()
        generic = [self.collected(model, stage, stage.generic, answers=0)] if stage.generic else []
        return router_memory.join([*generic, *(self.read(folder) for _, folder in stage.earlier)])

    def collected(
        self, model: Any, stage: Any, data: Any, *, answers: float | None = None
    ) -> router_memory.Memory:
        """Memory of `data`; `answers`: share of tokens that predict an answer, by default the configured one."""
        tokens = self.config.memory_tokens
        predicting = round((self.config.answers if answers is None else answers) * tokens)
        other: Which = "all" if self.config.kept == "all" else "text"
        shares: dict[Which, int] = {other: tokens - predicting, "answers": predicting}
        pieces = [
            router_memory.collect(model, data, count, stage.seed, batch_size=stage.batch_size, which=which)
            for which, count in shares.items()
            if count
        ]
        return router_memory.join(pieces)

    def write(self, kept: router_memory.Memory, folder: Any) -> None:
        """Writes the memory of a stage."""
        router_memory.write(kept, folder)

    def read(self, folder: Any) -> router_memory.Memory:
        """Memory of an earlier stage."""
        return router_memory.read(folder)

    def retention(self, model: Any, stage: Any, kept: router_memory.Memory) -> Any:
        """Loss on the memory: that of the package on gates."""
        return retention_loss(
            model, stage.task, kept.router_inputs, margin=self.config.margin, weight=self.config.memory_weight,
            sample=self.config.memory_sample, seed=stage.seed,
        )  # fmt: skip

    def save(self, model: Any, stage: Any) -> None:
        """Writes the memory for later stages, then the expert set."""
        if self.keeps:
            self.write(self.collected(model, stage, stage.held_out), stage.folder)
        super().save(model, stage)

    def restore(self, model: Any, stage: Any) -> None:
        """Attaches the expert set of the stage, with its hooks."""
        super().restore(model, stage)
        self.gates(model, stage.task)
