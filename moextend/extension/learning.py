"""Steps of learning an extension: probe, expand, tune, save (MoExtend, arXiv 2408.03511, section 3).

`moextend.extend` and the benchmark's method `moextend` call `learn` and `keep` with their own training loops.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from moextend.data.conversations import Conversation
from moextend.errors import InputError
from moextend.extension import store
from moextend.extension.card import Made
from moextend.extension.probe import Probe, choose_layers, parents, probe_layers, selection_shares
from moextend.extension.retention import Retention
from moextend.model.multimodal import MultimodalLM
from moextend.moe import attach
from moextend.moe.recipe import Recipe
from moextend.moe.sites import find_sites
from moextend.moe.strengths import check_full
from moextend.moe.supported import check_extensible, check_mode
from moextend.training import resuming
from moextend.training.loop import Report
from moextend.training.trainer import ExtraLoss
from moextend.util import files
from moextend.util.processes import first_writes


class Loop(Protocol):
    """A training loop that is bound to data and settings."""

    def __call__(
        self,
        *,
        learning_rate: float | None = None,
        extra_loss: ExtraLoss | None = None,
        rates: Mapping[str, float] | None = None,
        steps: int | None = None,
        phase: str = "train",
    ) -> Report:
        """Trains the parameters that require gradients; None: the loop's own setting. `phase`: probe or train."""
        ...


@dataclass(frozen=True)
class Learned:
    """Layers, parents and losses of a new extension."""

    report: Report
    plan: dict[int, list[int]]
    """MoE block -> base experts that were copied."""
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
    """Probes which layers change most, adds experts there and trains only these; then freezes everything.

    Args:
        loop: trains the probe's routers and then the new experts.
        held_out: data for choosing layers and parents (S_e of the paper), which the loop must not train on.
        learning_rate: of the training; None: the loop's own.
        coactive: extensions that are active during the training.
        earlier, generic: folders of earlier extensions, and generic texts, if the recipe keeps a memory.
        batch_size: conversations per forward pass outside of the training.
        folder: for the results of the probe, which an interrupted call reads again; `keep` removes them.

    Raises:
        InputError: the recipe does not fit the model. The model is unchanged, as after any interruption.
    """
    activate_again = attach.activation(model.lm)
    known = name in attach.scope_of(model.lm).known
    check_extensible(model.lm)
    check_fits(model.lm, recipe)
    kept_by = Retention(model, recipe, seed, batch_size)
    kept_by.check(earlier)
    kept_by.check_model(held_out)
    try:
        attach.activate(model.lm, coactive)
        kept_probe = folder / resuming.PROBE if folder else None
        known_probe = Probe(**files.read_json(kept_probe)) if kept_probe and kept_probe.is_file() else None
        probe = known_probe or probed(model, recipe, held_out, loop, batch_size)
        with first_writes() as first:
            if first and kept_probe:
                files.write_json(kept_probe, vars(probe))
        plan = plan_of(probe, recipe, seed)
        kept = kept_by.gather(plan, earlier, generic)
        attach.attach(
            model.lm, name, plan, mode=recipe.routing, calibrate=recipe.calibration, width=recipe.width, seed=seed
        )  # fmt: skip
        model.learn_only([f"lm.{key}" for key in attach.new_parameters(model.lm, name)])
        report = loop(learning_rate=learning_rate, **kept_by.loss(name, kept))
    except BaseException:
        if not known and name in attach.scope_of(model.lm).known:
            attach.detach(model.lm, name)
        activate_again()
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
    """Writes what later extensions need for retention, then the extension; `batch_size`: of forward passes.

    The results of the probe are removed.
    """
    Retention(model, recipe, seed, batch_size).keep(name, folder, held_out)
    store.save_extension(model, name, folder=folder, made=made)
    files.remove(folder / resuming.PROBE)


def probed(
    model: MultimodalLM, recipe: Recipe, held_out: Sequence[Conversation], loop: Loop, batch_size: int
) -> Probe:
    """Measurements for choosing layers and parents."""
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
        return {layer: _drawn(drawn, len(probe.before[layer]), recipe.experts) for layer in layers}
    return parents(probe, layers, recipe.experts)


def _drawn(random_: random.Random, experts: int, wanted: int) -> list[int]:
    """So many of the experts of a layer; each once before one is drawn again."""
    found = list[int]()
    while len(found) < wanted:
        found += random_.sample(range(experts), min(experts, wanted - len(found)))
    return found


def coactive_of(model: MultimodalLM, recipe: Recipe) -> tuple[str, ...]:
    """Extensions that are active in the training; InputError if one has a strength below 1."""
    if recipe.scope != "all":
        return ()
    scope = attach.scope_of(model.lm)
    check_full(scope.strengths, scope.active)
    return scope.active


def check_fits(lm: Any, recipe: Recipe) -> None:
    """Raises InputError if the model lacks MoE layers that the recipe names, or cannot have its routing.

    Where a probe chooses the layers, the highest one decides: the lowest of some families route by token ids.
    """
    sites = find_sites(lm)
    if isinstance(recipe.layers, list):
        check_layers(recipe.layers, len(sites))
    for layer in recipe.layers if isinstance(recipe.layers, list) else [-1]:
        check_mode(sites[layer], recipe.routing)


def check_layers(layers: Sequence[int], total: int) -> None:
    """Raises InputError unless the layers are different ones of a model with `total` MoE layers."""
    if not layers or len(set(layers)) < len(layers) or not all(0 <= layer < total for layer in layers):
        raise InputError(
            f"the model has MoE layers 0 to {total - 1}.",
            where=f"layers {list(layers)}",
            hint="Name some of them, each once.",
        )
