"""Conversations -> token ids with image holes, padded batches."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor

from moextend.data.conversations import Conversation
from moextend.data.images import MARK, ImageRef
from moextend.errors import InputError
from moextend.model.chat import Chat, Tokens
from moextend.model.multimodal import IGNORE, IMAGE, MultimodalLM

Pieces = Callable[[str, bool], list[int]]
"""(text, with the tokenizer's start tokens) -> ids, which must not be changed."""


def piece_ids(tokenizer: Any, text: str, start: bool) -> list[int]:
    """Ids of a piece of text."""
    ids: list[int] = tokenizer(text, add_special_tokens=start)["input_ids"]
    return ids


def encode_prompt(ids_of: Pieces, text: str, visual_tokens: int, *, first: bool = True) -> list[int]:
    """Ids of a prompt with `visual_tokens` placeholders at each image mark; `first`: with the start tokens."""
    ids: list[int] = []
    for i, piece in enumerate(text.split(MARK)):
        if i:
            ids += [IMAGE] * visual_tokens
        ids += ids_of(piece, first and i == 0)
    return ids


def encode(
    ids_of: Pieces, eos: int, conversation: Conversation, visual_tokens: int
) -> tuple[list[int], list[int]]:
    """Ids and labels of a conversation; only answers and their end tokens have labels."""
    if not conversation.turns:
        raise InputError("a conversation has no turn.", where="data", hint="Leave it out, or give it a turn.")
    check_marks([prompt for prompt, _ in conversation.turns], conversation.media)
    ids: list[int] = []
    labels: list[int] = []
    for prompt, answer in conversation.turns:
        asked = encode_prompt(ids_of, prompt, visual_tokens, first=not ids)
        answer_ids = [
            *ids_of(f" {answer}" if prompt or ids else answer, False),
            *([eos] if conversation.closed else []),
        ]
        ids += asked + answer_ids
        labels += [IGNORE] * len(asked) + (answer_ids if answer else [IGNORE] * len(answer_ids))
    return ids, labels


def encode_chat(
    chat: Chat, turns: Sequence[tuple[str, str | None]], visual_tokens: int
) -> tuple[list[int], list[int]]:
    """Ids and labels of turns in the model's chat template, with `visual_tokens` placeholders for each image."""
    tokens: Tokens = chat.encode(turns)
    ids: list[int] = []
    labels: list[int] = []
    for token, learned in zip(tokens.ids, tokens.learned, strict=True):
        piece = [IMAGE] * visual_tokens if token is None else [token]
        ids += piece
        labels += piece if learned and token is not None else [IGNORE] * len(piece)
    return ids, labels


def check_marks(texts: Sequence[str], images: Sequence[ImageRef], where: str | None = None) -> None:
    """Raises InputError if the number of image marks differs from that of images, or an image is another object."""
    if wrong := [image for image in images if not hasattr(image, "open")]:
        raise InputError(
            f"{wrong[0]!r} is no image.",
            where=where,
            hint="Give a moextend.ImageRef(path=...) or (data=...).",
        )
    marks = sum(text.count(MARK) for text in texts)
    if marks != len(images):
        raise InputError(
            f"{len(images)} images, but {marks} {MARK} marks in the prompt.",
            where=where,
            hint=f"Put one {MARK} for each image into the task's prompt.",
        )


def no_encoder(where: str | None = None) -> InputError:
    """Error for an image in the input of a model without an encoder."""
    return InputError(
        "the prompt has an image, but the model has no image encoder.",
        where=where,
        hint="Load the model with vision=..., or leave the image out.",
    )


def too_long(
    tokens: int, images: int, visual_tokens: int, context: int, where: str | None = None
) -> InputError:
    """Error for a prompt that exceeds the model's context."""
    of_images = f" ({images * visual_tokens} of {images} images)" if images else ""
    return InputError(
        f"takes {tokens} tokens{of_images}, and the model's context holds {context}.",
        where=where,
        hint="Shorten the prompt, give fewer images, or use an encoder with fewer tokens.",
    )


def pad(rows: Sequence[Sequence[int]], value: int, *, left: bool = False) -> Tensor:
    """Rows of ids as one padded tensor [rows, longest]."""
    width = max(map(len, rows))
    filled = [
        [value] * (width - len(row)) + list(row) if left else list(row) + [value] * (width - len(row))
        for row in rows
    ]
    return torch.tensor(filled)


class Collator:
    """Conversations -> inputs of the model: ids, mask, labels and image features."""

    def __init__(
        self,
        tokenizer: Any,
        visual_tokens: int,
        features: Callable[[Sequence[ImageRef]], Tensor] | None,
        *,
        chat: Chat | None = None,
        context: int | None = None,
    ) -> None:
        """Args: context: maximum number of tokens; None: no limit."""
        self.tokenizer, self.visual_tokens, self.features = tokenizer, visual_tokens, features
        self.chat, self.context = chat, context
        # Prompts recur, and the tokenizer takes most of the time of a batch.
        self._ids = lru_cache(maxsize=1 << 16)(partial(piece_ids, tokenizer))

    @classmethod
    def of(cls, model: MultimodalLM) -> Collator:
        """Collator with a model's tokenizer, chat template, source of features and context."""
        see = model.features or model.vision
        return cls(model.tokenizer, model.visual_tokens, see, chat=model.chat, context=model.context)

    def __call__(self, conversations: Sequence[Conversation]) -> dict[str, Tensor]:
        """A batch in host memory, padded on the right; padding is masked and has no labels.

        A conversation longer than the context loses its last turns with their images; plain text is truncated.

        Raises:
            InputError: marks and images do not agree, an image without an encoder, or a first turn that is too long.
        """
        fitted = [self._fitted(conversation) for conversation in conversations]
        rows = [row for row, _ in fitted]
        ids = pad([row[0] for row in rows], self.tokenizer.pad_token_id)
        mask = pad([[1] * len(row[0]) for row in rows], 0)
        batch = {
            "input_ids": ids,
            "attention_mask": mask,
            "labels": pad([row[1] for row in rows], IGNORE),
        }
        images = [image for _, shown in fitted for image in shown]
        if images:
            if self.features is None:
                raise no_encoder()
            # An encoder returns them on its device; a data loader can pin host memory only.
            batch["features"] = self.features(images).cpu()
        return batch

    def lengths(self, conversations: Sequence[Conversation]) -> list[int]:
        """Tokens of each conversation in a batch, without padding; no image is encoded."""
        return [len(self._fitted(conversation)[0][0]) for conversation in conversations]

    def _fitted(self, conversation: Conversation) -> tuple[tuple[list[int], list[int]], tuple[ImageRef, ...]]:
        """Ids and labels of the turns that fit the context, and the images of these turns."""
        row = self._encode(conversation)
        total = len(conversation.turns)
        while self.context is not None and len(row[0]) > self.context:
            turns = conversation.turns[:-1]
            images = conversation.media
            if not turns and not images and conversation.is_text:
                if any(label != IGNORE for label in row[1][self.context :]):
                    warnings.warn(f"Texts of more than {self.context} tokens lose their end.", stacklevel=3)
                return (row[0][: self.context], row[1][: self.context]), ()  # plain text may end anywhere
            if not turns:
                where = images[0].where if images else None
                raise too_long(
                    len(row[0]), len(images), self.visual_tokens, self.context, where=where or None
                )
            left = sum(prompt.count(MARK) for prompt, _ in turns)
            conversation = replace(conversation, turns=turns, media=images[:left])
            row = self._encode(conversation)
        if len(conversation.turns) < total:
            warnings.warn(
                f"Conversations of more than {self.context} tokens lose their last turns.", stacklevel=3
            )
        return row, conversation.media

    def _encode(self, conversation: Conversation) -> tuple[list[int], list[int]]:
        if self.chat is None or conversation.is_text:
            return encode(self._ids, self.tokenizer.eos_token_id, conversation, self.visual_tokens)
        check_marks([prompt for prompt, _ in conversation.turns], conversation.media)
        return encode_chat(self.chat, conversation.turns, self.visual_tokens)
