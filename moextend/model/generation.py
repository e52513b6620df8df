"""Greedy generation in fixed batches, log-likelihoods of choices, and batches that do not fit into memory."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Any, TypeVar

import torch

from moextend.data.conversations import Conversation
from moextend.data.media import MediaRef
from moextend.data.modalities import media_at
from moextend.errors import InputError, RunFailed
from moextend.model.batches import encode, pad, piece_ids
from moextend.model.feature_cache import sources_of
from moextend.model.messages import Message, media_of, messages_of, no_encoder, too_long
from moextend.model.modality import Sources, gather
from moextend.model.multimodal import IGNORE, MultimodalLM
from moextend.moe.reach import check as check_reached
from moextend.util import files

R = TypeVar("R")
Found = TypeVar("Found")

log = logging.getLogger(__name__)
T = TypeVar("T")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device, or the CPU's allocator, had no memory for a tensor."""
    import torch
    from accelerate.utils.memory import should_reduce_batch_size

    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and should_reduce_batch_size(error)
    )


def release() -> None:
    """Frees the memory of an attempt that failed; called after its error is gone, which keeps its tensors."""
    from accelerate.utils.memory import clear_device_cache

    gc.collect()
    clear_device_cache()


def first_line(error: BaseException) -> str:
    """The part of an error of memory that says how much was wanted."""
    text = str(error).strip()
    return " ".join(text.splitlines()[:1])[:200].rstrip(".") or type(error).__name__


class BatchLimit:
    """Largest number of rows that fit into memory, as far as is known."""

    def __init__(self) -> None:
        self.rows: int | None = None
        """None: every batch fitted."""

    def split(
        self, work: Callable[[Sequence[R]], Sequence[Found]], rows: Sequence[R], what: str
    ) -> list[Found]:
        """What `work` returns for `rows`, one result a row: in one call if it fits, else in calls with fewer rows.

        A size that did not fit is not tried again. The results of smaller batches are the same up to rounding, as
        padding and the order of sums depend on the size.

        Raises:
            RunFailed: a single row does not fit. `what`: the work, for the message.
        """
        found: list[Found] = []
        while len(found) < len(rows):
            left = len(rows) - len(found)
            size = min(left, self.rows or left)
            try:
                found += work(rows[len(found) : len(found) + size])
                continue
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                problem = first_line(error)
            release()
            if size == 1:
                raise too_little(what, problem)
            self.rows = (size + 1) // 2
            log.warning("%s: no memory for %d rows at a time; continuing with %d.", what, size, self.rows)
        return found


def too_little(what: str, problem: str) -> RunFailed:
    """Error for a single row that does not fit."""
    return RunFailed(
        f"out of memory with one row at a time ({problem}).",
        where=what,
        hint="Load the base in bfloat16 (dtype: auto), use shorter inputs (fewer examples, smaller images) or answers, "
        "or a device with more memory; other programs may use it, too (nvidia-smi).",
    )


_CURRENT: ContextVar[BatchLimit | None] = ContextVar("limit", default=None)


def current_limit() -> BatchLimit:
    """The limit of the enclosing `noted`; without one a new limit."""
    return _CURRENT.get() or BatchLimit()


@contextmanager
def noted() -> Iterator[BatchLimit]:
    """Context in which all computations share one limit, which it yields."""
    mine = BatchLimit()
    token = _CURRENT.set(mine)
    try:
        yield mine
    finally:
        _CURRENT.reset(token)


@dataclass(frozen=True)
class Prompt:
    """A text with a mark for each of its media: `<image>`, `<audio>`, ...

    A mark of a modality of which the prompt has no medium is text.
    """

    text: str
    media: tuple[MediaRef, ...] = ()
    """All images and other media, in the order of the marks; those of earlier turns first."""
    before: tuple[tuple[str, str], ...] = ()
    """Earlier turns (question, answer)."""
    system: str = ""
    """System message; "": none."""

    def __post_init__(self) -> None:
        """Raises InputError for a text with a lone surrogate, which no tokenizer reads."""
        for text in (self.system, self.text, *(text for turn in self.before for text in turn)):
            files.refuse_surrogates(text, where="prompt")

    @classmethod
    def first(cls, conversation: Conversation) -> Prompt:
        """The first question of a conversation."""
        text = conversation.turns[0][0]
        return cls(text, tuple(media_at(text, conversation.media)), system=conversation.system)

    def messages(self, answer: str | None = None, where: str | None = None) -> list[Message]:
        """Its messages, the last one with an answer. Raises InputError if marks and media do not agree."""
        return messages_of([*self.before, (self.text, answer)], self.media, self.system, where=where)


