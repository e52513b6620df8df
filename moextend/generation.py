"""What a model answers: greedy generation in fixed batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from moextend.batches import encode_prompt, pad, piece_ids
from moextend.images import ImageRef
from moextend.multimodal import MultimodalLM


@dataclass(frozen=True)
class Prompt:
    """A text with an `<image>` mark where each image stands."""

    text: str
    images: tuple[ImageRef, ...] = ()


def generate(
    model: MultimodalLM,
    prompts: Sequence[Prompt],
    *,
    max_new_tokens: int,
    batch_size: int,
    features: Callable[[Sequence[ImageRef]], Tensor] | None = None,
) -> list[str]:
    """Greedy answers, without special tokens and outer spaces; batches are cut by position in `prompts`.

    With `model.choose` set, each prompt reaches the extensions that it chooses; else those that are active.
    """
    answers: list[str] = []
    see = features or model.features or model.vision
    for start in range(0, len(prompts), batch_size):
        batch = prompts[start : start + batch_size]
        answers += _each_by_its_own(model, batch, max_new_tokens, see)
    return answers


def _each_by_its_own(
    model: MultimodalLM,
    prompts: Sequence[Prompt],
    max_new_tokens: int,
    see: Callable[[Sequence[ImageRef]], Tensor] | None,
) -> list[str]:
    if model.choose is None:
        return _answer(model, prompts, max_new_tokens, see)
    chosen = model.choose(prompts)
    answers = [""] * len(prompts)
    for reach in sorted(set(chosen)):
        rows = [row for row, mine in enumerate(chosen) if mine == reach]
        with model.choose.reaching(reach):
            found = _answer(model, [prompts[row] for row in rows], max_new_tokens, see)
        for row, answer in zip(rows, found, strict=True):
            answers[row] = answer
    return answers


@torch.no_grad()
def _answer(
    model: MultimodalLM,
    prompts: Sequence[Prompt],
    max_new_tokens: int,
    see: Callable[[Sequence[ImageRef]], Tensor] | None,
) -> list[str]:
    tokenizer = model.tokenizer
    ids_of = partial(piece_ids, tokenizer)
    rows = [encode_prompt(ids_of, prompt.text, model.visual_tokens) for prompt in prompts]
    ids = pad(rows, tokenizer.pad_token_id, left=True).to(model.device)
    mask = pad([[1] * len(row) for row in rows], 0, left=True).to(model.device)
    images = [image for prompt in prompts for image in prompt.images]
    embedded = model.embed(ids, see(images) if images and see else None)
    out = model.lm.generate(
        inputs_embeds=embedded,
        attention_mask=mask,
        max_new_tokens=max_new_tokens,
        do_sample=False,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return [text.strip() for text in tokenizer.batch_decode(out, skip_special_tokens=True)]
