"""A batch in which each row has its own extensions, and that rows join and leave between two tokens."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from moextend.model import lm_head
from moextend.model.batches import pad
from moextend.model.multimodal import MultimodalLM
from moextend.moe import attach
from moextend.serving.jobs import Answer, Job, Settings, Token

CHUNK = 256
"""Positions of a prompt that have logits at a time."""


def generator_of(settings: Settings) -> torch.Generator | None:
    """Random numbers of one answer; None for a greedy one."""
    if settings.temperature == 0:
        return None
    seed = secrets.randbits(63) if settings.seed is None else settings.seed % (1 << 63)
    return torch.Generator().manual_seed(seed)


def next_tokens(
    logits: Tensor, settings: Sequence[Settings], generators: Sequence[torch.Generator | None]
) -> list[int]:
    """Next token of each row for logits [B, V]; a row's random numbers do not depend on its neighbours."""
    found: list[int] = logits.argmax(-1).tolist()
    for row, (own, generator) in enumerate(zip(settings, generators, strict=True)):
        if generator is not None:
            found[row] = _drawn(logits[row], own, generator)
    return found


def _drawn(logits: Tensor, settings: Settings, generator: torch.Generator) -> int:
    """A token by temperature and top_p: the most likely tokens up to this share of the probability, at least one."""
    shares = (logits.double() / settings.temperature).softmax(-1).cpu()
    if settings.top_p < 1:
        ordered, ids = shares.sort(descending=True, stable=True)
        before = ordered.cumsum(-1) - ordered
        ordered = ordered.masked_fill((before >= settings.top_p) & (before > 0), 0)
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


def is_flexible(cache: Any) -> bool:
    """Whether rows may join and leave: each layer holds keys and values by position, and nothing else."""
    return all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in cache.layers)


def change(cache: Any, length: int, changed: Callable[[Tensor, int, str, int], Tensor]) -> None:
    """Changes a flexible cache to `length` positions.

    Args:
        changed: (keys or values [B, heads, positions, width] of a layer, the number of positions that the layer then
            holds, "keys" or "values", the layer's place) -> the new ones. A sliding window holds the latest positions.
    """
    for place, layer in enumerate(cache.layers):
        if not layer.is_initialized:
            continue
        sliding = isinstance(layer, DynamicSlidingWindowLayer)
        held = min(length, layer.sliding_window - 1) if sliding else length
        for name in ("keys", "values"):
            setattr(layer, name, changed(getattr(layer, name), held, name, place))
        if sliding:
            layer.cumulative_length = length


def _left_padded(values: Tensor, held: int) -> Tensor:
    return F.pad(values, (0, 0, held - values.shape[-2], 0))


@dataclass(eq=False)
class Row:
    """One job in a batch."""

    job: Job
    answer: Answer
    generator: torch.Generator | None
    features: dict[str, Tensor] = field(default_factory=dict)
    """Modality -> features [tokens, width] of the prompt's media."""
    prompt: tuple[Token, ...] = ()
    """Tokens of the prompt, if their log-likelihoods were asked for."""
    finished: bool = False


