"""Extends a model with one's own data: the one call of a user for all steps of the method (docs/method.md)."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence, Sized
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from moextend.data.conversations import Conversation
from moextend.errors import InputError
from moextend.extension import router_memory, store, task_inference, tensor_files
from moextend.extension.learning import (
    Learned,
    check_layers,
    forget_probe,
    keep,
    learn,
    plan_of,
    probed,
)
from moextend.extension.origin import NOWHERE, Origin, made_of
from moextend.extension.probe import Probe
from moextend.extension.store import Extension
from moextend.model.feature_cache import kept_features
from moextend.model.multimodal import MultimodalLM
from moextend.moe import attach
from moextend.moe.recipe import Recipe, check_name
from moextend.moe.recipe import recipe as read_recipe
from moextend.moe.sites import find_sites
from moextend.training import resuming
from moextend.training.loop import Report, train
from moextend.training.settings import Settings, default_settings
from moextend.training.splits import HELD_OUT, complete, hold_out
from moextend.training.trackers import check_tracker
from moextend.training.trainer import ExtraLoss
from moextend.util import files
from moextend.util.processes import first_writes

LOG = "log.jsonl"
"""Losses of the probe and the training, a tenth of the steps a line, in the folder of the extension."""


def extend(
    model: MultimodalLM,
    name: str,
    data: Sequence[Conversation],
    *,
    folder: str | Path,
    recipe: Recipe | None = None,
    settings: Settings | None = None,
    held_out: Sequence[Conversation] | None = None,
    generic: Sequence[Conversation] = (),
    seed: int = 0,
    on_step: Callable[[int, int], None] | None = None,
    origin: Origin = NOWHERE,
    **fields: Any,
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
        recipe: how the extension is made: layers, new experts, routing, scope; None: `Recipe()`.
        settings: of the training; None: three passes over the data in batches of 16 at a learning rate of 1e-3, as
            a start.
        held_out: conversations to choose layers by, which are not learned; None takes a tenth of `data` (1 to 512).
        generic: text that stands for what the base knows, on which experts of scope "all" learn not to act.
        seed: of the held-out part, random layers, and the default settings.
        on_step: called with (steps done, steps in all), in the probe and then in the training.
        origin: names of base and data and the licence, for extension.json.
        fields: fields of a recipe instead of one: `layers=[0, 3]` is `recipe=Recipe(layers=[0, 3])`.

    Raises:
        InputError: an argument is out of range, the name is taken, the folder holds an extension or one that was
            begun otherwise, there are fewer than two conversations, or the data does not fit the model. The model is
            as it was.
    """
    wanted = _recipe(recipe, fields, f"extension '{name}'")
    call = _checked(model, name, data, Path(folder), wanted, settings, held_out, generic, seed)
    resuming.go_on(call.folder, call.facts(model))
    with kept_features(model, call.folder):
        new = call.learn(model, on_step)
        with first_writes() as first:
            if first:
                call.save(model, new, origin)
    attach.scope_of(model.lm).folders[name] = call.folder
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
    recipe: Recipe | None = None,
    settings: Settings | None = None,
    held_out: Sequence[Conversation] | None = None,
    seed: int = 0,
    on_step: Callable[[int, int], None] | None = None,
    **fields: Any,
) -> Choice:
    """What `extend` would choose with the same arguments: layers, and the experts to copy. Nothing is added.

    Raises:
        InputError: an argument is out of range, or there are fewer than two conversations.
    """
    wanted = _recipe(recipe, fields, "the extension")
    _check_data(data, held_out, where="the extension")
    learned, held = _split(data, held_out, seed)
    chosen = _settings(settings, len(learned), seed)
    coactive = attach.scope_of(model.lm).active if wanted.scope == "all" else ()
    with (
        tempfile.TemporaryDirectory() as folder,
        attach.reaching(model.lm, coactive),
        kept_features(model, Path(folder)),
    ):
        loop = _OwnLoop(model, learned, chosen, Path(folder), on_step)
        probe = probed(model, wanted, held, loop, _batch(chosen))
    return Choice(plan_of(probe, wanted, seed), probe)


