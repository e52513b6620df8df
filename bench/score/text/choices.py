"""Log-likelihoods of several continuations of one context, with one computation of the context.

lm-eval's own model computes context and continuation for every choice, with logits at every position. Here the contexts
of a batch are computed together with a key-value cache. Each choice continues from its context's cache, and the head is
applied only to the positions that predict its tokens. Padding is masked. The numbers equal lm-eval's up to rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import lm_eval.models.huggingface as huggingface
import torch
from lm_eval.models.huggingface import HFLM
from torch import Tensor
from transformers import DynamicCache

from moextend.model import lm_head
from moextend.model.generation import Prompt, each_by_its_own
from moextend.util import memory, processes

if TYPE_CHECKING:
    from moextend.model.multimodal import MultimodalLM

T = TypeVar("T")

Request = tuple[tuple[str, str], list[int], list[int]]
"""((context, continuation), ids of the context, ids of the continuation)"""
Answer = tuple[float, bool]
"""Log-likelihood (nats), and whether greedy decoding gives the continuation."""
Work = tuple[Callable[[Sequence[int]], list[T]], Sequence[int]]
"""What computes the answers to the requests at some places, and the places of a batch."""
_LOGITS = 2**25
"""Maximum number of logits in memory."""


@dataclass(frozen=True)
class Group:
    """One context and the requests that continue it."""

    context: Sequence[int]
    places: Sequence[int]
    """Indices of its requests."""
    choices: Sequence[Sequence[int]]

    @property
    def length(self) -> int:
        """Tokens of the context and its longest choice."""
        return len(self.context) + max(map(len, self.choices))


class SharedContext(HFLM):  # type: ignore[misc]
    """lm-eval's transformers model with shared contexts for choices; other requests are handled by lm-eval.

    Where the model chooses extensions by the input (`MultimodalLM.choose`), it does so for the context of each request.
    Several processes share the batches, and each gets all answers.
    """

    def __init__(self, model: MultimodalLM, **options: Any) -> None:
        super().__init__(
            pretrained=model.lm,
            tokenizer=model.tokenizer,
            backend="causal",
            device=str(model.device),
            **options,
        )
        self.multimodal = model

    def loglikelihood(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[Answer]:
        """Log-likelihoods of continuations."""
        return self._chosen(super().loglikelihood, requests)

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        """Log-likelihoods of whole texts."""
        return self._chosen(super().loglikelihood_rolling, requests)

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """Answers, in batches as lm-eval makes them."""
        return self._chosen(self._generate_until, requests)

    def _chosen(self, answer: Callable[[list[Any]], list[T]], requests: Sequence[Any]) -> list[T]:
        prompts = [Prompt(request.args[0]) for request in requests]
        return each_by_its_own(
            self.multimodal, prompts, lambda places: answer([requests[place] for place in places])
        )

    def _loglikelihood_tokens(
        self, requests: Sequence[Request], disable_tqdm: bool = False, override_bs: int | None = None
    ) -> list[Answer]:
        shared, rest = self._split(requests)

        def rated(places: Sequence[int]) -> list[Answer]:
            return list(super(SharedContext, self)._loglikelihood_tokens([requests[i] for i in places], True))

        def chosen(groups: Sequence[Group], places: Sequence[int]) -> list[Answer]:
            found = _score(self.model, groups, int(self.tokenizer.pad_token_id or 0), self.device)
            return [found[place] for place in places]

        batches: list[Work[Answer]] = [(rated, batch) for batch in self._rated(requests, rest)]
        for groups in _batches(shared, override_bs or int(self.batch_size)):
            batches.append((partial(chosen, groups), [place for group in groups for place in group.places]))
        return _shared(batches, len(requests))

    def _generate_until(self, requests: Sequence[Any]) -> list[str]:
        def answered(places: Sequence[int]) -> list[str]:
            return list(super(SharedContext, self).generate_until([requests[i] for i in places], True))

        texts = [request.args[0] for request in requests]
        order = sorted(range(len(texts)), key=lambda i: (-len(self.tok_encode(texts[i])), texts[i]))
        # Requests with other settings of the decoding are never in one batch.
        by_settings: dict[str, list[int]] = {}
        for place in order:
            settings = repr(sorted(requests[place].args[1].items()))
            by_settings.setdefault(settings, []).append(place)
        kinds = sorted(by_settings.values(), key=min)
        return _shared([(answered, batch) for own in kinds for batch in self._chunks(own)], len(requests))

    def _rated(self, requests: Sequence[Request], places: Sequence[int]) -> list[list[int]]:
        """Batches of requests without a shared context, as lm-eval makes them.

        A row of a batch stands for all requests with the same ids but the last one.
        """
        rows: dict[tuple[int, ...], list[int]] = {}
        for place in places:
            _, context, choice = requests[place]
            rows.setdefault((*context, *choice[:-1]), []).append(place)

        def length(row: list[int]) -> tuple[int, tuple[int, ...]]:
            _, context, choice = max((requests[place] for place in row), key=lambda request: len(request[2]))
            return -len(context + choice), (*context, *choice)

        ordered = sorted(rows.values(), key=length)
        return [[place for row in batch for place in row] for batch in self._chunks(ordered)]

    def _chunks(self, rows: Sequence[T]) -> list[Sequence[T]]:
        size = int(self.batch_size)
        return [rows[start : start + size] for start in range(0, len(rows), size)]

    def _split(self, requests: Sequence[Request]) -> tuple[list[Group], list[int]]:
        """Groups of at least two choices that fit the model's length, and the indices of all other requests."""
        by_context: dict[tuple[int, ...], list[int]] = {}
        for place, (_, ids, _) in enumerate(requests):
            by_context.setdefault(tuple(ids), []).append(place)
        groups: list[Group] = []
        rest: list[int] = []
        for context, places in by_context.items():
            group = Group(context, places, [requests[place][2] for place in places])
            if len(places) > 1 and context and group.length <= self.max_length:
                groups.append(group)
            else:
                rest += places
        return groups, rest


