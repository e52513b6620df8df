"""What answers the items of a cell: the model in this process, or another backend."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from moextend.bench.score.served.answers import ServedModel
    from moextend.model.generation import Prompt
    from moextend.model.multimodal import MultimodalLM


class Backend(Protocol):
    """Answers the items of one cell."""

    @property
    def name(self) -> str | None:
        """Its name in cells and in the keys of predictions; None for transformers in this process."""

    def generate(self, prompts: Sequence[Prompt], max_new_tokens: int) -> list[str]:
        """Greedy answers without special tokens and outer spaces."""

    def rate(self, prompts: Sequence[Prompt], choices: Sequence[Sequence[str]]) -> list[tuple[float, ...]]:
        """Log-likelihoods (nats) of the choices of each prompt; () for a prompt that it cannot rate."""

    @property
    def served(self) -> Callable[[], ServedModel] | None:
        """The model of a server that answers lm-eval's requests; None: the model in this process does."""


@dataclass(frozen=True)
class InProcess:
    """The model of this process, in its current state."""

    model: MultimodalLM
    batch_size: int

    name = None
    served = None

    def generate(self, prompts: Sequence[Prompt], max_new_tokens: int) -> list[str]:
        """See Backend."""
        from moextend.model.generation import generate

        return generate(self.model, prompts, max_new_tokens=max_new_tokens, batch_size=self.batch_size)

    def rate(self, prompts: Sequence[Prompt], choices: Sequence[Sequence[str]]) -> list[tuple[float, ...]]:
        """See Backend."""
        from moextend.model.generation import choice_likelihoods

        return choice_likelihoods(self.model, prompts, choices, batch_size=self.batch_size)


def in_process(model: Any, batch_size: int) -> Backend:
    """The backend of a model of this process, also of one that was trained elsewhere."""
    from moextend.bench.score.checkpoint import LoadedCheckpoint

    return model if isinstance(model, LoadedCheckpoint) else InProcess(model, batch_size)


@dataclass(frozen=True)
class Served:
    """A model of a server; `served` returns it once it is proved to be that of this process (see `parity`)."""

    model: MultimodalLM
    """For its tokenizer and its layout of prompts."""
    served: Callable[[], ServedModel]

    name = "openai"

    def generate(self, prompts: Sequence[Prompt], max_new_tokens: int) -> list[str]:
        """See Backend."""
        from moextend.model.generation import prompt_ids

        server, found = self.served(), dict[int, str]()
        shown = [place for place, prompt in enumerate(prompts) if prompt.media]
        plain = [place for place, prompt in enumerate(prompts) if not prompt.media]
        if shown:
            texts = server.chat([prompts[place] for place in shown], max_new_tokens=max_new_tokens)
            found |= zip(shown, texts, strict=True)
        if plain:
            rows = [prompt_ids(self.model, prompts[place]) for place in plain]
            found |= zip(plain, server.complete(rows, max_new_tokens=max_new_tokens), strict=True)
        before = self.model.chat.before_answers if self.model.chat else ""
        return [found[place].strip().removeprefix(before).strip() for place in range(len(prompts))]

    def rate(self, prompts: Sequence[Prompt], choices: Sequence[Sequence[str]]) -> list[tuple[float, ...]]:
        """See Backend. The protocol has no log-likelihoods of answers to prompts with media."""
        from moextend.model.generation import choice_rows

        rows = [
            row
            for place, (prompt, own) in enumerate(zip(prompts, choices, strict=True))
            if not prompt.media
            for row in choice_rows(self.model, place, prompt, own)
        ]
        values = self.served().rate([(row.ids, max(1, row.start)) for row in rows]) if rows else []
        found: dict[int, tuple[float, ...]] = {}
        for row, value in zip(rows, values, strict=True):
            found[row.place] = (*found.get(row.place, ()), value.value)
        return [found.get(place, ()) for place in range(len(prompts))]
