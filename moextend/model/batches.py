"""Conversations -> token ids with placeholders of media, padded batches."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor

from moextend.data.conversations import Conversation
from moextend.data.media import MediaRef
from moextend.data.modalities import marks_in, modalities_of
from moextend.errors import InputError
from moextend.model.chat import Chat, Tokens
from moextend.model.messages import Message, folded, media_of, of_conversation, too_long
from moextend.model.modality import Modalities, gather
from moextend.model.multimodal import IGNORE, MultimodalLM

Pieces = Callable[[str, bool], list[int]]
"""(text, with the tokenizer's start tokens) -> ids, which must not be changed."""


def piece_ids(tokenizer: Any, text: str, start: bool) -> list[int]:
    """Ids of a piece of text. The mark of a medium in it is text, also where a tokenizer has a token for it."""
    more = {"split_special_tokens": True} if marks_in(text) else {}
    ids: list[int] = tokenizer(text, add_special_tokens=start, **more)["input_ids"]
    return ids


def encode(
    ids_of: Pieces,
    eos: int,
    chat: Chat | None,
    messages: Sequence[Message],
    holes: Sequence[Sequence[int]],
    *,
    end: bool = True,
) -> tuple[list[int], list[int]]:
    """Ids and labels of messages, which make a prompt unless the last one is an answer; only answers have labels.

    Everything that a model reads or learns as a conversation is rendered here: training, generation, likelihoods,
    serving. With a chat template it is `Chat.encode`.

    Args:
        chat: chat template; None: a prompt is used as it is, an answer follows after a space, with the end token.
        holes: placeholders of each medium.
        end: whether answers have their end tokens, or, with a chat template, the last one.
    """
    if not messages:
        raise InputError("a conversation has no turn.", where="data", hint="Leave it out, or give it a turn.")
    tokens = (
        _plain(ids_of, eos if end else None, messages) if chat is None else chat.encode(messages, end=end)
    )
    places = iter(holes)
    ids: list[int] = []
    labels: list[int] = []
    for token, learned in zip(tokens.ids, tokens.learned, strict=True):
        piece = next(places) if token is None else [token]
        ids += piece
        labels += piece if learned and token is not None else [IGNORE] * len(piece)
    return ids, labels


def _plain(ids_of: Pieces, eos: int | None, messages: Sequence[Message]) -> Tokens:
    """Tokens of messages without a chat template. Texts between media are tokenized one by one."""
    ids: list[int | None] = []
    learned: list[bool] = []
    begun = False
    for message in folded(messages):
        own: list[int | None] = []
        if message.role == "assistant":
            own += ids_of(f" {message.text}" if begun else message.text, False)
            own += [] if eos is None else [eos]
        else:
            for i, (text, medium) in enumerate(message.pieces):
                own += [*ids_of(text, not ids and i == 0), *([None] if medium else [])]
        learned += [message.role == "assistant" and bool(message.text)] * len(own)
        ids += own
        begun = begun or bool(message.text or message.media)
    return Tokens(ids, learned)


def pad(rows: Sequence[Sequence[int]], value: int, *, left: bool = False) -> Tensor:
    """Rows of ids as one padded tensor [rows, longest]."""
    width = max(map(len, rows))
    filled = [
        [value] * (width - len(row)) + list(row) if left else list(row) + [value] * (width - len(row))
        for row in rows
    ]
    return torch.tensor(filled)


def on_device(batch: Mapping[str, Any], device: torch.device | str) -> dict[str, Any]:
    """A batch with its tensors, also those in mappings, on a device."""
    return {
        name: on_device(value, device) if isinstance(value, Mapping) else value.to(device)
        for name, value in batch.items()
    }


def labelled(batch: Mapping[str, Any]) -> int:
    """Number of tokens of a batch that the loss is a mean over."""
    return int((batch["labels"][:, 1:] != IGNORE).sum())


class Collator:
    """Conversations -> inputs of the model: ids, mask, labels and features."""

    def __init__(
        self,
        tokenizer: Any,
        modalities: Modalities,
        *,
        chat: Chat | None = None,
        context: int | None = None,
    ) -> None:
        """Args: context: maximum number of tokens; None: no limit."""
        self.tokenizer, self.modalities, self.chat, self.context = tokenizer, modalities, chat, context
        # Prompts recur, and the tokenizer takes most of the time of a batch.
        self._ids = lru_cache(maxsize=1 << 16)(partial(piece_ids, tokenizer))

    @classmethod
    def of(cls, model: MultimodalLM) -> Collator:
        """Collator with a model's tokenizer, chat template, modalities and context."""
        return cls(model.tokenizer, model.modalities, chat=model.chat, context=model.context)

    def __call__(self, conversations: Sequence[Conversation]) -> dict[str, Any]:
        """A batch in host memory, padded on the right; padding is masked and has no labels.

        `features`, if there are media, is a mapping: modality -> features [tokens, width] of its media, in order. A
        conversation longer than the context loses its last turns with their media; plain text is truncated.

        Raises:
            InputError: marks and media do not agree, a medium without an encoder, or a first turn that is too long.
        """
        fitted = [self._fitted(conversation) for conversation in conversations]
        batch: dict[str, Any] = self._padded([row for row, _ in fitted])
        media = [medium for _, shown in fitted for medium in shown]
        if media:
            found = gather(media, self.modalities.sources())
            # An encoder returns them on its device; a data loader can pin host memory only.
            batch["features"] = {name: features.cpu() for name, features in found.items()}
        return batch

    def ids(self, conversations: Sequence[Conversation]) -> dict[str, Tensor]:
        """`input_ids`, `attention_mask` and `labels` of a batch; no medium is encoded."""
        return self._padded([self._fitted(conversation)[0] for conversation in conversations])

    def _padded(self, rows: Sequence[tuple[list[int], list[int]]]) -> dict[str, Tensor]:
        return {
            "input_ids": pad([ids for ids, _ in rows], self.tokenizer.pad_token_id),
            "attention_mask": pad([[1] * len(ids) for ids, _ in rows], 0),
            "labels": pad([labels for _, labels in rows], IGNORE),
        }

    def _fitted(self, conversation: Conversation) -> tuple[tuple[list[int], list[int]], tuple[MediaRef, ...]]:
        """Ids and labels of the turns that fit the context, and the media of these turns."""
        row = self._encode(conversation)
        total = len(conversation.turns)
        while self.context is not None and len(row[0]) > self.context:
            turns, media = conversation.turns[:-1], conversation.media
            if not turns and not media and conversation.is_text:
                if any(label != IGNORE for label in row[1][self.context :]):
                    warnings.warn(f"Texts of more than {self.context} tokens lose their end.", stacklevel=3)
                return (row[0][: self.context], row[1][: self.context]), ()  # plain text may end anywhere
            if not turns:
                where = media[0].where if media else None
                holes = self.modalities.holes(media)
                raise too_long(len(row[0]), media, holes, self.context, where=where or None)
            names = modalities_of(media)
            left = sum(len(marks_in(prompt, names)) for prompt, _ in turns)
            conversation = replace(conversation, turns=turns, media=media[:left])
            row = self._encode(conversation)
        if len(conversation.turns) < total:
            warnings.warn(
                f"Conversations of more than {self.context} tokens lose their last turns.", stacklevel=3
            )
        return row, conversation.media

    def _encode(self, conversation: Conversation) -> tuple[list[int], list[int]]:
        chat = None if conversation.is_text else self.chat
        messages, eos = of_conversation(conversation), self.tokenizer.eos_token_id
        holes = self.modalities.holes(media_of(messages))
        return encode(self._ids, eos, chat, messages, holes, end=conversation.closed)
