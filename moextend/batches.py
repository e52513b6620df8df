"""Conversations -> token ids with image holes, padded batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor

from moextend.errors import InputError
from moextend.images import ImageRef
from moextend.multimodal import IGNORE, IMAGE

MARK = "<image>"
"""Where an image stands in a prompt."""


@dataclass(frozen=True)
class Conversation:
    """Turns of question and answer about some images; the images stand at the marks of the prompts, in order."""

    turns: tuple[tuple[str, str], ...]
    """(prompt, answer) pairs; an empty answer is not learnt."""
    images: tuple[ImageRef, ...] = ()
    closed: bool = True
    """Whether each answer ends with the end token."""


Pieces = Callable[[str, bool], list[int]]
"""Ids of a piece of text, with the tokenizer's own start or without; not to be changed."""


def piece_ids(tokenizer: Any, text: str, start: bool) -> list[int]:
    """Ids of a piece of text."""
    ids: list[int] = tokenizer(text, add_special_tokens=start)["input_ids"]
    return ids


def encode_prompt(ids_of: Pieces, text: str, visual_tokens: int, *, first: bool = True) -> list[int]:
    """Ids of a prompt with `visual_tokens` holes at each image mark; `first`: with the tokenizer's own start."""
    ids: list[int] = []
    for i, piece in enumerate(text.split(MARK)):
        if i:
            ids += [IMAGE] * visual_tokens
        ids += ids_of(piece, first and i == 0)
    return ids


def encode(
    ids_of: Pieces, eos: int, conversation: Conversation, visual_tokens: int
) -> tuple[list[int], list[int]]:
    """Ids and labels of a conversation; only answers, with their end tokens, are labelled."""
    marks = sum(prompt.count(MARK) for prompt, _ in conversation.turns)
    if marks != len(conversation.images):
        raise InputError(
            f"{len(conversation.images)} images, but {marks} {MARK} marks in the prompt.",
            mend=f"Put one {MARK} for each image into the task's prompt.",
        )
    ids: list[int] = []
    labels: list[int] = []
    for prompt, answer in conversation.turns:
        asked = encode_prompt(ids_of, prompt, visual_tokens, first=not ids)
        said = [*ids_of(f" {answer}", False), *([eos] if conversation.closed else [])]
        ids += asked + said
        labels += [IGNORE] * len(asked) + (said if answer else [IGNORE] * len(said))
    return ids, labels


def pad(rows: Sequence[Sequence[int]], value: int, *, left: bool = False) -> Tensor:
    """Rows of ids as one tensor [rows, longest]."""
    width = max(map(len, rows))
    filled = [
        [value] * (width - len(row)) + list(row) if left else list(row) + [value] * (width - len(row))
        for row in rows
    ]
    return torch.tensor(filled)


class Collator:
    """Conversations -> the model's inputs: ids, mask, labels and image features."""

    def __init__(
        self, tokenizer: Any, visual_tokens: int, features: Callable[[Sequence[ImageRef]], Tensor] | None
    ) -> None:
        self.tokenizer, self.visual_tokens, self.features = tokenizer, visual_tokens, features
        # Prompts recur, and a tokenizer's call costs more than a step's share of anything else here.
        self._ids = lru_cache(maxsize=1 << 16)(partial(piece_ids, tokenizer))

    def __call__(self, conversations: Sequence[Conversation]) -> dict[str, Tensor]:
        """A batch; padded at the right, padding masked and not labelled."""
        eos, ids_of = self.tokenizer.eos_token_id, self._ids
        rows = [encode(ids_of, eos, conversation, self.visual_tokens) for conversation in conversations]
        ids = pad([row[0] for row in rows], self.tokenizer.pad_token_id)
        mask = pad([[1] * len(row[0]) for row in rows], 0)
        batch = {
            "input_ids": ids,
            "attention_mask": mask,
            "labels": pad([row[1] for row in rows], IGNORE),
        }
        images = [image for conversation in conversations for image in conversation.images]
        if images and self.features is not None:
            batch["features"] = self.features(images)
        return batch
