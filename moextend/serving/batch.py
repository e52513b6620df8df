"""A batch: prompts that reach the same extensions, computed together until all answers have ended."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import DynamicCache

from moextend.model import lm_head
from moextend.model.batches import pad
from moextend.model.chat import without_lead
from moextend.model.generation import Prompt, common, stop_ids
from moextend.model.modality import Sources, gather
from moextend.model.multimodal import MultimodalLM
from moextend.serving.catalogue import Known
from moextend.serving.protocol import ApiError, Asked

CHUNK = 256
"""Positions of a prompt that have logits at a time."""
OPEN = "\ufffd"
"""What a tokenizer decodes the first bytes of a character to."""
WINDOW = 8
"""Tokens before a token that its text can depend on: a space between words, or the other bytes of a character."""


@dataclass(frozen=True)
class Token:
    """A token with its log-likelihood (nats) and the most likely ones; without the latter for a first token."""

    id: int
    logprob: float | None
    top: tuple[tuple[int, float], ...] = ()
    """Ids and log-likelihoods, the most likely first; the token itself is always among them."""


@dataclass(frozen=True)
class Piece:
    """The next piece of a streamed answer, or all of one."""

    text: str
    tokens: tuple[Token, ...] = ()
    """Its tokens, if log-likelihoods were asked for; those of the prompt first, if they were, too."""
    reason: str | None = None
    """Of the last piece. stop: an end token or a stop text; length: max_tokens."""


@dataclass(eq=False)
class Job:
    """One prompt on its way through the engine."""

    ids: list[int]
    prompt: Prompt
    """For its media, and for the inference of extensions."""
    asked: Asked
    max_tokens: int
    """0: only the prompt is scored."""
    logprobs: int | None = None
    """Number of most likely tokens that are named at each position; None: no log-likelihoods."""
    echo: str | None = None
    """Text before the answer, which then has the log-likelihoods of the prompt, too; None: the answer alone."""
    lead: tuple[int, ...] | None = None
    """Of a chat: tokens before the text of its answer. None: the answer is a text that continues the prompt."""
    deliver: Callable[[Piece | ApiError], None] = lambda event: None
    """Called by the engine's thread."""
    made: int = 0
    """Number of tokens of the answer, with an end token."""
    over: bool = False
    """The answer is complete, or nobody waits for it any more."""
    known: Known | None = None
    """What is served at its computation."""
    names: tuple[str, ...] = ()
    """Its extensions in the model."""


class Answer:
    """The answer to a job: ends at a stop text, and delivers pieces that later tokens do not change."""

    def __init__(self, job: Job, tokenizer: Any) -> None:
        self.job, self._tokenizer = job, tokenizer
        self.tokens: list[Token] = []
        """Tokens with log-likelihoods that were not delivered yet."""
        self.generator = None
        """Random numbers of this answer; None: it is greedy."""
        if job.asked.temperature > 0:
            seed = secrets.randbits(63) if job.asked.seed is None else job.asked.seed % (1 << 63)
            self.generator = torch.Generator().manual_seed(seed)
        special = set(tokenizer.all_special_ids)
        before = [token for token in job.ids if token not in special][-WINDOW:]
        self._before = before if job.lead is None else []
        self._base: str = tokenizer.decode(self._before, skip_special_tokens=True)
        self._ids: list[int] = []
        self._stopped, self._given = False, 0

    def add(self, token: int, ends: bool) -> None:
        """Adds a token, unless only the prompt is scored. `ends`: it is an end token."""
        asked, most = self.job.asked, self.job.max_tokens
        self._ids += [token][:most]
        text = self._text() if asked.stream or asked.stops else ""
        if self._ids and (ends or self._stopped):
            self._deliver(self._text(), "stop")
        elif len(self._ids) >= most:
            self._deliver(self._text(), "length")
        elif asked.stream:
            text = text.rstrip(OPEN)
            self._deliver(text[: len(text) - self._held(text)])

    def _deliver(self, text: str, reason: str | None = None) -> None:
        """Delivers what `text`, the answer so far, has more than the pieces before."""
        text = text if self.job.lead is None else text.strip()
        piece, self._given = text[self._given :], max(self._given, len(text))
        if reason:
            self.job.made, self.job.over = len(self._ids), True
        if piece or self.tokens or reason:
            piece = f"{self.job.echo or ''}{piece}"  # never of a stream
            self.job.deliver(Piece(piece, tuple(self.tokens), reason))
        self.tokens.clear()

    def _text(self) -> str:
        """Text so far, up to a stop text."""
        ids = [*self._before, *without_lead(self._ids, self.job.lead or ())]
        text: str = self._tokenizer.decode(ids, skip_special_tokens=True)
        # The text before may end within a character that is complete now.
        text = text[common(self._base, text) :]
        found = [place for stop in self.job.asked.stops if (place := text.find(stop)) >= 0]
        self._stopped = bool(found)
        return text[: min(found)] if found else text

    def _held(self, text: str) -> int:
        """Length of the end of `text` that may be the start of a stop text."""
        starts = (stop[:length] for stop in self.job.asked.stops for length in range(1, len(stop)))
        return max((len(start) for start in starts if text.endswith(start)), default=0)


