"""Replay: a share of every earlier stage's training items, or some MB of them, is kept and mixed with the new ones.

Half of a training is old by default, as in experience replay (Chaudhry et al., 2019, arXiv 1902.10486). The seed of
each stage's share is its number of items.
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
    later_only = ("share", "fraction")
    memory_setting = "mb"

    class Config(AdapterOrAll.Config):
        """What can be set."""

        share: Annotated[float, LogRange(0.01, 1)] = Field(default=0.01, gt=0, le=1)
        """Share of the training items of each earlier stage; at least one item."""
        mb: float | None = Field(default=None, gt=0)
        """Raw data of each earlier stage, in 10^6 bytes, instead of a share; at least one item, at most all."""
        fraction: Annotated[float, Choices((0.1, 0.25, 0.5, 0.75))] = Field(default=0.5, gt=0, lt=1)
        """Share of a training that kept items have, the same of every earlier stage."""
        text: bool = False
        """Whether the sequence's generic text is kept and learned, too, as if it were one more earlier stage."""
        repeat: int | None = Field(default=None, ge=1, le=1000)
        """How many times as often as a new item a kept one is sampled, instead of `fraction`."""

    config: Config

    @property
    def unused(self) -> Mapping[str, str]:
        """The share where a size is set."""
        return {} if self.config.mb is None else {"share": "mb left out"}

    def data(self, stage: Stage) -> Sequence[Conversation]:
        """The new items, and so many kept ones that they are `fraction` of all."""
        sources = [self._drawn(stage.earlier_data(task)) for task, _ in stage.earlier]
        sources += [kept.texts(stage)] if self.config.text else []
        self.replayed, fraction = sum(map(len, sources)), self.config.fraction
        if self.config.repeat is not None:
            return [*stage.data, *(item for source in sources for item in source * self.config.repeat)]
        each = max(1, round(len(stage.data) * fraction / (1 - fraction) / max(len(sources), 1)))
        return [*stage.data, *(item for source in sources for item in kept.spread(source, each))]

    def after_stage(self, model: MultimodalLM, stage: Stage) -> Mapping[str, Any]:
        """Number of replayed items, and the size of those of this stage that are kept for later ones."""
        texts = kept.texts(stage) if self.config.text and stage.index == 1 else []
        return {"replayed": self.replayed, "raw_mb": kept.megabytes([*self._drawn(stage.data), *texts])}

    def _drawn(self, data: Sequence[Conversation]) -> list[Conversation]:
        """The kept items of a stage."""
        return kept.drawn(data, self.config.share, self.config.mb)
