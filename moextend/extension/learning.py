"""Learns an extension: probe, expand, tune, keep (MoExtend, arXiv 2408.03511, section 3).

`moextend.extend` and the benchmark's method of that name call `learn` and `keep`, each with its own training loop.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from moextend.data.conversations import Conversation
from moextend.errors import InputError, SpecError
from moextend.extension import router_memory, store
from moextend.extension.origin import Made
from moextend.extension.probe import Probe, choose_layers, parents, probe_layers, selection_shares
from moextend.model.multimodal import MultimodalLM
from moextend.moe import attach
from moextend.moe.extensible import check_extensible
from moextend.moe.recipe import Recipe
from moextend.training import resuming
from moextend.training.loop import Report
from moextend.training.trainer import ExtraLoss
from moextend.util import files
from moextend.util.processes import first_writes


class Loop(Protocol):
    """A training loop, bound to data and settings."""

    def __call__(
        self,
        *,
        learning_rate: float | None = None,
        extra_loss: ExtraLoss | None = None,
        rates: Mapping[str, float] | None = None,
        steps: int | None = None,
        phase: str = "train",
    ) -> Report:
        """Trains what requires gradients; None takes the loop's own setting. `phase`: probe or train."""
        ...


@dataclass(frozen=True)
class Learned:
    """How an extension came about."""

    report: Report
    plan: dict[int, list[int]]
    """MoE block -> the base experts that the new ones were copied from."""
    probe: Probe


def learn(
    model: MultimodalLM,
    name: str,
    recipe: Recipe,
    loop: Loop,
    *,
    held_out: Sequence[Conversation],
    seed: int,
    learning_rate: float | None = None,
    coactive: Sequence[str] = (),
    earlier: Sequence[Path] = (),
    generic: Sequence[Conversation] = (),
    batch_size: int = 64,
    folder: Path | None = None,
) -> Learned:
    """Probes which layers change most, adds experts there, and trains these alone; everything is frozen afterwards.

    Args:
        loop: trains the probe's routers and then the new experts.
        held_out: S_e of the paper: chooses layers and parents; the loop must not learn it.
        learning_rate: of the training; None leaves it to the loop.
        coactive: extensions that are active meanwhile.
        earlier, generic: folders with a router-input memory, and generic text for it, if the recipe keeps one.
        batch_size: conversations a forward pass, where the model is only looked at.
        folder: keeps what the probe saw, so that an interrupted call does not probe again; `forget_probe` removes it.

    Raises:
        InputError: the recipe does not fit the model. As after any interruption, the model is as it was.
    """
    active = attach.scope_of(model.lm).active
    known = name in attach.scope_of(model.lm).known
    check_extensible(model.lm)
    try:
        attach.activate(model.lm, coactive)
        probe = _kept_probe(folder) or probed(model, recipe, held_out, loop, batch_size)
        if folder is not None:
            _keep_probe(probe, folder)
        plan = plan_of(probe, recipe, seed)
        kept = _memory(model, recipe, earlier, generic, seed, batch_size)
        attach.attach(
            model.lm,
            name,
            plan,
            mode=recipe.routing,
            calibrate=recipe.calibration,
            width=recipe.width,
            seed=seed,
        )
        model.learn_only([f"lm.{key}" for key in attach.new_parameters(model.lm, name)])
        report = loop(learning_rate=learning_rate, **_retention(model, name, recipe, kept, seed))
    except BaseException:
        if not known and name in attach.scope_of(model.lm).known:
            attach.detach(model.lm, name)
        attach.activate(model.lm, active)
        raise
    finally:
        model.learn_only([])
    return Learned(report, plan, probe)


def keep(
    model: MultimodalLM,
    name: str,
    recipe: Recipe,
    folder: Path,
    *,
    held_out: Sequence[Conversation],
    seed: int,
    batch_size: int = 64,
    made: Made | None = None,
) -> None:
    """Writes the expert set, after the router-input memory for later ones; `batch_size`: of looking at the model."""
    if recipe.keeps_router_inputs:
        kept = router_memory.collect(model, held_out, recipe.memory_tokens, seed, batch_size=batch_size)
        router_memory.write(kept, folder)
    store.save_extension(model, name, folder=folder, made=made)


def forget_probe(folder: Path) -> None:
    """Removes what `learn` keeps of its probe, once the extension is kept."""
    (folder / resuming.PROBE).unlink(missing_ok=True)


def _kept_probe(folder: Path | None) -> Probe | None:
    """What the probe of an interrupted call saw; None where it was not over."""
    if folder is None:
        return None
    try:
        known = files.read_json(folder / resuming.PROBE)
        return Probe(known["before"], known["change"])
    except (FileNotFoundError, SpecError, KeyError, TypeError):
        return None


def _keep_probe(probe: Probe, folder: Path) -> None:
    with first_writes() as first:
        if first:
            files.write_json(folder / resuming.PROBE, {"before": probe.before, "change": probe.change})


def probed(
    model: MultimodalLM, recipe: Recipe, held_out: Sequence[Conversation], loop: Loop, batch_size: int
) -> Probe:
    """What layers and parents are chosen by."""
    if recipe.layers != "probe":
        return Probe(selection_shares(model, held_out, batch_size=batch_size), [])
    tune = partial(loop, steps=recipe.probe_steps, phase="probe")
    return probe_layers(model, held_out, tune, batch_size=batch_size)


def plan_of(probe: Probe, recipe: Recipe, seed: int) -> dict[int, list[int]]:
    """MoE block -> parents of its new experts."""
    total = len(probe.before)
    if isinstance(recipe.layers, str):
        layers = choose_layers(recipe.layers, recipe.share, probe, seed)
    else:
        layers = sorted(recipe.layers)
    check_layers(layers, total)
    if recipe.parent == "random":
        drawn = random.Random(seed)
        return {layer: drawn.sample(range(len(probe.before[layer])), recipe.experts) for layer in layers}
    return parents(probe, layers, recipe.experts)


def _memory(
    model: MultimodalLM,
    recipe: Recipe,
    earlier: Sequence[Path],
    generic: Sequence[Conversation],
    seed: int,
    batch_size: int,
) -> router_memory.RouterInputs:
    """Router inputs of the generic text and of all earlier extensions; empty if the recipe keeps none."""
    if not recipe.keeps_router_inputs:
        return {}
    memories = [router_memory.read(folder) for folder in earlier]
    if generic:
        known = router_memory.collect(model, generic, recipe.memory_tokens, seed, batch_size=batch_size)
        memories.insert(0, known)
    return router_memory.join(memories)


def _retention(
    model: MultimodalLM, name: str, recipe: Recipe, kept: router_memory.RouterInputs, seed: int
) -> dict[str, Any]:
    """The retention loss on the router inputs `kept`, with the learning rates that it needs; nothing without them."""
    if not kept:
        return {}
    loss = router_memory.retention_loss(
        model,
        name,
        kept,
        margin=recipe.margin,
        weight=recipe.memory_weight,
        sample=recipe.memory_sample,
        seed=seed,
    )
    return {"rates": {".rows": recipe.gate_rate, ".bias": recipe.gate_rate}, "extra_loss": loss}


def check_layers(layers: Sequence[int], total: int) -> None:
    """InputError where a model of `total` MoE layers does not have these, each once."""
    if not layers or len(set(layers)) < len(layers) or not all(0 <= layer < total for layer in layers):
        raise InputError(
            f"the model has MoE layers 0 to {total - 1}.",
            where=f"layers {list(layers)}",
            hint="Name some of them, each once.",
        )
