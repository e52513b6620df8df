"""Extends a model with one's own data: probe, expand, tune, keep (MoExtend, arXiv 2408.03511, section 3).

`extend` is for users; the benchmark's method of that name calls the same `learn` and `keep` with its own training loop.
"""

from __future__ import annotations

import os
import random
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence, Sized
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol

from moextend.data.conversations import Conversation
from moextend.errors import InputError, SpecError
from moextend.extension import router_memory, store, task_inference, tensor_files
from moextend.extension.origin import NOWHERE, Made, Origin, made_of
from moextend.extension.probe import (
    LayerChoice,
    Probe,
    choose_layers,
    parents,
    probe_layers,
    selection_shares,
)
from moextend.extension.store import Extension
from moextend.model.feature_cache import kept_features
from moextend.model.multimodal import MultimodalLM
from moextend.moe import attach
from moextend.moe.extensible import check_extensible
from moextend.moe.recipe import Mode, Recipe, check_name
from moextend.moe.recipe import recipe as read_recipe
from moextend.moe.sites import find_sites
from moextend.training import resuming
from moextend.training.loop import Report, train
from moextend.training.settings import Settings
from moextend.training.splits import HELD_OUT, complete, hold_out
from moextend.training.trackers import check_tracker
from moextend.training.trainer import ExtraLoss
from moextend.util import files
from moextend.util.processes import first_writes

LOG = "log.jsonl"
"""Losses of the probe and the training, a tenth of the steps a line, in the folder of the extension."""


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


def extend(
    model: MultimodalLM,
    name: str,
    data: Sequence[Conversation],
    *,
    folder: str | Path,
    layers: LayerChoice | Sequence[int] = "probe",
    share: float = 0.5,
    experts: int = 1,
    width: float | None = None,
    routing: Mode = "exact",
    scope: Literal["own", "auto", "all"] = "auto",
    settings: Settings | None = None,
    held_out: Sequence[Conversation] | None = None,
    generic: Sequence[Conversation] = (),
    seed: int = 0,
    on_step: Callable[[int, int], None] | None = None,
    origin: Origin = NOWHERE,
    **more: Any,
) -> Extension:
    """Adds experts to `model` that learn `data`, and saves them; all that was there before stays as it is.

    A probe says which MoE layers change most, each of these gets copies of its most chosen experts, and the copies,
    with their router rows, are trained alone (MoExtend, section 3.2). Afterwards everything is frozen and the model
    computes as in training: the extension is active, with its co-active extensions; `activate` says otherwise.

    Args:
        name: letters, digits, '-' and '_'.
        data: conversations, any sequence of them, a lazily read one too. With images the projector must be aligned
            (`align`) before.
        folder: gets extension.safetensors, extension.json, log.jsonl and what the scope keeps. A call that was
            interrupted goes on from the last checkpoint there when it is repeated with the same arguments;
            conversations are the same where their texts and images are, whatever object holds them. Meanwhile it
            keeps image features (16 GiB at the most, and half of what is free), unless `model.features` says where
            these come from.
        layers: "probe", "all", "first", "last", "random", or the MoE layers' places, lowest 0.
        share: the share of the MoE layers that get new experts, where `layers` does not say it.
        experts: new experts a layer.
        width: of a new expert, as a share of its parent's inner neurons; None: a quarter in exact routing, else 1.
        routing: "exact" (the base stays what it is, bit for bit, where gates are closed), "paper" or "slot"
            (docs/method.md).
        scope: "own" and "auto" make the extension alone on the base, for its own inputs; "auto" keeps their task
            statistics for `activate(model, "auto")`. "all" makes it with the active extensions, to be active for every
            input, and keeps router inputs on which later ones learn not to act.
        settings: of the training; None: three passes over the data in batches of 16 at a learning rate of 1e-3, as
            a start.
        held_out: conversations to choose layers by, which are not learned; None takes a tenth of `data` (1 to 512).
        generic: text that stands for what the base knows, which experts of scope "all" learn to leave alone.
        seed: of the held-out part, random layers, and the default settings.
        on_step: called with (steps done, steps in all), in the probe and then in the training.
        origin: names of base and data and the licence, for extension.json.
        more: other fields of moextend.moe.recipe.Recipe, e.g. probe_steps=100.

    Raises:
        InputError: an argument is out of range, the name is taken, the folder holds an extension or one that was
            begun otherwise, there are fewer than two conversations, or the data does not fit the model. The model is
            as it was.
    """
    given = {"share": share, "experts": experts, "routing": routing, "scope": scope, **more}
    recipe = read_recipe(f"extension '{name}'", layers=layers, width=width, **given)
    if seed < 0:
        raise InputError(f"seed is {seed}.", where=f"extension '{name}'", hint="Give 0 or more.")
    folder = Path(folder)
    _check_new(model, name, data, held_out, folder)
    if not isinstance(recipe.layers, str):
        _check_layers(recipe.layers, len(find_sites(model.lm)))
    learned, held = _split(data, held_out, seed)
    chosen = settings or default_settings(len(learned), seed)
    if not isinstance(chosen, Settings):
        raise InputError(f"{chosen!r} are no settings.", where="extend", hint="Give moextend.Settings(...).")
    check_tracker(chosen.report_to)
    coactive = attach.scope_of(model.lm).active if recipe.scope == "all" else ()
    earlier = [_folder_of(model, other) for other in coactive] if recipe.keeps_router_inputs else []
    probed = recipe.probe_steps if recipe.layers == "probe" else 0
    content = resuming.learned_name(learned, chosen, at_least=probed)
    resuming.go_on(
        folder,
        {
            "name": name,
            "recipe": recipe.model_dump(),
            "settings": resuming.settings_facts(chosen),
            "seed": seed,
            "data": content,
            "held_out": resuming.name_data(held),
            "generic": resuming.name_data(generic) if recipe.keeps_router_inputs else "",
            "model": model.base_fingerprint(),
            "beside": list(coactive),
        },
    )
    with kept_features(model, folder):
        new = learn(
            model, name, recipe, _OwnLoop(model, learned, chosen, folder, on_step), held_out=held, seed=seed,
            coactive=coactive, earlier=earlier, generic=generic, batch_size=_batch(chosen), folder=folder,
        )  # fmt: skip
        with first_writes() as first:
            if first and recipe.scope == "auto":
                rows = [*held[:HELD_OUT], *learned[: max(0, HELD_OUT - len(held))]]
                task_inference.write(task_inference.collect(model, task_inference.prompts_of(rows)), folder)
            if first:
                made = made_of(origin, recipe, chosen, new.report, content, len(learned) + len(held))
                keep(
                    model,
                    name,
                    recipe,
                    folder,
                    held_out=held,
                    seed=seed,
                    batch_size=_batch(chosen),
                    made=made,
                )
                resuming.done(folder)
                forget_probe(folder)
    attach.scope_of(model.lm).folders[name] = folder
    model.choose = None
    return store.handle(model, name)