@dataclass(frozen=True)
class _Call:
    """A call of `extend`, with everything resolved."""

    name: str
    folder: Path
    recipe: Recipe
    settings: Settings
    learned: Sequence[Conversation]
    held_out: Sequence[Conversation]
    generic: Sequence[Conversation]
    seed: int
    coactive: Sequence[str]
    earlier: Sequence[Path]
    """Folders of the co-active extensions, if the recipe needs their router-input memories."""
    content: str
    """Names what is learned."""

    def facts(self, model: MultimodalLM) -> resuming.Facts:
        """What the call must be repeated with to go on."""
        return {
            "name": self.name,
            "recipe": self.recipe.model_dump(),
            "settings": self.settings.record(),
            "seed": self.seed,
            "data": self.content,
            "held_out": resuming.name_data(self.held_out),
            "generic": resuming.name_data(self.generic) if self.recipe.keeps_router_inputs else "",
            "model": model.base_fingerprint(),
            "beside": list(self.coactive),
        }

    def learn(self, model: MultimodalLM, on_step: Callable[[int, int], None] | None) -> Learned:
        """Probes, expands and tunes."""
        loop = _OwnLoop(model, self.learned, self.settings, self.folder, on_step)
        return learn(
            model, self.name, self.recipe, loop, held_out=self.held_out, seed=self.seed, coactive=self.coactive,
            earlier=self.earlier, generic=self.generic, batch_size=_batch(self.settings), folder=self.folder,
        )  # fmt: skip

    def save(self, model: MultimodalLM, new: Learned, origin: Origin) -> None:
        """Keeps the extension, with what its scope needs; the call is over then."""
        learned, held = self.learned, self.held_out
        if self.recipe.scope == "auto":
            rows = [*held[:HELD_OUT], *learned[: max(0, HELD_OUT - len(held))]]
            task_inference.write(task_inference.collect(model, task_inference.prompts_of(rows)), self.folder)
        made = made_of(origin, self.recipe, self.settings, new.report, self.content, len(learned) + len(held))
        keep(
            model, self.name, self.recipe, self.folder, held_out=held, seed=self.seed,
            batch_size=_batch(self.settings), made=made,
        )  # fmt: skip
        resuming.done(self.folder)
        forget_probe(self.folder)


def _checked(
    model: MultimodalLM,
    name: str,
    data: Sequence[Conversation],
    folder: Path,
    recipe: Recipe,
    settings: Settings | None,
    held_out: Sequence[Conversation] | None,
    generic: Sequence[Conversation],
    seed: int,
) -> _Call:
    """The call with everything resolved; InputError where it cannot be done. Nothing is changed."""
    if seed < 0:
        raise InputError(f"seed is {seed}.", where=f"extension '{name}'", hint="Give 0 or more.")
    _check_new(model, name, data, held_out, folder)
    if not isinstance(recipe.layers, str):
        check_layers(recipe.layers, len(find_sites(model.lm)))
    learned, held = _split(data, held_out, seed)
    chosen = _settings(settings, len(learned), seed)
    check_tracker(chosen.report_to)
    coactive = attach.scope_of(model.lm).active if recipe.scope == "all" else ()
    earlier = [_folder_of(model, other) for other in coactive] if recipe.keeps_router_inputs else []
    steps = recipe.probe_steps if recipe.layers == "probe" else 0
    content = resuming.learned_name(learned, chosen, at_least=steps)
    return _Call(name, folder, recipe, chosen, learned, held, generic, seed, coactive, earlier, content)


def _recipe(recipe: Recipe | None, fields: Mapping[str, Any], where: str) -> Recipe:
    """The recipe of a call; InputError where it is none."""
    if recipe is None:
        return read_recipe(where, **fields)
    if not isinstance(recipe, Recipe):
        raise InputError(f"{recipe!r} is no recipe.", where=where, hint="Give moextend.Recipe(...).")
    if fields:
        raise InputError(
            f"a recipe is given, and {', '.join(fields)} besides.",
            where=where,
            hint="Put all into the recipe.",
        )
    return recipe


def _settings(settings: Settings | None, conversations: int, seed: int) -> Settings:
    """The settings of a call; InputError where these are none."""
    chosen = settings or default_settings(conversations, seed=seed)
    if not isinstance(chosen, Settings):
        raise InputError(f"{chosen!r} are no settings.", where="extend", hint="Give moextend.Settings(...).")
    return chosen


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
            self.model, self.data, self.settings.having(**own), folder=self.folder / f"{phase}-in-flight",
            extra_loss=extra_loss, rates=rates, on_step=self.on_step, on_log=partial(self._log, phase),
        )  # fmt: skip

    def _log(self, phase: str, entry: Mapping[str, float]) -> None:
        files.append_lines(self.folder / LOG, [{"phase": phase, "time": time.time(), **entry}])


def _batch(settings: Settings) -> int:
    """Conversations that one process computes at a time in a training with these settings."""
    return max(1, settings.batch_size // int(os.environ.get("WORLD_SIZE", "1")))


def _split(
    data: Sequence[Conversation], held_out: Sequence[Conversation] | None, seed: int
) -> tuple[Sequence[Conversation], Sequence[Conversation]]:
    """What is learned, and what layers are chosen by."""
    return hold_out([data], seed) if held_out is None else (complete(data), complete(held_out))


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