def generate(
    model: MultimodalLM,
    prompts: Sequence[Prompt],
    *,
    max_new_tokens: int,
    batch_size: int,
    features: Sources | None = None,
) -> list[str]:
    """Greedy answers without special tokens and outer spaces; batches follow the order of `prompts`.

    If `model.choose` is set, it chooses the extensions of each prompt; otherwise the active ones compute. Prompts may
    have different numbers of media, or none. `features`: modality -> source of its features, instead of the model's.

    Raises:
        InputError: marks and media of a prompt do not agree; a medium for a model without an encoder; a prompt that
            exceeds the context together with the answer; fewer than one new token or prompt per batch.
        RunFailed: a single prompt does not fit into the memory of the device. A batch that does not is split.
    """
    for name, value in (("max_new_tokens", max_new_tokens), ("batch_size", batch_size)):
        if value < 1:
            raise InputError(f"{name} is {value}.", where="generate", hint="Give at least 1.")
    answers: list[str] = []
    for place, prompt in enumerate(prompts):
        if not hasattr(prompt, "messages"):
            raise InputError(
                f"{prompt!r} is not a prompt.",
                where=f"prompt {place}",
                hint="Give a moextend.Prompt(text, media).",
            )
        prompt.messages(where=f"prompt {place}")
        for medium in prompt.media:
            if medium.modality not in model.modalities:
                raise no_encoder(medium, where=f"prompt {place}")
    sources, limit = sources_of(model, features), current_limit()
    for start in range(0, len(prompts), batch_size):
        batch = prompts[start : start + batch_size]

        def answered(places: Sequence[int], batch: Sequence[Prompt] = batch) -> list[str]:
            rows = [batch[place] for place in places]
            return limit.split(lambda part: _answer(model, part, max_new_tokens, sources), rows, "generate")

        answers += each_by_its_own(model, batch, answered, sources)
    return answers


def prompt_ids(model: MultimodalLM, prompt: Prompt) -> list[int]:
    """Ids of a prompt, in the model's chat template if it has one, with placeholders for its media."""
    return message_ids(model, prompt.messages())[0]


def message_ids(
    model: MultimodalLM, messages: Sequence[Message], *, end: bool = True
) -> tuple[list[int], list[int]]:
    """Ids and labels of messages (see `encode`), with placeholders for their media."""
    holes = model.modalities.holes(media_of(messages))
    ids_of = partial(piece_ids, model.tokenizer)
    return encode(ids_of, model.tokenizer.eos_token_id, model.chat, messages, holes, end=end)


def each_by_its_own(
    model: MultimodalLM,
    prompts: Sequence[Prompt],
    work: Callable[[Sequence[int]], Sequence[T]],
    sources: Sources | None = None,
) -> list[T]:
    """Calls `work` with the indices of prompts that share extensions, and returns its results in prompt order.

    `model.choose` chooses the extensions of each prompt; only they are active during the call. `sources`: sources of
    features for the choice; None: the model's own.

    Raises:
        InputError: a replaced forward would bypass an extension.
    """
    check_reached(model.lm)
    if model.choose is None:
        return list(work(range(len(prompts))))
    chosen = model.choose(prompts, sources)
    found: dict[int, T] = {}
    for reach in sorted(set(chosen)):
        places = [place for place, mine in enumerate(chosen) if mine == reach]
        with model.choose.reaching(reach):
            found.update(zip(places, work(places), strict=True))
    return [found[place] for place in range(len(prompts))]


@torch.no_grad()
def _answer(
    model: MultimodalLM,
    prompts: Sequence[Prompt],
    max_new_tokens: int,
    sources: Sources,
) -> list[str]:
    tokenizer = model.tokenizer
    rows = [prompt_ids(model, prompt) for prompt in prompts]
    for row, prompt in zip(rows, prompts, strict=True):
        if model.context is not None and len(row) + max_new_tokens > model.context:
            asked = prompt.text if len(prompt.text) < 80 else f"{prompt.text[:77]}..."
            raise too_long(
                len(row) + max_new_tokens, prompt.media, model.modalities.holes(prompt.media), model.context,
                where=f"{asked!r} with {max_new_tokens} tokens for its answer",
            )  # fmt: skip
    ids = pad(rows, tokenizer.pad_token_id, left=True).to(model.device)
    mask = pad([[1] * len(row) for row in rows], 0, left=True).to(model.device)
    media = [medium for prompt in prompts for medium in prompt.media]
    embedded = model.embed(ids, gather(media, sources))
    with _greedy(model, max_new_tokens) as greedy, model.given(ids, embedded) as inputs:
        out = model.lm.generate(**inputs, attention_mask=mask, generation_config=greedy)
    if "input_ids" in inputs:  # then what comes back begins with the prompt
        out = out[:, ids.shape[1] :]
    written = [row if model.chat is None else model.chat.answer(row) for row in out.tolist()]
    return [text.strip() for text in tokenizer.batch_decode(written, skip_special_tokens=True)]


@contextmanager
def _greedy(model: MultimodalLM, max_new_tokens: int) -> Iterator[Any]:
    """Context in which the LM has a config of plain greedy decoding, which it yields.

    transformers fills open settings (beams, penalties, forbidden words, ...) from the LM's own generation config, which
    many checkpoints have.
    """
    from transformers import GenerationConfig

    greedy = GenerationConfig(
        max_new_tokens=max_new_tokens,
        do_sample=False,
        bos_token_id=model.tokenizer.bos_token_id,
        eos_token_id=_stop(model),
        pad_token_id=model.tokenizer.pad_token_id,
    )
    own, model.lm.generation_config = model.lm.generation_config, greedy
    try:
        yield greedy
    finally:
        model.lm.generation_config = own


def stop_ids(model: MultimodalLM) -> set[int]:
    """Ids that end an answer."""
    found = _stop(model)
    return {found} if isinstance(found, int) else set(found)


def _stop(model: MultimodalLM) -> int | list[int]:
    if model.chat is None:
        end: int = model.tokenizer.eos_token_id
        return end
    own = model.lm.generation_config.eos_token_id
    return sorted({*model.chat.stop, *([own] if isinstance(own, int) else own or [])})


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
