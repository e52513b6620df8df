"""Zero-shot: the base without training; the lower bound, which forgets nothing because it learns nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from moextend.bench.methods.method import Loop, Method, Stage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from moextend import MultimodalLM


class ZeroShot(Method):
    """The base without training."""

    role = "base"
    look = ("grey", "p")

    @property
    def training_settings(self) -> None:
        """Nothing is trained."""
        return

    def learn(self, model: MultimodalLM, stage: Stage, loop: Loop) -> dict[str, Any]:
        """Nothing."""
        return {"trained_parameters": 0, "loss": None, "tokens": 0, "flops": 0.0}

    def save(self, model: MultimodalLM, stage: Stage) -> None:
        """Writes only that the stage is done."""
        from moextend.extension import tensor_files

        card = {"task": stage.task, "base": model.base_fingerprint()}
        tensor_files.save_tensors(stage.folder, {}, card)

    def restore(self, model: MultimodalLM, stage: Stage) -> None:
        """Nothing."""

    def select(self, model: MultimodalLM, task: str, learned: Sequence[str]) -> str:
        """The base."""
        return model.base_fingerprint()
