"""Log-likelihoods of the choices of a question, with or without images and other media."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice

import torch

from moextend.data.media import MediaRef
from moextend.model.batches import pad
from moextend.model.feature_cache import sources_of
from moextend.model.generation import Prompt, each_by_its_own, message_ids, prompt_ids
from moextend.model.modality import Sources, gather
from moextend.model.multimodal import IGNORE, MultimodalLM
from moextend.model.short_memory import current_limit


@dataclass(frozen=True)
class ChoiceRow:
    """A prompt and one choice as ids; the score begins at `start`."""

    place: int
    ids: list[int]
    start: int
    media: tuple[MediaRef, ...]


def choice_likelihoods(
    model: MultimodalLM,
    prompts: Sequence[Prompt],
    choices: Sequence[Sequence[str]],
    *,
    batch_size: int,
    features: Sources | None = None,
) -> list[tuple[float, ...]]:
    """Log-likelihoods (nats, summed over tokens) of each prompt's choices as its continuation.

    A choice follows a space, or is the answer in the chat template. Prompt and choice are tokenised together; all
    choices of a prompt are scored from the first token in which any of them differs from the prompt alone. A batch has
    `batch_size` rows of prompt and choice. If `model.choose` is set, it chooses the extensions of each prompt;
    otherwise the active ones compute. A batch that does not fit into memory is split.
    """
    sources = sources_of(model, features)

    def rated(places: Sequence[int]) -> list[tuple[float, ...]]:
        rows = [row for place in places for row in choice_rows(model, place, prompts[place], choices[place])]
        found = _scored(model, rows, batch_size, sources)
        return [found.get(place, ()) for place in places]

    return each_by_its_own(model, prompts, rated, sources)


def choice_rows(model: MultimodalLM, place: int, prompt: Prompt, choices: Sequence[str]) -> list[ChoiceRow]:
    """The rows of one prompt, whose index is `place`: one a choice."""
    alone = [*prompt_ids(model, prompt), *(model.chat.lead if model.chat else ())]
    if model.chat is not None:
        full = [message_ids(model, prompt.messages(choice), end=False)[0] for choice in choices]
    else:  # together: the answer may change the last token of the prompt
        full = [prompt_ids(model, replace(prompt, text=f"{prompt.text} {choice}")) for choice in choices]
    start = min((_common(alone, ids) for ids in full), default=0)
    return [ChoiceRow(place, ids, start, prompt.media) for ids in full]


def _common(a: Sequence[int], b: Sequence[int]) -> int:
    """Length of the common prefix."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _scored(
    model: MultimodalLM, rows: Sequence[ChoiceRow], batch_size: int, sources: Sources
) -> dict[int, tuple[float, ...]]:
    """Index of a prompt -> the values of its rows."""
    found: dict[int, tuple[float, ...]] = {}
    limit = current_limit()
    for start in range(0, len(rows), batch_size):
        batch = rows[start : start + batch_size]
        sums = limit.split(lambda part: _sums(model, part, sources), batch, "log-likelihoods of choices")
        for row, value in zip(batch, sums, strict=True):
            found[row.place] = (*found.get(row.place, ()), value)
    return found


@torch.no_grad()
def _sums(model: MultimodalLM, rows: Sequence[ChoiceRow], sources: Sources) -> list[float]:
    ids = pad([row.ids for row in rows], model.tokenizer.pad_token_id)
    mask = pad([[1] * len(row.ids) for row in rows], 0)
    labels = pad([[IGNORE] * row.start + row.ids[row.start :] for row in rows], IGNORE)
    media = [medium for row in rows for medium in row.media]
    out = model(
        ids.to(model.device),
        mask.to(model.device),
        labels=labels.to(model.device),
        features=gather(media, sources),
    )
    scored = labels[:, 1:][labels[:, 1:] != IGNORE].to(model.device)
    steps = out["logits"].float().log_softmax(-1).gather(-1, scored.unsqueeze(-1)).squeeze(-1)
    values = iter(steps.tolist())
    return [sum(islice(values, len(row.ids) - max(1, row.start))) for row in rows]
