"""What is kept of an extension's data for the retention of later ones: router inputs or latents, by its recipe."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, cast

from moextend.data.conversations import Conversation
from moextend.errors import InputError
from moextend.extension import latents, router_memory
from moextend.extension.latents import Latents
from moextend.extension.retention import latent_loss, output_loss, retention_loss, sites_of
from moextend.extension.router_memory import Memory
from moextend.model.multimodal import MultimodalLM
from moextend.moe.recipe import Recipe, fixed_layers
from moextend.moe.sites import find_sites
from moextend.training.prepare import asks_to_shard

FEWEST = 30
"""Held-out conversations below which a warning is logged: of n that are drawn, none may show 3 / n of the inputs (with
95% confidence), a tenth with 30."""
log = logging.getLogger(__name__)


def file_of(recipe: Recipe) -> str:
    """Name of the file in the folder of an extension."""
    return cast(str, _module(recipe).FILE)


def check(model: MultimodalLM, recipe: Recipe, earlier: Sequence[Path]) -> None:
    """Raises InputError if what is kept in one of the folders lacks what an extension by this recipe needs."""
    if not earlier:
        return
    if recipe.retention == "latent":
        latents.check(earlier, _start(model, recipe), model.width)
    else:
        router_memory.check(earlier, _layers(model, recipe), sizes=recipe.retention == "output")


def check_model(model: MultimodalLM, recipe: Recipe, data: Sequence[Conversation]) -> None:
    """Raises InputError if the recipe keeps latents and the model cannot compute from them.

    Logs a warning if `data`, of which something is kept, are few.
    """
    if recipe.keeps_memory and len(data) < FEWEST:
        log.warning(
            "Retention '%s' keeps inputs of %d held-out conversations only: later extensions may change what this one "
            "does for other inputs. %d are a tenth of %d conversations; held_out=... names them.",
            recipe.retention, len(data), FEWEST, 10 * FEWEST,
        )  # fmt: skip
    if recipe.keeps_memory and recipe.retention == "latent":
        if asks_to_shard():
            raise InputError(
                "cannot be used with a sharded model (FSDP): its loss needs full forward passes.",
                where="retention 'latent'",
                hint="Use retention 'output', or train without FSDP.",
            )
        latents.check_model(model, data, _start(model, recipe))


def keep(
    model: MultimodalLM,
    name: str,
    recipe: Recipe,
    folder: Path,
    data: Sequence[Conversation],
    seed: int,
    batch_size: int,
) -> None:
    """Writes what is kept of `data`, if the recipe keeps anything; `batch_size`: of forward passes."""
    if not recipe.keeps_memory:
        return
    layers = [site.layer for site in sites_of(model, name)] if recipe.same_layers else None
    _module(recipe).write(_collect(model, recipe, data, layers, seed, batch_size), folder)


def gather(
    model: MultimodalLM,
    recipe: Recipe,
    layers: Collection[int],
    earlier: Sequence[Path],
    generic: Sequence[Conversation],
    seed: int,
    batch_size: int,
) -> Memory | Latents:
    """What is kept of the generic text and of all earlier extensions, for new experts in the MoE blocks `layers`.

    Empty if the recipe keeps nothing.
    """
    if not recipe.keeps_memory:
        return Memory()
    module = _module(recipe)
    found = [module.read(folder) for folder in earlier]
    if generic:
        found.insert(0, _collect(model, recipe, generic, layers, seed, batch_size))
    return cast(Memory | Latents, module.join(found))


def retention(
    model: MultimodalLM, name: str, recipe: Recipe, kept: Memory | Latents, seed: int
) -> dict[str, Any]:
    """Retention loss on what is kept, and its factors on learning rates; empty if nothing is kept."""
    if not kept:
        return {}
    how: dict[str, Any] = {"weight": recipe.memory_weight, "sample": recipe.memory_sample, "seed": seed}
    if isinstance(kept, Latents):
        loss = latent_loss(model, name, kept, **how)
    elif recipe.retention == "output":
        loss = output_loss(model, name, kept, **how)
    else:
        loss = retention_loss(model, name, kept.router_inputs, margin=recipe.margin, **how)
    return {"rates": {".rows": recipe.gate_rate, ".bias": recipe.gate_rate}, "extra_loss": loss}


def _module(recipe: Recipe) -> Any:
    """The module of what is kept; both have FILE, read, write and join."""
    return latents if recipe.retention == "latent" else router_memory


def _collect(
    model: MultimodalLM,
    recipe: Recipe,
    data: Sequence[Conversation],
    layers: Collection[int] | None,
    seed: int,
    batch_size: int,
) -> Memory | Latents:
    """What is kept of `data`; `layers`: MoE blocks whose router inputs are kept, None: all."""
    count = recipe.memory_tokens
    if recipe.retention == "latent":
        start = _start(model, recipe)
        return latents.collect(model, data, count, seed, layer=start, batch_size=batch_size)
    return router_memory.collect(model, data, count, seed, batch_size=batch_size, layers=layers)


def _layers(model: MultimodalLM, recipe: Recipe) -> Collection[int]:
    """MoE blocks that can have new experts."""
    total = len(find_sites(model.lm))
    return fixed_layers(recipe.layers, recipe.share, total) or range(total)


def _start(model: MultimodalLM, recipe: Recipe) -> int:
    """Decoder layer whose inputs are kept as latents: that of the lowest MoE block that can have new experts."""
    return latents.layer_of(model, min(_layers(model, recipe)))
