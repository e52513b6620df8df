"""Whole inputs are kept as latents: the penalty is computed with what new experts below a block change."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from moextend.extension.retention import SMALLEST, SampledLoss, _added, sites_of
from moextend.model.batches import Collator, on_device
from moextend.model.lm_head import decoder
from moextend.moe.sites import find_sites
from moextend.training.checkpoint import read_tensors, write_tensors

from ._base import OpenProblem

FILE = "latents.safetensors"


@dataclass(frozen=True)
class Latents:
    """Inputs as the residual stream before the lowest MoE block."""

    stream: torch.Tensor
    """[inputs, T, H], padded on the right."""
    mask: torch.Tensor
    """[inputs, T]: 1 at tokens, 0 at padding."""

    def __bool__(self) -> bool:
        """Whether there are any."""
        return len(self.stream) > 0

    @classmethod
    def joined(cls, every: Sequence["Latents"]) -> "Latents":
        """All of them, padded to one length."""
        longest = max((each.mask.shape[1] for each in every), default=0)
        room = [longest - each.mask.shape[1] for each in every]
        return cls(
            torch.cat([torch.empty(0), *(F.pad(e.stream, (0, 0, 0, r)) for e, r in zip(every, room, strict=True))]),
            torch.cat([torch.empty(0), *(F.pad(e.mask, (0, r)) for e, r in zip(every, room, strict=True))]),
        )  # fmt: skip


class LatentMemory(OpenProblem):
    """Retention of the outputs of all blocks in passes of kept inputs, which start behind the lowest attention.

    Latent replay (Pellegrini et al., 2020, arXiv 1912.01100) with the penalty of `output-penalty` for targets.
    """

    def memory(self, model: Any, stage: Any) -> Any:
        """Latents of generic text and of all earlier stages."""
        generic = [self.collected(model, stage, stage.generic)] if stage.generic else []
        return Latents.joined([*generic, *(self.read(folder) for _, folder in stage.earlier)])

    def collected(self, model: Any, stage: Any, data: Any, **unused: Any) -> Any:
        """Latents of `data`, at most `memory_tokens` tokens."""
        return collect(model, data, self.config.memory_tokens, stage.seed, stage.batch_size)

    def write(self, kept: Any, folder: Any) -> None:
        """Writes the latents of a stage."""
        write_tensors(folder / FILE, {"stream": kept.stream, "mask": kept.mask})

    def read(self, folder: Any) -> Any:
        """Latents of an earlier stage."""
        return Latents(**read_tensors(folder / FILE))

    def retention(self, model: Any, stage: Any, kept: Any) -> Any:
        """``weight * mean(|g(x) E(x)|^2 / |y(x)|^2)`` over blocks and tokens, for x of passes with the new experts."""
        config = self.config
        return penalty(
            model, stage.task, kept, weight=config.memory_weight, sample=config.memory_sample, seed=stage.seed
        )


def lowest(model: Any) -> Any:
    """The decoder layer of the lowest MoE block."""
    return model.lm.get_submodule(find_sites(model.lm)[0].name.rpartition(".")[0])


@torch.no_grad()
def collect(model: Any, data: Any, tokens: int, seed: int, batch_size: int) -> Latents:
    """Latents of inputs drawn at random from `data`, until they have `tokens` tokens."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(data), generator=generator).tolist()
    seen: list[torch.Tensor] = []
    hook = lowest(model).post_attention_layernorm.register_forward_pre_hook(
        lambda module, args: seen.append(args[0].cpu())
    )
    pieces, count = [], 0
    try:
        for start in range(0, len(order), batch_size):
            batch = Collator.of(model)([data[i] for i in order[start : start + batch_size]])
            mask = batch["attention_mask"].float()
            inside = mask.sum(1).cumsum(0) + count <= tokens
            batch.pop("labels")
            model.hidden(**on_device(batch, model.device))
            pieces.append(Latents(seen.pop()[inside], mask[inside]))
            count += int(mask[inside].sum())
            if not inside.all():
                break
    finally:
        hook.remove()
    return Latents.joined(pieces)


@contextmanager
def behind_attention(model: Any) -> Iterator[None]:
    """Context in which the lowest layer takes its inputs for what is behind its attention."""
    hook = lowest(model).self_attn.register_forward_hook(
        lambda module, args, out: (torch.zeros_like(out[0]), *out[1:])
    )
    try:
        yield
    finally:
        hook.remove()


def penalty(model: Any, name: str, kept: Latents, *, weight: float, sample: int, seed: int) -> SampledLoss:
    """The loss; every step draws inputs of about `sample` tokens."""
    sites, device = sites_of(model, name), model.device
    generator = torch.Generator().manual_seed(seed)
    stream, mask = kept.stream.to(device), kept.mask.to(device)
    rows = max(1, round(sample / float(mask.sum(1).mean())))

    def loss(batch: Any, out: Any) -> torch.Tensor:
        drawn = torch.randint(len(stream), (min(rows, len(stream)),), generator=generator).to(device)
        seen: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        hooks = [
            site.experts.register_forward_hook(
                lambda module, args, found, layer=site.layer: seen.update({layer: (args[0], found)})
            )
            for site in sites
        ]
        try:
            with behind_attention(model):
                decoder(model.lm)(inputs_embeds=stream[drawn], attention_mask=mask[drawn], use_cache=False)
        finally:
            for hook in hooks:
                hook.remove()
        real, total = mask[drawn].flatten() > 0, torch.zeros((), device=device)
        for site in sites:
            x, found = (each.flatten(0, -2)[real] for each in seen[site.layer])
            added = _added(site, name, x, x)
            before = (found - added).detach().square().sum(-1)
            total = total + (added.square().sum(-1) / before.clamp_min(SMALLEST * before.mean())).mean()
        return weight * total / len(sites)

    return SampledLoss(loss, generator)
