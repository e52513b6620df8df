"""Makes the equal experts of an upcycled model different, by a short continued training on text.

Equal experts become different only as far as they get different tokens. "Drop-Upcycling" (arXiv 2502.19261) first
re-initialises a share of each expert's intermediate neurons, which increases the loss and makes the experts differ.
Router and experts are then trained with a balance loss ("Switch Transformers", arXiv 2101.03961, equations 4 to 6).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from moextend.data.conversations import Conversation
from moextend.errors import InputError
from moextend.extension.effect import text_likelihood
from moextend.model.multimodal import MultimodalLM
from moextend.moe.sites import Site, count_experts, find_sites
from moextend.training.loop import train
from moextend.training.settings import Settings
from moextend.training.trainer import ExtraLoss

EVERY = 10
"""One of this many pieces of text is held out."""


@dataclass(frozen=True)
class Specialised:
    """Result of `specialise`."""

    before: float
    """Mean cross-entropy per token of held-out text, in nats."""
    after: float
    steps: int
    trained_parameters: int


def specialise(
    model: MultimodalLM,
    texts: Sequence[str],
    steps: int,
    *,
    folder: Path,
    share: float = 0.5,
    balance: float = 0.01,
    learning_rate: float = 1e-4,
    batch_size: int = 8,
    length: int = 128,
    seed: int = 0,
    on_step: Callable[[int, int], None] | None = None,
) -> Specialised:
    """Trains routers and experts of `model` on `texts`, in place; everything else is frozen.

    The result is another base with another fingerprint: earlier extensions do not fit it.

    Args:
        folder: holds the trainer's state during the training; see `train`.
        share: share of each expert's intermediate neurons to re-initialise, from a normal distribution with mean and
            standard deviation of the replaced weights; 0: none.
        balance: weight of the balance loss, which is a mean over blocks.
        length: tokens per piece of text.

    Raises:
        InputError: the share is not from 0 to 1, or there is too little text.
    """
    if not 0 <= share <= 1:
        raise InputError(f"share {share} is not from 0 to 1.", where="specialise", hint="Take 0.5.")
    settings = Settings(steps=steps, batch_size=batch_size, learning_rate=learning_rate, seed=seed)
    pieces = cut(model.tokenizer, texts, length)
    held_out = pieces[::EVERY]
    learned = [piece for place, piece in enumerate(pieces) if place % EVERY]
    if not learned:
        raise InputError(
            f"{len(pieces)} pieces of {length} tokens are not enough text.", where="specialise",
            hint="Give more text, or a smaller length.",
        )  # fmt: skip
    before = -text_likelihood(model, held_out, batch_size)
    redraw(model, share, seed)
    model.learn_only(_names(model))
    with _balance_loss(find_sites(model.lm), balance) as extra_loss:
        report = train(model, learned, settings, folder=folder, extra_loss=extra_loss, on_step=on_step)
    model.learn_only([])
    model.rename_base()
    after = -text_likelihood(model, held_out, batch_size)
    return Specialised(before, after, report.steps, report.trained_parameters)


def cut(tokenizer: Any, texts: Sequence[str], length: int) -> list[Conversation]:
    """Splits texts into pieces of up to `length` tokens, learned in full and without an end token."""
    pieces: list[Conversation] = []
    for text in texts:
        spans = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        for start in range(0, len(spans), length):
            piece = text[spans[start][0] : spans[min(start + length, len(spans)) - 1][1]].strip()
            if piece:
                pieces.append(Conversation((("", piece),), closed=False))
    return pieces


@torch.no_grad()
def redraw(model: MultimodalLM, share: float, seed: int) -> None:
    """Re-initialises `share` of the intermediate neurons of every expert: rows of gate and up, columns of down."""
    generator = torch.Generator().manual_seed(seed)
    for site in find_sites(model.lm):
        gate_up, down = cast(Tensor, site.experts.gate_up_proj), cast(Tensor, site.experts.down_proj)
        width = down.shape[-1]
        for expert in range(count_experts(site)):
            chosen = torch.randperm(width, generator=generator)[: round(share * width)].to(down.device)
            for place in (gate_up[expert, :width], gate_up[expert, width:], down[expert].T):
                if len(chosen):
                    old = place[chosen].float()
                    new = torch.randn(old.shape, generator=generator).to(old.device)
                    place[chosen] = (new * old.std() + old.mean()).to(place.dtype)


def _names(model: MultimodalLM) -> list[str]:
    """Names of the routers' and experts' parameters."""
    wanted = {id(p) for s in find_sites(model.lm) for m in (s.router, s.experts) for p in m.parameters()}
    return [name for name, parameter in model.named_parameters() if id(parameter) in wanted]


@contextmanager
def _balance_loss(sites: Sequence[Site], weight: float) -> Iterator[ExtraLoss]:
    """Extra loss of the training: `weight` times the balance loss, averaged over blocks."""
    from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

    logits: dict[int, Tensor] = {}

    def keep(layer: int) -> Callable[..., None]:
        return lambda _module, _args, out: logits.__setitem__(layer, out[0])

    def loss(batch: Mapping[str, Tensor], out: Mapping[str, Tensor]) -> Tensor:
        # One block at a time: together they would be balanced on average only.
        each: list[Any] = [  # the function's type has an int, too, for no logits
            load_balancing_loss_func(
                (logits[site.layer],), count_experts(site), site.router.top_k, batch["attention_mask"]
            )
            for site in sites
        ]
        return weight * torch.stack(each).mean()

    hooks = [site.router.register_forward_hook(keep(site.layer)) for site in sites]
    try:
        yield loss
    finally:
        for hook in hooks:
            hook.remove()