def _shared(batches: Sequence[Work[T]], total: int) -> list[T]:
    """Results of `total` requests from batches, of which each process computes its share."""
    answers: dict[int, T] = {}
    bar = huggingface.tqdm(total=total)

    def mine() -> dict[int, T]:
        found: dict[int, T] = {}
        for work, places in processes.share(batches):
            with memory.enough(len(places), "lm-eval"):
                found |= zip(places, work(places), strict=True)
            bar.update(len(places) * processes.count())
        return found

    for part in processes.gathered(mine):
        answers |= part
    bar.close()
    return [answers[place] for place in range(total)]


def _batches(groups: Sequence[Group], rows: int) -> Iterable[list[Group]]:
    """Batches of groups with similar length, the longest first; about `rows` choices per batch."""
    batch: list[Group] = []
    for group in sorted(groups, key=lambda group: (-len(group.context), group.places[0])):
        if batch and sum(len(one.choices) for one in batch) + len(group.choices) > rows:
            yield batch
            batch = []
        batch.append(group)
    if batch:
        yield batch


@torch.no_grad()
def _score(lm: Any, groups: Sequence[Group], pad: int, device: Any) -> dict[int, Answer]:
    ids, mask = _padded([group.context for group in groups], pad, left=True, device=device)
    positions = (mask.cumsum(1) - 1).clamp_min(0)
    cache = DynamicCache(config=lm.config)
    decoder = lm_head.decoder(lm)
    kept = {lm_head.cache_name(lm): cache, "use_cache": True}
    out = decoder(input_ids=ids, attention_mask=mask, position_ids=positions, **kept)
    choices = [choice for group in groups for choice in group.choices]
    owner = torch.tensor([row for row, group in enumerate(groups) for _ in group.choices], device=device)
    states = [out.last_hidden_state[owner, -1:]]
    # The prediction after a choice's last token is not needed.
    inner, inner_mask = _padded([choice[:-1] for choice in choices], pad, left=False, device=device)
    if inner.shape[1]:
        cache.batch_select_indices(owner)
        length = torch.tensor([len(group.context) for group in groups], device=device)[owner]
        states.append(
            decoder(
                input_ids=inner,
                attention_mask=torch.cat([mask[owner], inner_mask], 1),
                position_ids=length[:, None] + torch.arange(inner.shape[1], device=device),
                **kept,
            ).last_hidden_state
        )
    targets, real = _padded(choices, pad, left=False, device=device)
    found = _answers(lm, torch.cat(states, 1)[real.bool()], targets[real.bool()])
    places = [place for group in groups for place in group.places]
    rows = real.nonzero()[:, 0]
    total = torch.zeros(len(choices), dtype=torch.float64, device=device).index_add_(
        0, rows, found[0].double()
    )
    missed = torch.zeros(len(choices), device=device).index_add_(0, rows, (~found[1]).float())
    return {
        place: (value, not wrong)
        for place, value, wrong in zip(places, total.tolist(), missed.tolist(), strict=True)
    }


def _padded(rows: Sequence[Sequence[int]], pad: int, *, left: bool, device: Any) -> tuple[Tensor, Tensor]:
    """Ids and mask [rows, longest]."""
    width = max(map(len, rows))
    fill = [[pad] * (width - len(row)) for row in rows]
    marks = [[0] * len(part) for part in fill]
    ids = [[*part, *row] if left else [*row, *part] for row, part in zip(rows, fill, strict=True)]
    mask = [
        [*part, *[1] * len(row)] if left else [*[1] * len(row), *part]
        for row, part in zip(rows, marks, strict=True)
    ]
    return torch.tensor(ids, device=device).long(), torch.tensor(mask, device=device).long()


def _answers(lm: Any, states: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probability of each target, and whether it is the most likely token."""
    values, greedy = [], []
    each = max(1, _LOGITS // lm_head.text_config(lm.config).vocab_size)
    for start in range(0, len(states), each):
        logits = lm_head.logits(lm, states[start : start + each]).float()
        wanted = targets[start : start + each, None]
        values.append(logits.gather(1, wanted)[:, 0] - logits.logsumexp(-1))
        greedy.append(logits.argmax(-1) == wanted[:, 0])
    return torch.cat(values), torch.cat(greedy)