class Batch:
    """Rows in generation, with the cache of their keys and values.

    Prompts are padded on the left, so that the latest token of all rows is the last column. Rows of a family whose
    cache is more than keys and values by position (linear attention, ...) stay until all are finished, and none joins.
    """

    def __init__(self, model: MultimodalLM) -> None:
        self.model = model
        self._cache_name = lm_head.cache_name(model.lm)
        self.rows: list[Row] = []
        self._cache = DynamicCache(config=model.lm.config)
        self._mask = torch.zeros(0, 0, dtype=torch.long, device=model.device)
        self._last: list[int] = []
        self._logits = torch.zeros(0, 0)
        self._clear()
        self.flexible = is_flexible(self._cache)

    @torch.no_grad()
    def start(self, rows: Sequence[Row]) -> list[int]:
        """Computes the prompts of rows, which must be none yet, and returns their first tokens."""
        model = self.model
        prompts = [row.job.ids for row in rows]
        ids = pad(prompts, model.tokenizer.pad_token_id or 0, left=True).to(model.device)
        mask = pad([[1] * len(row) for row in prompts], 0, left=True).to(model.device)
        embedded = model.embed(ids, _joined(rows))
        places = (mask.cumsum(-1) - 1).clamp_min(0)
        with attach.reaching_rows(model.lm, [row.job.reached for row in rows]):
            with model.given(ids, embedded) as inputs:
                hidden = self._hidden(inputs, mask, places)
            logits = lm_head.logits(model.lm, hidden[:, -1])
            for row, states in zip(rows, hidden, strict=True):
                if row.job.settings.prompt_logprobs:
                    row.prompt = self._rated_prompt(row, states)
        self.rows, self._mask = list(rows), mask
        return self._advanced(logits)

    @torch.no_grad()
    def step(self) -> list[int]:
        """Computes the latest token of each row, and returns the next ones."""
        model = self.model
        self._mask = F.pad(self._mask, (0, 1), value=1)
        ids = torch.tensor(self._last, device=model.device).unsqueeze(-1)
        places = self._mask.sum(-1, keepdim=True) - 1
        with attach.reaching_rows(model.lm, [row.job.reached for row in self.rows]):
            hidden = self._hidden({"input_ids": ids}, self._mask, places)
            logits = lm_head.logits(model.lm, hidden[:, -1])
        return self._advanced(logits)

    def rated(self) -> list[tuple[Token, ...]]:
        """Log-likelihoods of the latest tokens, for the rows that asked for them."""
        found: list[tuple[Token, ...]] = []
        for row, logits, token in zip(self.rows, self._logits, self._last, strict=True):
            most = row.job.settings.logprobs
            found.append(() if most is None else tuple(rated(logits[None], [token], most)))
        return found

    def join(self, other: Batch) -> None:
        """Appends the rows of `other`, which is of no use afterwards."""
        if not self.rows:
            self._cache, self._mask = other._cache, other._mask
        else:
            masks = (self._mask, other._mask)
            most = max(mask.shape[1] for mask in masks)

            def joined(values: Tensor, held: int, name: str, place: int) -> Tensor:
                added = getattr(other._cache.layers[place], name)
                return torch.cat([_left_padded(each, held) for each in (values, added)])

            change(self._cache, most, joined)
            self._mask = torch.cat([F.pad(mask, (most - mask.shape[1], 0)) for mask in masks])
        self.rows += other.rows
        self._last += other._last

    def drop_finished(self) -> None:
        """Removes finished rows; of an inflexible cache only all together."""
        places = [place for place, row in enumerate(self.rows) if not row.finished]
        if not places:
            self._clear()
        if len(places) == len(self.rows) or not self.flexible:
            return
        kept = torch.tensor(places, device=self.model.device)
        mask = self._mask[kept]
        first = int(mask.any(0).int().argmax())
        change(
            self._cache,
            mask.shape[1] - first,
            lambda values, held, name, place: values[kept, :, values.shape[-2] - held :],
        )
        self._mask = mask[:, first:]
        self.rows = [self.rows[place] for place in places]
        self._last = [self._last[place] for place in places]

    def _clear(self) -> None:
        self.rows, self._last, self._cache = [], [], DynamicCache(config=self.model.lm.config)
        self._mask = self._mask[:0, :0]

    def _hidden(self, inputs: dict[str, Tensor], mask: Tensor, places: Tensor) -> Tensor:
        """Last hidden states [B, T, H]; the cache grows by T."""
        out = lm_head.decoder(self.model.lm)(
            **inputs,
            **{self._cache_name: self._cache},
            attention_mask=mask,
            position_ids=places,
            use_cache=True,
        )
        hidden: Tensor = out.last_hidden_state
        return hidden

    def _advanced(self, logits: Tensor) -> list[int]:
        self._logits = logits.float()
        settings = [row.job.settings for row in self.rows]
        self._last = next_tokens(self._logits, settings, [row.generator for row in self.rows])
        return self._last

    def _rated_prompt(self, row: Row, states: Tensor) -> tuple[Token, ...]:
        """Tokens of a prompt with log-likelihoods, from its hidden states [T, H] (with padding on the left)."""
        ids, most = row.job.ids, row.job.settings.logprobs or 0
        states = states[len(states) - len(ids) :]
        found = [Token(ids[0], None)]
        for start in range(0, len(ids) - 1, CHUNK):
            part = states[start : min(start + CHUNK, len(ids) - 1)]
            logits = lm_head.logits(self.model.lm, part)
            found += rated(logits, ids[start + 1 : start + 1 + len(part)], most)
        return tuple(found)


def _joined(rows: Sequence[Row]) -> dict[str, Tensor]:
    """Modality -> features [tokens, width] of the media of all rows, one row after the other."""
    names = dict.fromkeys(name for row in rows for name in row.features)
    return {name: torch.cat([row.features[name] for row in rows if name in row.features]) for name in names}
