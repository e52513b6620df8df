"""Replay: a share of every earlier stage's training items, or some MB of them, is kept and mixed with the new ones.

The seed of each stage's share is its number of items.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from moextend.bench.methods import kept
from moextend.bench.methods.method import Stage
from moextend.bench.methods.weights import AdapterOrAll
from moextend.util.search_space import Choices, LogRange

if TYPE_CHECKING:
    from moextend import Conversation, MultimodalLM


class Replay(AdapterOrAll):
    """A share of earlier stages' items is trained again; keeps raw data."""

    look = ("green", "s")
    later_only = ("share", "repeat")
    memory_setting = "mb"

    class Config(AdapterOrAll.Config):
        """What can be set."""

        share: Annotated[float, LogRange(0.01, 1)] = Field(default=0.01, gt=0, le=1)
        """Share of the training items of each earlier stage; at least one item."""
        mb: float | None = Field(default=None, gt=0)
        """Raw data of each earlier stage, in 10^6 bytes, instead of a share; at least one item, at most all."""
        repeat: Annotated[int, Choices((1, 3, 10, 30))] = Field(default=1, ge=1, le=1000)
        """How many times as often as a new item a kept one is sampled."""

    config: Config

    @property
    def unused(self) -> Mapping[str, str]:
        """The share where a size is set."""
        return {} if self.config.mb is None else {"share": "mb left out"}

    def data(self, stage: Stage) -> Sequence[Conversation]:
        """The new and the kept items, a kept one `repeat` times."""
        again = kept.earlier(stage, self._drawn)
        self.replayed = len(again)
        return [*stage.data, *again * self.config.repeat]

    def after_stage(self, model: MultimodalLM, stage: Stage) -> Mapping[str, Any]:
        """Number of replayed items, and the size of those of this stage that are kept for later ones."""
        return {"replayed": self.replayed, "raw_mb": kept.megabytes(self._drawn(stage.data))}

    def _drawn(self, data: Sequence[Conversation]) -> list[Conversation]:
        """The kept items of a stage."""
        return kept.drawn(data, self.config.share, self.config.mb)
