"""Items of a task, with their prompts and target answers."""

from __future__ import annotations

from dataclasses import dataclass, field

from moextend.bench.scorers import own_answer
from moextend.bench.task import TaskSpec
from moextend.data import prompts
from moextend.data.examples import Example


@dataclass(frozen=True)
class Item(Example):
    """An example with its id and kind."""

    id: str = field(kw_only=True)
    """Unique among the items of a split."""
    kind: str | None = field(default=None, kw_only=True)
    """Kind of question, for scores by kind."""

    @property
    def image_name(self) -> str:
        """File name of the first image; "" for an image in memory or an item without images."""
        path = self.media[0].path if self.media else None
        return path.name if path else ""


def prompt_text(task: TaskSpec, item: Item) -> str:
    """Prompt of `item`, with one `<image>` mark for each of its images."""
    return prompts.prompt_text(task.layout, item)


def target_text(task: TaskSpec, item: Item) -> str:
    """Target answer of `item`: the most common answer of its annotators, or the letter of this choice."""
    return own_answer(task.scorer, item)


def asked(item: Example) -> str:
    """Everything that an example asks in words; the order of its choices does not count."""
    return " ".join([item.question, *item.fields.values(), *sorted(item.choices or ())])
