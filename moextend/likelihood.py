"""How likely a model finds each choice of a question, with or without images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice

import torch
from torch import Tensor

from moextend.batches import Pieces, encode_prompt, pad, piece_ids
from moextend.expand import activate, scope_of
from moextend.generation import Prompt
from moextend.images import ImageRef
from moextend.multimodal import IGNORE, MultimodalLM

Features = Callable[[Sequence[ImageRef]], Tensor]


@dataclass(frozen=True)
class _Row:
    """A prompt continued by one choice; what is scored begins at `start`."""

    place: int
    ids: list[int]
    start: int
    images: tuple[ImageRef, ...]


def choice_likelihoods(
    model: MultimodalLM,
    prompts: Sequence[Prompt],
    choices: Sequence[Sequence[str]],
    *,
    batch_size: int,
    features: Features | None = None,
) -> list[tuple[float, ...]]:
    """Log-likelihoods (nats, summed over tokens) of each prompt's choices as its continuation after a space.

    Prompt and choice are tokenised together; all choices of a prompt are scored from the first token in which any of
    them differs from the prompt alone. Rows are prompt times choice, `batch_size` at a time. With `model.choose` set,
    each prompt reaches the extensions that it chooses; else those that are active.
    """
    ids_of = partial(piece_ids, model.tokenizer)
    rows = [
        row
        for place, (prompt, said) in enumerate(zip(prompts, choices, strict=True))
        for row in _rows(ids_of, place, prompt, said, model.visual_tokens)
    ]
    see = features or model.features or model.vision
    if model.choose is None:
        return _scored(model, len(prompts), rows, batch_size, see)
    chosen = model.choose(prompts)
    found: list[tuple[float, ...]] = [() for _ in prompts]
    before = scope_of(model.lm).active
    try:
        for reach in sorted(set(chosen)):
            activate(model.lm, reach)
            mine = [row for row in rows if chosen[row.place] == reach]
            values = _scored(model, len(prompts), mine, batch_size, see)
            found = [own or other for own, other in zip(values, found, strict=True)]
    finally:
        activate(model.lm, before)
    return found


def _rows(
    ids_of: Pieces, place: int, prompt: Prompt, choices: Sequence[str], visual_tokens: int
) -> list[_Row]:
    alone = encode_prompt(ids_of, prompt.text, visual_tokens)
    whole = [encode_prompt(ids_of, f"{prompt.text} {choice}", visual_tokens) for choice in choices]
    start = min((_common(alone, ids) for ids in whole), default=0)
    return [_Row(place, ids, start, prompt.images) for ids in whole]


def _common(a: Sequence[int], b: Sequence[int]) -> int:
    """Length of the common beginning."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _scored(
    model: MultimodalLM, prompts: int, rows: Sequence[_Row], batch_size: int, see: Features | None
) -> list[tuple[float, ...]]:
    """The values of the rows, prompt by prompt; () for a prompt without rows."""
    found: list[list[float]] = [[] for _ in range(prompts)]
    for start in range(0, len(rows), batch_size):
        batch = rows[start : start + batch_size]
        for row, value in zip(batch, _sums(model, batch, see), strict=True):
            found[row.place].append(value)
    return [tuple(values) for values in found]


@torch.no_grad()
def _sums(model: MultimodalLM, rows: Sequence[_Row], see: Features | None) -> list[float]:
    ids = pad([row.ids for row in rows], model.tokenizer.pad_token_id)
    mask = pad([[1] * len(row.ids) for row in rows], 0)
    labels = pad([[IGNORE] * row.start + row.ids[row.start :] for row in rows], IGNORE)
    images = [image for row in rows for image in row.images]
    out = model(
        ids.to(model.device),
        mask.to(model.device),
        labels=labels.to(model.device),
        features=see(images) if images and see else None,
    )
    scored = labels[:, 1:][labels[:, 1:] != IGNORE].to(model.device)
    steps = out["logits"].float().log_softmax(-1).gather(-1, scored.unsqueeze(-1)).squeeze(-1)
    values = iter(steps.tolist())
    return [sum(islice(values, len(row.ids) - max(1, row.start))) for row in rows]