@dataclass(frozen=True)
class Choice:
    """Where an extension would go."""

    plan: dict[int, list[int]]
    """MoE block, lowest 0 -> the base experts that its new ones would be copied from."""
    probe: Probe
    """What that was decided by."""


def preview(
    model: MultimodalLM,
    data: Sequence[Conversation],
    *,
    settings: Settings | None = None,
    held_out: Sequence[Conversation] | None = None,
    seed: int = 0,
    on_step: Callable[[int, int], None] | None = None,
    **recipe: Any,
) -> Choice:
    """What `extend` would choose with the same arguments: layers, and the experts to copy. Nothing is added.

    Raises:
        InputError: an argument is out of range, or there are fewer than two conversations.
    """
    wanted = read_recipe("the extension", **recipe)
    _check_data(data, held_out, where="the extension")
    learned, held = _split(data, held_out, seed)
    chosen = settings or default_settings(len(learned), seed)
    coactive = attach.scope_of(model.lm).active if wanted.scope == "all" else ()
    with (
        tempfile.TemporaryDirectory() as folder,
        attach.reaching(model.lm, coactive),
        kept_features(model, Path(folder)),
    ):
        loop = _OwnLoop(model, learned, chosen, Path(folder), on_step)
        probe = _probe(model, wanted, held, loop, _batch(chosen))
    return Choice(_plan(probe, wanted, seed), probe)


@dataclass(frozen=True)
class _OwnLoop:
    """The training loop of one call, bound to its data, settings and folder."""

    model: MultimodalLM
    data: Sequence[Conversation]
    settings: Settings
    folder: Path
    on_step: Callable[[int, int], None] | None

    def __call__(
        self,
        *,
        learning_rate: float | None = None,
        extra_loss: ExtraLoss | None = None,
        rates: Mapping[str, float] | None = None,
        steps: int | None = None,
        phase: str = "train",
    ) -> Report:
        wanted = {"steps": steps, "learning_rate": learning_rate}
        own: dict[str, Any] = {key: value for key, value in wanted.items() if value is not None}
        return train(
            self.model, self.data, replace(self.settings, **own), folder=self.folder / f"{phase}-in-flight",
            extra_loss=extra_loss, rates=rates, on_step=self.on_step, on_log=partial(self._log, phase),
        )  # fmt: skip

    def _log(self, phase: str, entry: Mapping[str, float]) -> None:
        files.append_lines(self.folder / LOG, [{"phase": phase, "time": time.time(), **entry}])


