"""Retention: router inputs or latents of an extension's data are kept, and losses on them keep later experts from
acting on them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from moextend.data.conversations import Conversation
from moextend.errors import InputError
from moextend.extension import latents, router_memory
from moextend.extension.latents import Latents
from moextend.extension.probe import watch_experts
from moextend.extension.router_memory import Memory, RouterInputs
from moextend.model.multimodal import MultimodalLM
from moextend.moe.families import chooses_by_logits, features
from moextend.moe.recipe import Recipe, fixed_layers
from moextend.moe.router_parts import RouterPart
from moextend.moe.routing import Scope, add_gated, hard_gate, only
from moextend.moe.sites import Site, find_sites
from moextend.training.prepare import asks_to_shard

if TYPE_CHECKING:
    from moextend.training.trainer import ExtraLoss

FEWEST = 30
"""Held-out conversations below which a warning is logged: of n that are drawn, none may show 3 / n of the inputs (with
95% confidence), a tenth with 30."""
log = logging.getLogger(__name__)
SMALLEST = 0.01
"""Smallest size of an output that a change is compared with, as a share of the mean size in its block."""


@dataclass(frozen=True)
class SampledLoss:
    """An extra loss with random samples; its state is saved, so that an interrupted training resumes exactly."""

    compute: ExtraLoss
    generator: torch.Generator

    def __call__(self, batch: Mapping[str, Tensor], out: Mapping[str, Tensor]) -> Tensor:
        """Loss for a batch and the model output."""
        return self.compute(batch, out)

    def state_dict(self) -> dict[str, Tensor]:
        """The generator's state."""
        return {"generator": self.generator.get_state()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restores the generator's state."""
        self.generator.set_state(state["generator"])


def sites_of(model: MultimodalLM, name: str) -> list[Site]:
    """MoE blocks with new experts of extension `name`."""
    return [site for site in find_sites(model.lm) if name in getattr(site.router, "ext_parts", {})]


def sampled_loss(
    model: MultimodalLM, name: str, memory: RouterInputs, term: Callable[[Site, Tensor], Tensor], *, weight: float,
    sample: int, seed: int,
) -> SampledLoss:  # fmt: skip
    """``weight`` times the mean of a term over the MoE blocks with new experts of extension `name`.

    Args:
        term: (block, places [S] of kept inputs in its memory) -> a mean over them. Every step draws `sample` places, or
            as many as there are.
    """
    sites, device = sites_of(model, name), model.device
    generator = torch.Generator().manual_seed(seed)

    def loss(batch: Mapping[str, Tensor], out: Mapping[str, Tensor]) -> Tensor:
        total = torch.zeros((), device=device)
        for site in sites:
            count = len(memory[site.layer])
            own = term(site, torch.randint(count, (min(sample, count),), generator=generator).to(device))
            total = total.to(own.device) + own
        return weight * total / len(sites)

    return SampledLoss(loss, generator)


def retention_loss(
    model: MultimodalLM, name: str, memory: RouterInputs, *, margin: float, weight: float, sample: int, seed: int
) -> SampledLoss:  # fmt: skip
    """Loss that keeps the new experts of extension `name` from acting on the router inputs in `memory`.

    For inputs x of a block it is ``weight * mean(relu(r x + b - threshold + margin))``. The threshold is the value that
    the logit of a new expert must exceed for the expert to be used: 0 in `exact` routing; in `slot` routing 0 where the
    base chooses the parent, else infinity. Every step samples `sample` inputs per block.

    Raises:
        InputError: `paper` routing.
    """
    sites, device = sites_of(model, name), model.device
    _check_mode(sites, "memory", "exact", "slot")
    kept = {site.layer: memory[site.layer].to(device) for site in sites}
    thresholds = {site.layer: _thresholds(site, name, kept[site.layer]) for site in sites}

    def excess(site: Site, rows: Tensor) -> Tensor:
        part = cast(RouterPart, cast(Any, site.router).ext_parts[name])
        home = part.rows.device  # training may have moved the model
        seen = features(site.router, kept[site.layer][rows]).to(home)
        logits: Tensor = part(seen)
        return (logits - thresholds[site.layer][rows].to(home) + margin).clamp_min(0).mean()

    return sampled_loss(model, name, memory, excess, weight=weight, sample=sample, seed=seed)


@torch.no_grad()
def _thresholds(site: Site, name: str, x: Tensor) -> Tensor:
    """Value that a new logit must exceed to be used: [tokens, 1], or [tokens, n] with a column per new expert."""
    scope = cast(Scope, site.router.ext_scope)
    if scope.mode == "exact" or not chooses_by_logits(site.router):
        return torch.zeros(len(x), 1, device=x.device)
    parents = cast(RouterPart, cast(Any, site.router).ext_parts[name]).parents
    with only(scope, ()):
        index = cast(Any, site.router)(x)[2]
    chosen = (index.unsqueeze(-1) == torch.tensor(parents, device=index.device)).any(1)
    return torch.zeros_like(chosen, dtype=x.dtype).masked_fill(~chosen, torch.inf)


def output_loss(
    model: MultimodalLM, name: str, memory: Memory, *, weight: float, sample: int, seed: int
) -> SampledLoss:
    """Loss on what the new experts of extension `name` add to the output of their block at the inputs in `memory`.

    For router inputs x it is ``weight * mean(|g(x) E(x)|^2 / |y(x)|^2)``: g are the gates of the new experts E, and y
    is the output of the block's experts when the memory was kept. The gates may stay open, as the new experts can tell
    earlier inputs apart themselves. Every step samples `sample` inputs per block. `exact` routing only.

    Raises:
        InputError: another routing mode.
    """
    sites, device = sites_of(model, name), model.device
    _check_mode(sites, "output", "exact")
    kept = {
        site.layer: (
            memory.router_inputs[site.layer].to(device),
            memory.expert_inputs.get(site.layer, memory.router_inputs[site.layer]).to(device),
            _sizes(memory.sizes[site.layer]).to(device),
        )
        for site in sites
    }

    def change(site: Site, rows: Tensor) -> Tensor:
        x, read, sizes = kept[site.layer]
        added = _added(site, name, x[rows], read[rows]).float().square().sum(-1)
        return (added / sizes[rows].to(added.device)).mean()

    return sampled_loss(model, name, memory.router_inputs, change, weight=weight, sample=sample, seed=seed)


def latent_loss(
    model: MultimodalLM, name: str, kept: Latents, *, weight: float, sample: int, seed: int
) -> SampledLoss:
    """Loss on what the new experts of extension `name` add to the outputs of their blocks in passes of kept inputs.

    It is ``weight * sum_l mean(|g(x_l) E_l(x_l)|^2 / |y_l(x_l)|^2)`` over the blocks l with new experts E_l, gates g:
    x_l are the router inputs of a pass with the new experts, and y_l is what the block's other experts put out there.
    So new experts of lower layers cannot change what those of higher layers read, as they can in `output_loss`. Every
    step samples inputs of about `sample` tokens, at least one, or takes all. `exact` routing only.

    Raises:
        InputError: another routing mode.
    """
    sites = sites_of(model, name)
    _check_mode(sites, "latent", "exact")
    generator = torch.Generator().manual_seed(seed)
    rows = max(1, round(sample * len(kept.states) / sum(map(len, kept.states))))

    def loss(batch: Mapping[str, Tensor], out: Mapping[str, Tensor]) -> Tensor:
        count = len(kept.states)
        drawn = torch.randint(count, (rows,), generator=generator) if rows < count else torch.arange(count)
        states, mask = latents.padded([kept.states[i] for i in drawn.tolist()])
        with _watched(sites) as seen:
            latents.through(model, states, mask, kept.layer)
        total = torch.zeros((), device=model.device)
        for site in sites:
            x, read, y = seen[site.layer]
            real = mask.flatten().to(x.device) > 0
            added = _added(site, name, x[real], read[real]).float()
            before = (y[real].to(added.device).float() - added).detach().square().sum(-1)
            own = (added.square().sum(-1) / _sizes(before)).mean()
            total = total.to(own.device) + own
        return weight * total

    return SampledLoss(loss, generator)


@contextmanager
def _watched(sites: Sequence[Site]) -> Iterator[dict[int, list[Tensor]]]:
    """Context that yields, after a forward pass, for each MoE block: [tokens, ...] inputs of its router, inputs of its
    experts, and what its experts put out."""
    seen: dict[int, list[Tensor]] = {site.layer: [] for site in sites}
    with ExitStack() as stack:
        for site in sites:
            for handle in _watch(site, seen[site.layer]):
                stack.callback(handle.remove)
        yield seen


def _watch(site: Site, seen: list[Tensor]) -> list[RemovableHandle]:
    def note(*tensors: Tensor) -> None:
        seen.extend(tensor.flatten(0, -2) for tensor in tensors)

    return [site.router.register_forward_hook(lambda _, args, __: note(args[0])), watch_experts(site, note)]


def _check_mode(sites: Sequence[Site], retention: str, *modes: str) -> None:
    """Raises InputError unless new experts are routed in one of these modes."""
    if any(cast(Scope, site.router.ext_scope).mode not in modes for site in sites):
        raise InputError(f"retention '{retention}' needs routing '{modes[0]}'.", hint="Use retention 'none'.")


def _sizes(sizes: Tensor) -> Tensor:
    """Sizes [tokens] of outputs, where tokens without an output have a share of the mean."""
    return sizes.clamp_min(SMALLEST * float(sizes.mean()))


def _added(site: Site, name: str, x: Tensor, read: Tensor) -> Tensor:
    """What the new experts add [S, H] for router inputs x [S, H] and their own inputs `read` [S, width]."""
    part = cast(RouterPart, cast(Any, site.router).ext_parts[name])
    group = cast(Any, site.experts).ext_groups[name]
    home = part.rows.device  # training may have moved the model
    gates = hard_gate(part(features(site.router, x).to(home)))
    read = read.to(home)
    return add_gated(torch.zeros_like(read), [group], read, gates.to(read.dtype))


@dataclass(frozen=True)
class Retention:
    """What extensions by a recipe keep of their data for later ones: router inputs or latents."""

    model: MultimodalLM
    recipe: Recipe
    seed: int = 0
    batch_size: int = 64
    """Conversations in a forward pass."""

    @property
    def _module(self) -> Any:
        """The module of what is kept; both have FILE, read, write and join."""
        return latents if self.recipe.retention == "latent" else router_memory

    @property
    def file(self) -> str:
        """Name of the file in the folder of an extension."""
        return cast(str, self._module.FILE)

    @property
    def _layers(self) -> Collection[int]:
        """MoE blocks that can have new experts."""
        total = len(find_sites(self.model.lm))
        return fixed_layers(self.recipe.layers, self.recipe.share, total) or range(total)

    @property
    def _start(self) -> int:
        """Decoder layer whose inputs are kept as latents: that of the lowest MoE block that can have new experts."""
        return latents.layer_of(self.model, min(self._layers))

    def check(self, earlier: Sequence[Path]) -> None:
        """Raises InputError if what is kept in one of the folders lacks what an extension by this recipe needs."""
        if earlier and self._module is latents:
            latents.check(earlier, self._start, self.model.width)
        elif earlier:
            router_memory.check(earlier, self._layers)

    def check_model(self, data: Sequence[Conversation]) -> None:
        """Raises InputError if the recipe keeps latents and the model cannot compute from them.

        Logs a warning if `data`, of which something is kept, are few.
        """
        if not self.recipe.keeps_memory:
            return
        if len(data) < FEWEST:
            log.warning(
                "Retention '%s' keeps inputs of %d held-out conversations only: later extensions may change what this "
                "one does for other inputs. %d are a tenth of %d conversations; held_out=... names them.",
                self.recipe.retention, len(data), FEWEST, 10 * FEWEST,
            )  # fmt: skip
        if self._module is latents:
            if asks_to_shard():
                raise InputError(
                    "cannot be used with a sharded model (FSDP): its loss needs full forward passes.",
                    where="retention 'latent'",
                    hint="Use retention 'output', or train without FSDP.",
                )
            latents.check_model(self.model, data, self._start)

    def keep(self, name: str, folder: Path, data: Sequence[Conversation]) -> None:
        """Writes what is kept of `data` of extension `name`, if the recipe keeps anything."""
        if self.recipe.keeps_memory:
            same = self.recipe.same_layers
            layers = [site.layer for site in sites_of(self.model, name)] if same else None
            self._module.write(self._collect(data, layers), folder)

    def gather(
        self, layers: Collection[int], earlier: Sequence[Path], generic: Sequence[Conversation]
    ) -> Memory | Latents:
        """What is kept of the generic text and of all earlier extensions, for new experts in the MoE blocks `layers`.

        Empty if the recipe keeps nothing.
        """
        if not self.recipe.keeps_memory:
            return Memory()
        first = [self._collect(generic, layers)] if generic else []
        return cast(
            Memory | Latents, self._module.join(first + [self._module.read(each) for each in earlier])
        )

    def _collect(self, data: Sequence[Conversation], layers: Collection[int] | None) -> Memory | Latents:
        """What is kept of `data`; `layers`: MoE blocks whose router inputs are kept, None: all."""
        how: Any = {"layer": self._start} if self._module is latents else {"layers": layers}
        found: Memory | Latents = self._module.collect(
            self.model, data, self.recipe.memory_tokens, self.seed, batch_size=self.batch_size, **how
        )
        return found

    def loss(self, name: str, kept: Memory | Latents) -> dict[str, Any]:
        """Retention loss on what is kept, and its factors on learning rates; empty if nothing is kept."""
        recipe, how = self.recipe, dict[str, Any]()
        how |= {"weight": recipe.memory_weight, "sample": recipe.memory_sample, "seed": self.seed}
        if not kept:
            return {}
        if isinstance(kept, Latents):
            loss = latent_loss(self.model, name, kept, **how)
        elif recipe.retention == "output":
            loss = output_loss(self.model, name, kept, **how)
        else:
            loss = retention_loss(self.model, name, kept.router_inputs, margin=recipe.margin, **how)
        return {"rates": {".rows": recipe.gate_rate, ".bias": recipe.gate_rate}, "extra_loss": loss}
