"""The training loop of a stage, bound to its data, settings and progress."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from moextend.bench.methods.method import Stage
from moextend.bench.run import costs
from moextend.bench.run.context import RunContext
from moextend.bench.run.progress import Progress, Unit
from moextend.training.loop import Report, train
from moextend.training.trainer import ExtraLoss
from moextend.util import processes

if TYPE_CHECKING:
    from moextend import Conversation, MultimodalLM


@dataclass(frozen=True)
class StageLoop:
    """The training loop of a stage: the same data, order, steps and batches for every method."""

    context: RunContext
    progress: Progress
    model: MultimodalLM
    stage: Stage
    units: Mapping[str, Unit]
    watch: costs.Stopwatch
    smaller: dict[str, int] = field(default_factory=dict)
    """Phase -> its micro-batch if memory was short."""
    flops: dict[str, float | None] = field(default_factory=dict)
    """Phase -> operations of its training."""

    def __call__(
        self,
        *,
        learning_rate: float | None = None,
        data: Sequence[Conversation] | None = None,
        extra_loss: ExtraLoss | None = None,
        rates: Mapping[str, float] | None = None,
        steps: int | None = None,
        phase: str = "train",
    ) -> Report:
        """Trains the parameters with gradients; see method.Loop."""
        unit = self.units[phase]
        settings = self.context.sequence.train.settings(
            self.stage.seed, steps=steps or unit.steps, learning_rate=learning_rate
        )
        follow = self.progress.follow(unit)
        # Several processes stop for a smaller micro-batch, so that later trainings begin with it.
        known = self.context.micro_batch if processes.count() > 1 else None

        def on_step(done: int, total: int) -> None:
            follow(done, total)
            self.watch.tick()

        report = train(
            self.model, self.stage.data if data is None else data, settings,
            folder=self.stage.folder / f"{phase}-in-flight", extra_loss=extra_loss, rates=rates, on_step=on_step,
            micro_batch=known,
        )  # fmt: skip
        self.progress.finish(unit)
        self.flops[phase] = report.flops
        if report.micro_batch is not None:
            self.smaller[phase] = self.context.micro_batch = report.micro_batch
        return report