def default_settings(conversations: int, seed: int = 0) -> Settings:
    """Three passes in batches of 16 at 1e-3: a start, not tuned to any model."""
    return Settings(-(-3 * conversations // 16), batch_size=16, learning_rate=1e-3, seed=seed)


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
        probe = _kept_probe(folder) or _probe(model, recipe, held_out, loop, batch_size)
        if folder is not None:
            _keep_probe(probe, folder)
        plan = _plan(probe, recipe, seed)
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
        report = loop(
            learning_rate=learning_rate,
            rates={".rows": recipe.gate_rate, ".bias": recipe.gate_rate} if kept else None,
            extra_loss=router_memory.retention_loss(
                model, name, kept, margin=recipe.margin, weight=recipe.memory_weight,
                sample=recipe.memory_sample, seed=seed,
            )
            if kept
            else None,
        )  # fmt: skip
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


def _probe(
    model: MultimodalLM, recipe: Recipe, held_out: Sequence[Conversation], loop: Loop, batch_size: int
) -> Probe:
    if recipe.layers != "probe":
        return Probe(selection_shares(model, held_out, batch_size=batch_size), [])
    tune = partial(loop, steps=recipe.probe_steps, phase="probe")
    return probe_layers(model, held_out, tune, batch_size=batch_size)


def _batch(settings: Settings) -> int:
    """Conversations that one process computes at a time in a training with these settings."""
    return max(1, settings.batch_size // int(os.environ.get("WORLD_SIZE", "1")))


def _plan(probe: Probe, recipe: Recipe, seed: int) -> dict[int, list[int]]:
    """MoE block -> parents of its new experts."""
    total = len(probe.before)
    if isinstance(recipe.layers, str):
        layers = choose_layers(recipe.layers, recipe.share, probe, seed)
    else:
        layers = sorted(recipe.layers)
    _check_layers(layers, total)
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


def _split(
    data: Sequence[Conversation], held_out: Sequence[Conversation] | None, seed: int
) -> tuple[Sequence[Conversation], Sequence[Conversation]]:
    """What is learned, and what layers are chosen by."""
    return hold_out([data], seed) if held_out is None else (complete(data), complete(held_out))


def _check_layers(layers: Sequence[int], total: int) -> None:
    """InputError where a model of `total` MoE layers does not have these, each once."""
    if not layers or len(set(layers)) < len(layers) or not all(0 <= layer < total for layer in layers):
        raise InputError(
            f"the model has MoE layers 0 to {total - 1}.",
            where=f"layers {list(layers)}",
            hint="Name some of them, each once.",
        )


def _check_new(
    model: MultimodalLM,
    name: str,
    data: Sequence[Conversation],
    held_out: Sequence[Conversation] | None,
    folder: Path,
) -> None:
    """InputError where an extension of this name, of this data, in this folder cannot be made."""
    where = f"extension '{name}'"
    check_name(name)
    if name in attach.scope_of(model.lm).known:
        raise InputError("the model has one of this name already.", where=where, hint="Choose another name.")
    _check_data(data, held_out, where)
    near = next(place for place in (folder, *folder.parents) if place.exists())
    if not near.is_dir():
        raise InputError("is no folder.", where=str(near), hint="Name a new folder.")
    if tensor_files.is_complete(folder):
        raise InputError(
            "holds an extension already.",
            where=str(folder),
            hint="Load it (load_extension), or name a new folder.",
        )


def _check_data(data: Sequence[Conversation], held_out: Sequence[Conversation] | None, where: str) -> None:
    if not isinstance(data, Sized):
        raise InputError(f"{data!r} holds no conversations.", where=where, hint="Give a list of them.")
    if len(data) < 2 or (held_out is not None and not len(held_out)):
        raise InputError(
            f"there are {len(data)} conversations to learn from, and {len(held_out or ())} to choose layers by.",
            where=where,
            hint="Give two or more, and held_out, where it is given, one.",
        )
    # What reads its conversations when they are needed is not asked for one here.
    if isinstance(data, list | tuple) and not (hasattr(data[0], "turns") and hasattr(data[0], "images")):
        raise InputError(
            f"{data[0]!r} is no conversation.", where=where, hint="Give a list of moextend.Conversation."
        )


def _folder_of(model: MultimodalLM, name: str) -> Path:
    """The folder of an extension with a router-input memory."""
    folder = store.handle(model, name).folder
    if folder is None or not (folder / router_memory.FILE).is_file():
        raise InputError(
            f"extension '{name}' is active and has no router-input memory.",
            where="scope 'all'",
            hint="Make all of them with scope='all', activate others, or set retention='none'.",
        )
    return folder
