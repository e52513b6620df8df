"""Generation in fixed batches, greedy or sampled, and log-likelihoods of choices."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Any, TypeVar

import torch

from moextend.data.conversations import Conversation
from moextend.data.media import MediaRef
from moextend.data.modalities import media_at
from moextend.errors import InputError
from moextend.model.batches import encode, on_device, pad, piece_ids
from moextend.model.feature_cache import sources_of
from moextend.model.messages import Message, media_of, messages_of, no_encoder, too_long
from moextend.model.modality import Sources, gather
from moextend.model.multimodal import IGNORE, MultimodalLM
from moextend.moe.reach import check as check_reached
from moextend.util import files, memory

T = TypeVar("T")


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
            exceeds the context together with the answer; fewer than one new token or prompt per batch; or a batch does
            not fit into the memory.
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
    sources, batch_size = sources_of(model, features), memory.fitted(batch_size)
    for start in range(0, len(prompts), batch_size):
        batch = prompts[start : start + batch_size]

        def answered(places: Sequence[int], batch: Sequence[Prompt] = batch) -> list[str]:
            with memory.enough(len(places), "generate"):
                return _answer(model, [batch[place] for place in places], max_new_tokens, sources)

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


def _answer(
    model: MultimodalLM, prompts: Sequence[Prompt], max_new_tokens: int, sources: Sources
) -> list[str]:
    out = answer_ids(model, prompts, max_new_tokens, sources)
    written = [row if model.chat is None else model.chat.answer(row) for row in out]
    return [text.strip() for text in model.tokenizer.batch_decode(written, skip_special_tokens=True)]


@torch.no_grad()
def answer_ids(
    model: MultimodalLM,
    prompts: Sequence[Prompt],
    max_new_tokens: int,
    sources: Sources,
    *,
    sample: bool = False,
) -> list[list[int]]:
    """Ids that follow each prompt, up to and with the first that ends an answer, if one does.

    They are the most likely ones, or with `sample` drawn at temperature 1 with torch's random numbers.
    """
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
    with (
        plain_decoding(model.lm, tokenizer, _stop(model), max_new_tokens, sample=sample) as how,
        model.given(ids, embedded) as inputs,
    ):
        out = model.lm.generate(**inputs, attention_mask=mask, generation_config=how)
    if "input_ids" in inputs:  # then what comes back begins with the prompt
        out = out[:, ids.shape[1] :]
    ends = stop_ids(model)
    return [
        row[: next((place for place, token in enumerate(row, 1) if token in ends), len(row))]
        for row in out.tolist()
    ]


def answered(
    model: MultimodalLM, prompts: Sequence[Prompt], answers: Sequence[Sequence[int]]
) -> dict[str, Any]:
    """Inputs of the model for prompts with answers of these ids, on its device; only answers have labels."""
    rows = [prompt_ids(model, prompt) for prompt in prompts]
    pairs = list(zip(rows, answers, strict=True))
    batch = {
        "input_ids": pad([[*row, *answer] for row, answer in pairs], model.tokenizer.pad_token_id),
        "attention_mask": pad([[1] * (len(row) + len(answer)) for row, answer in pairs], 0),
        "labels": pad([[IGNORE] * len(row) + list(answer) for row, answer in pairs], IGNORE),
    }
    found = gather([medium for prompt in prompts for medium in prompt.media], sources_of(model))
    return on_device({**batch, "features": found}, model.device)


@contextmanager
def plain_decoding(
    lm: Any, tokenizer: Any, stop: int | list[int], max_new_tokens: int, *, sample: bool = False
) -> Iterator[Any]:
    """Context in which the LM has a config of plain greedy decoding or sampling, which it yields.

    transformers fills open settings (beams, penalties, forbidden words, ...) from the LM's own generation config, which
    many checkpoints have.
    """
    from transformers import GenerationConfig

    drawn = {"temperature": 1.0, "top_k": 0, "top_p": 1.0} if sample else {}
    plain = GenerationConfig(
        max_new_tokens=max_new_tokens,
        do_sample=sample,
        **drawn,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=stop,
        pad_token_id=tokenizer.pad_token_id,
    )
    own, lm.generation_config = lm.generation_config, plain
    try:
        yield plain
    finally:
        lm.generation_config = own


def stop_ids(model: MultimodalLM) -> set[int]:
    """Ids that end an answer."""
    found = _stop(model)
    return {found} if isinstance(found, int) else set(found)


def _stop(model: MultimodalLM) -> int | list[int]:
    if model.chat is None:
        end: int = model.tokenizer.eos_token_id
        return end
    return sorted({*model.chat.stop, *own_stops(model.lm)})


def own_stops(lm: Any) -> list[int]:
    """Ids that end an answer by a model's own generation config."""
    own = lm.generation_config.eos_token_id
    return [own] if isinstance(own, int) else list(own or ())


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
) -> list[tuple[float, ...]]:
    """Log-likelihoods (nats, summed over tokens) of each prompt's choices as its continuation.

    A choice follows a space, or is the answer in the chat template. Prompt and choice are tokenised together; all
    choices of a prompt are scored from the first token in which any of them differs from the prompt alone. A batch has
    `batch_size` rows of prompt and choice. If `model.choose` is set, it chooses the extensions of each prompt;
    otherwise the active ones compute. Raises InputError if a batch does not fit into the memory.
    """
    sources = sources_of(model)

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
    start = min((common(alone, ids) for ids in full), default=0)
    return [ChoiceRow(place, ids, start, prompt.media) for ids in full]


def common(a: Sequence[object], b: Sequence[object]) -> int:
    """Length of the common prefix."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _scored(
    model: MultimodalLM, rows: Sequence[ChoiceRow], batch_size: int, sources: Sources
) -> dict[int, tuple[float, ...]]:
    """Index of a prompt -> the values of its rows."""
    found: dict[int, tuple[float, ...]] = {}
    batch_size = memory.fitted(batch_size)
    for start in range(0, len(rows), batch_size):
        batch = rows[start : start + batch_size]
        with memory.enough(len(batch), "log-likelihoods of choices"):
            sums = _sums(model, batch, sources)
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
