"""Effect of an extension: scores of held-out conversations and of generic text, before and after."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch

from moextend.data.conversations import Conversation, hold_out
from moextend.extension import store
from moextend.extension.card import Effect, Scores, note_effect
from moextend.extension.task_inference import TaskInference, read
from moextend.model.batches import Collator, labelled, on_device, piece_ids
from moextend.model.generation import Prompt, choice_likelihoods, generate
from moextend.moe import attach

if TYPE_CHECKING:
    from moextend.extension.store import Extension
    from moextend.model.multimodal import MultimodalLM

MOST = 64
"""Maximum number of held-out conversations to score."""
SHORT = 16
"""Answers of up to this number of tokens are also generated and compared."""
GENERIC = (
    ("The capital of France is", "Paris, and the capital of Italy is Rome."),
    ("Water freezes at", "zero degrees Celsius and boils at one hundred degrees."),
    ("She opened the window because", "the room was too warm, and the cool air came in."),
    ("Two plus two is four, and", "three plus three is six."),
    ("The train was late, so", "we waited at the station and read the newspaper."),
    ("A dog is an animal that", "has four legs, likes to run, and can learn many tricks."),
    ("In the evening they", "cooked dinner together and talked about the day."),
    ("To open the file,", "call the function with its name and read the lines one by one."),
)
"""Beginning and continuation of texts unrelated to the data."""


def measured(
    model: MultimodalLM,
    name: str,
    data: Sequence[Conversation],
    *,
    scope: str,
    seed: int,
    batch_size: int,
    make: Callable[[], Extension],
) -> tuple[Extension, Effect]:
    """Calls `make`, which adds extension `name` trained on `data`, and measures before and after.

    The measurement is saved in the card of the extension. The active extensions at the end are those after `make`.
    """
    held = hold_out([data], seed)[1]
    with attach.reaching(model.lm, attach.scope_of(model.lm).active if scope == "all" else ()):
        first, generic = _scored(model, held, batch_size), _generic(model, batch_size)
    made = make()
    last = _scored(model, held, batch_size)
    change = _generic_after(model, name, scope, batch_size, generic) - generic
    effect = Effect(min(MOST, len(held)), first, last, change)
    assert made.folder is not None, "it was just saved"
    note_effect(made.folder, effect)
    return made, effect


def _scored(model: MultimodalLM, conversations: Sequence[Conversation], batch_size: int) -> Scores:
    """Scores of the first turns of up to `MOST` conversations, with the active extensions."""
    rows = [conversations[at] for at in range(min(MOST, len(conversations)))]
    texts = [row for row in rows if row.is_text]
    if texts:
        return Scores(text_likelihood(model, texts, batch_size), None)
    asked = [(Prompt.first(row), row.turns[0][1]) for row in rows if row.turns[0][1]]
    if not asked:
        return Scores(float("nan"), None)
    longest, exact = max(_tokens(model, answer) for _, answer in asked), None
    if longest <= SHORT:
        generated = generate(
            model, [prompt for prompt, _ in asked], max_new_tokens=longest + 1, batch_size=batch_size
        )
        exact = sum(a.strip() == b.strip() for a, (_, b) in zip(generated, asked, strict=True)) / len(asked)
    return Scores(_likelihood(model, asked, batch_size), exact)


def _tokens(model: MultimodalLM, answer: str) -> int:
    return len(piece_ids(model.tokenizer, f" {answer}", False))


@torch.no_grad()
def text_likelihood(model: MultimodalLM, texts: Sequence[Conversation], batch_size: int) -> float:
    """Mean log-likelihood per token of plain texts, encoded as in training."""
    collate, device = Collator.of(model), model.device
    total, tokens = 0.0, 0
    for start in range(0, len(texts), batch_size):
        batch = collate(texts[start : start + batch_size])
        count = labelled(batch)
        if count:
            out = model(**on_device(batch, device))
            total, tokens = total - float(out["loss"]) * count, tokens + count
    return total / tokens if tokens else float("nan")


def _generic(model: MultimodalLM, batch_size: int) -> float:
    """Mean log-likelihood per token of `GENERIC`, with the active extensions."""
    return _likelihood(model, [(Prompt(text), rest) for text, rest in GENERIC], batch_size)


def _generic_after(model: MultimodalLM, name: str, scope: str, batch_size: int, before: float) -> float:
    """Log-likelihood of generic text, with the extension active as in `scope`: never (own), inferred (auto) or always.

    The active extensions do not change.
    """
    if scope == "own":
        return before
    if scope == "all":
        return _generic(model, batch_size)
    activate_again, choose = attach.activation(model.lm), model.choose
    try:
        folder = store.handle(model, name).folder
        assert folder is not None, "it was just saved"
        attach.activate(model.lm, [])
        model.choose = TaskInference(model, {name: read(folder)})
        return _generic(model, batch_size)
    finally:
        model.choose = choose
        activate_again()


def _likelihood(model: MultimodalLM, asked: Sequence[tuple[Prompt, str]], batch_size: int) -> float:
    found = choice_likelihoods(
        model, [prompt for prompt, _ in asked], [[answer] for _, answer in asked], batch_size=batch_size
    )
    tokens = sum(max(1, _tokens(model, answer)) for _, answer in asked)
    return sum(value for (value,) in found) / tokens