class Batch:
    """Answers in generation, with the cache of their keys and values; the caller activates their extensions.

    Prompts are padded on the left, so that the latest token of all rows is the last column.
    """

    def __init__(self, model: MultimodalLM, jobs: Sequence[Job]) -> None:
        self._answers = [Answer(job, model.tokenizer) for job in jobs]
        self._model, self._ends = model, stop_ids(model)
        self._cache = {lm_head.cache_name(model.lm): DynamicCache(config=model.lm.config)}
        self._mask = pad([[1] * len(job.ids) for job in jobs], 0, left=True).to(model.device)
        self._last: list[int] = []

    @torch.no_grad()
    def start(self, sources: Sources) -> None:
        """Computes the prompts, and adds the first tokens; `sources`: of the features of media."""
        model, jobs = self._model, [answer.job for answer in self._answers]
        ids = pad([job.ids for job in jobs], model.tokenizer.pad_token_id or 0, left=True).to(model.device)
        media = [medium for job in jobs for medium in job.prompt.media]
        embedded = model.embed(ids, gather(media, sources))
        with model.given(ids, embedded) as inputs:
            hidden = self._hidden(inputs, (self._mask.cumsum(-1) - 1).clamp_min(0))
        for answer, states in zip(self._answers, hidden, strict=True):
            job = answer.job
            if job.echo is not None and job.logprobs is not None:
                answer.tokens += self._rated_prompt(job, job.logprobs, states[-len(job.ids) :])
        self._add(hidden)

    @torch.no_grad()
    def step(self) -> None:
        """Computes the latest token of each row, and adds the next ones."""
        self._mask = F.pad(self._mask, (0, 1), value=1)
        ids = torch.tensor(self._last, device=self._model.device).unsqueeze(-1)
        self._add(self._hidden({"input_ids": ids}, self._mask.sum(-1, keepdim=True) - 1))

    def _hidden(self, inputs: dict[str, Tensor], places: Tensor) -> Tensor:
        """Last hidden states [B, T, H]; the cache grows by T."""
        decoder: Any = lm_head.decoder(self._model.lm)
        given = {**inputs, **self._cache, "attention_mask": self._mask, "position_ids": places}
        hidden: Tensor = decoder(**given, use_cache=True).last_hidden_state
        return hidden

    def _add(self, hidden: Tensor) -> None:
        """Chooses the next tokens from hidden states [B, T, H]."""
        logits = lm_head.logits(self._model.lm, hidden[:, -1]).float()
        self._last = logits.argmax(-1).tolist()
        for place, answer in enumerate(self._answers):
            job = answer.job
            if job.over:
                continue
            if answer.generator is not None:
                self._last[place] = _drawn(logits[place], job.asked, answer.generator)
            token = self._last[place]
            if job.logprobs is not None and job.max_tokens:
                answer.tokens += rated(logits[place : place + 1], [token], job.logprobs)
            answer.add(token, token in self._ends)

    def _rated_prompt(self, job: Job, most: int, states: Tensor) -> list[Token]:
        """Tokens of a prompt with log-likelihoods, from its hidden states [T, H]."""
        found = [Token(job.ids[0], None)]
        for start in range(0, len(job.ids) - 1, CHUNK):
            following = job.ids[start + 1 : start + 1 + CHUNK]
            logits = lm_head.logits(self._model.lm, states[start : start + len(following)])
            found += rated(logits, following, most)
        return found


def _drawn(logits: Tensor, asked: Asked, generator: torch.Generator) -> int:
    """A token by temperature and top_p: the most likely tokens up to this share of the probability, at least one."""
    shares = (logits.double() / asked.temperature).softmax(-1).cpu()
    if asked.top_p < 1:
        ordered, ids = shares.sort(descending=True, stable=True)
        before = ordered.cumsum(-1) - ordered
        ordered = ordered.masked_fill((before >= asked.top_p) & (before > 0), 0)
        return int(ids[torch.multinomial(ordered, 1, generator=generator)])
    return int(torch.multinomial(shares, 1, generator=generator))


def rated(logits: Tensor, ids: Sequence[int], most: int) -> list[Token]:
    """Tokens with log-likelihoods for logits [N, V] that predict them; `most`: number of most likely ones."""
    logs = logits.float().log_softmax(-1)
    chosen = torch.tensor(ids, device=logs.device).unsqueeze(-1)
    own = logs.gather(-1, chosen).squeeze(-1).tolist()
    values, best = (each.tolist() for each in logs.topk(min(most, logs.shape[-1]), dim=-1))
    found = []
    for token, value, tops, names in zip(ids, own, values, best, strict=True):
        top = list(zip(names, tops, strict=True))
        found.append(Token(token, value, tuple(top if token in names else [*top, (token, value)])))
    return found
