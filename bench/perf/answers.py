"""Measures inference with an extension and with the base: reading a prompt, and each new token."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, cast

from moextend.bench.perf import lower_bound
from moextend.bench.perf.measure import Moment, Times, now
from moextend.bench.perf.sizes import Size, batch, conversations, twin
from moextend.bench.perf.specs import EXACT, MODES, WHOLE, parsed
from moextend.bench.perf.variants import extended, new_share, used

if TYPE_CHECKING:
    from torch import Tensor

    from moextend import MultimodalLM
    from moextend.moe.recipe import Recipe


@dataclass
class Reader:
    """A model for inference."""

    name: str
    model: MultimodalLM
    size: Size
    least: int
    """Lower bound on the operations of reading the prompts."""
    new_share: float
    """Share of tokens with a computed new expert, over the extended layers."""
    reading: Times = field(default_factory=Times)
    """Time to the first new token, for each answer."""
    writing: Times = field(default_factory=Times)
    """Time of the next `size.new_tokens` tokens per row."""

    def __post_init__(self) -> None:
        """Creates random prompts."""
        inputs = batch(self.model, conversations(self.model, self.size))
        self.prompts = {name: inputs[name] for name in ("input_ids", "attention_mask")}

    def answer(self) -> None:
        """Reads the prompts and generates one token per row, then `size.new_tokens` more; measures both times."""
        import torch

        watch = _Watch(self.model.device.type)
        tokens = 1 + self.size.new_tokens
        start = now(watch.device)
        with torch.no_grad():
            self.model.lm.generate(
                **self.prompts,
                max_new_tokens=tokens,
                min_new_tokens=tokens,
                do_sample=False,
                pad_token_id=0,
                streamer=watch,
            )
        self.reading.add(start, watch.seen[1])  # the first period is the prompt
        self.writing.add(watch.seen[1], now(watch.device))


class _Watch:
    """Streamer of transformers that measures the times of tokens."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.seen: list[Moment] = []

    def put(self, tokens: Tensor) -> None:
        """Called with the prompts, then with each row's next token."""
        if len(self.seen) < 2:
            self.seen.append(now(self.device))

    def end(self) -> None:
        """Called at the end."""


def all_readers(base: MultimodalLM, size: Size) -> list[Reader]:
    """The base first, then an extension of its top half in every routing mode."""
    makes: dict[str, Callable[[], MultimodalLM]] = {"base": partial(twin, base)}
    recipes = {text: cast("Recipe", parsed(text, None).config) for text in (*MODES, WHOLE)}
    makes |= {text: partial(extended, base, recipe) for text, recipe in recipes.items()}
    makes[f"{EXACT}, all gates closed"] = partial(extended, base, recipes[EXACT], closed=True)
    return [_reader(name, make(), size) for name, make in makes.items()]


def _reader(name: str, model: MultimodalLM, size: Size) -> Reader:
    model.lm.set_experts_implementation("eager" if model.device.type == "cpu" else "grouped_mm")
    model.eval().learn_only([])
    layers = used(model, batch(model, conversations(model, size)), learning=False)
    shape = lower_bound.Model.of(
        model.lm.config, tokens=size.tokens, length=size.length, labelled=size.rows, layers=layers
    )
    return Reader(name, model, size, shape.forward(), new_share(layers, size))
