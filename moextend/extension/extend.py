"""`extend`: runs all steps of the method on the user's data (docs/method.md)."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence, Sized
from itertools import chain, islice
from pathlib import Path
from typing import Any

from moextend.data.conversations import Conversation, complete, hold_out
from moextend.errors import InputError
from moextend.extension import latents, modalities, store, task_inference, tensor_files
from moextend.extension.align import SAMPLE
from moextend.extension.card import NOWHERE, Origin, made_of
from moextend.extension.learning import Loop, check_fits, coactive_of, keep, learn
from moextend.extension.retention import Retention
from moextend.extension.store import Extension
from moextend.model.feature_cache import kept_features
from moextend.model.multimodal import MultimodalLM
from moextend.moe import attach
from moextend.moe.recipe import Recipe, check_name
from moextend.moe.recipe import recipe as read_recipe
from moextend.training import resuming
from moextend.training.loop import Report, train
from moextend.training.settings import Settings, check_tracker, default_settings
from moextend.training.trainer import ExtraLoss
from moextend.util import files
from moextend.util.processes import first_writes, launched

LOG = "log.jsonl"
"""File in the folder of the extension with losses of the probe and the training: ten lines each."""


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
    """Adds experts to `model`, trains them on `data` and saves them. Existing weights do not change.

    A probe finds the MoE layers that change most. Each of them gets copies of its most chosen experts, and only these
    copies and their router rows are trained (MoExtend, section 3.2). Afterwards everything is frozen. The extension
    and its co-active extensions are active, as in training; `activate` changes that.

    Args:
        name: letters, digits, '-' and '_'.
        data: a sequence of conversations, which may be read lazily. Media require an aligned projector (`align`); a
            random one is refused.
        folder: for extension.safetensors, extension.json, log.jsonl and the files of the scope. An interrupted call
            continues from the last checkpoint there if it is repeated with the same arguments; conversations are
            compared by their texts and images. During the call the folder also holds image features (at most 16 GiB
            and half of the free space) of modalities without their own source of features.
        recipe: layers, new experts, routing and scope of the extension; None: `Recipe()`.
        settings: training settings; None: a default of three passes in batches of 16 at a learning rate of 1e-3.
        held_out: conversations for choosing layers, which are not learned; None: a tenth of `data` (1 to 512).
        generic: texts as a sample of the base's knowledge; experts of scope "all" learn not to act on them.
        seed: seed of the held-out part, of random layers and of the default settings.
        on_step: called with (steps done, steps in all), in the probe and then in the training.
        origin: names of base and data, the licence, and options of the command line, for extension.json.
        fields: fields of the recipe: `layers=[0, 3]` is short for `recipe=Recipe(layers=[0, 3])`.

    Raises:
        InputError: an argument is out of range, the name is taken, the folder holds an extension or was used by a
            call with other arguments, there are fewer than two conversations, or the data does not fit the model.
            The model is unchanged.
    """
    where, folder = f"extension '{name}'", Path(folder)
    wanted = _recipe(recipe, fields, where)
    if seed < 0:
        raise InputError(f"seed is {seed}.", where=where, hint="Give 0 or more.")
    _check_new(model, name, folder, where)
    _check_data(model, data, held_out, where)
    check_fits(model.lm, wanted)
    learned, held = _split(data, held_out, seed)
    chosen = _settings(settings, len(learned), seed)
    check_tracker(chosen.report_to)
    coactive, earlier, keeping = coactive_of(model, wanted), list[Path](), Retention(model, wanted)
    if wanted.keeps_memory:
        earlier = [_folder_of(model, other, keeping.file) for other in coactive]
    keeping.check(earlier)
    steps = wanted.probe_steps if wanted.layers == "probe" else 0
    content = resuming.learned_name(learned, chosen, at_least=steps)
    facts = {
        "name": name, "recipe": wanted.model_dump(), "settings": chosen.record(), "seed": seed, "data": content,
        "held_out": resuming.name_data(held),
        "generic": resuming.name_data(generic) if wanted.keeps_memory else "",
        "model": model.base_fingerprint(),
        "beside": [[other, store.digest_of(model, other)] for other in coactive],
    }  # fmt: skip
    resuming.go_on(folder, facts)
    with kept_features(model, folder):
        new = learn(
            model, name, wanted, _loop(model, learned, chosen, folder, on_step), held_out=held, seed=seed,
            coactive=coactive, earlier=earlier, generic=generic, batch_size=_batch(chosen), folder=folder,
        )  # fmt: skip
        with first_writes() as first:
            if first:
                if wanted.scope == "auto":
                    prompts = task_inference.inputs_of(held, learned)
                    task_inference.write(task_inference.collect(model, prompts), folder)
                made = made_of(origin, wanted, chosen, new.report, content, len(learned) + len(held))
                keep(
                    model, name, wanted, folder, held_out=held, seed=seed, batch_size=_batch(chosen), made=made
                )  # fmt: skip
                resuming.done(folder)
    modalities.hold(model, name)
    attach.scope_of(model.lm).folders[name] = folder
    model.choose = None
    return store.handle(model, name)


def _recipe(recipe: Recipe | None, fields: Mapping[str, Any], where: str) -> Recipe:
    """Recipe of a call. Raises InputError for a wrong type."""
    if recipe is None:
        return read_recipe(where, **fields)
    if not isinstance(recipe, Recipe):
        raise InputError(f"{recipe!r} is not a recipe.", where=where, hint="Give moextend.Recipe(...).")
    if fields:
        raise InputError(
            f"both a recipe and {', '.join(fields)} are given.",
            where=where,
            hint="Set all of them in the recipe.",
        )
    return recipe


def _settings(settings: Settings | None, conversations: int, seed: int) -> Settings:
    """Settings of a call. Raises InputError for a wrong type."""
    chosen = settings or default_settings(conversations, seed=seed)
    if not isinstance(chosen, Settings):
        raise InputError(
            f"{chosen!r} is not a Settings object.", where="extend", hint="Give moextend.Settings(...)."
        )
    return chosen


def _loop(
    model: MultimodalLM,
    data: Sequence[Conversation],
    settings: Settings,
    folder: Path,
    on_step: Callable[[int, int], None] | None,
) -> Loop:
    """Training loop of one call, bound to its data, settings and folder."""

    def loop(
        *,
        learning_rate: float | None = None,
        extra_loss: ExtraLoss | None = None,
        rates: Mapping[str, float] | None = None,
        steps: int | None = None,
        phase: str = "train",
    ) -> Report:
        def log(entry: Mapping[str, float]) -> None:
            files.append_lines(folder / LOG, [{"phase": phase, "time": time.time(), **entry}])

        wanted = {"steps": steps, "learning_rate": learning_rate}
        own = settings.having(**{key: value for key, value in wanted.items() if value is not None})
        return train(
            model, data, own, folder=folder / f"{phase}-in-flight", extra_loss=extra_loss, rates=rates,
            on_step=on_step, on_log=log,
        )  # fmt: skip

    return loop


def _batch(settings: Settings) -> int:
    """Number of conversations per forward pass of one process in a training with these settings."""
    return max(1, settings.batch_size // launched())


def _split(
    data: Sequence[Conversation], held_out: Sequence[Conversation] | None, seed: int
) -> tuple[Sequence[Conversation], Sequence[Conversation]]:
    """Conversations to learn, and conversations for choosing layers."""
    return hold_out([data], seed) if held_out is None else (complete(data), complete(held_out))


def _check_new(model: MultimodalLM, name: str, folder: Path, where: str) -> None:
    """Raises InputError if the name or the folder do not allow a new extension."""
    check_name(name)
    if name in attach.scope_of(model.lm).known:
        raise InputError(
            "the model already has an extension of this name.", where=where, hint="Choose another name."
        )
    near = next(place for place in (folder, *folder.parents) if place.exists())
    if not near.is_dir():
        raise InputError("is not a folder.", where=str(near), hint="Name a new folder.")
    if tensor_files.is_complete(folder):
        raise InputError(
            "already holds an extension.",
            where=str(folder),
            hint="Load it (load_extension), or name a new folder.",
        )


def _check_data(
    model: MultimodalLM, data: Sequence[Conversation], held_out: Sequence[Conversation] | None, where: str
) -> None:
    """Raises InputError for too few conversations, and for media, in the first ones, whose projector is random."""
    if not isinstance(data, Sized):
        raise InputError(f"{data!r} holds no conversations.", where=where, hint="Give a list of them.")
    if len(data) < 2 or (held_out is not None and not len(held_out)):
        raise InputError(
            f"there are {len(data)} conversations for training and {len(held_out or ())} for choosing layers.",
            where=where,
            hint="Give at least two, and at least one as held_out if you set it.",
        )
    # A lazy sequence is not read here.
    if isinstance(data, list | tuple) and not (hasattr(data[0], "turns") and hasattr(data[0], "media")):
        raise InputError(
            f"{data[0]!r} is not a conversation.", where=where, hint="Give a list of moextend.Conversation."
        )
    random = {name for name, modality in model.modalities.items() if not modality.projector.aligned}
    given = (data, held_out or ()) if random else ()  # not read without need
    seen = chain.from_iterable(islice(rows, SAMPLE) for rows in given)
    for name in random & {medium.modality for row in seen for medium in row.media}:
        raise InputError(
            f"the conversations have {name} media, and the projector of modality '{name}' is random.",
            where=where,
            hint="Before the first extension, moextend.align it, or moextend.load_projector an aligned one.",
        )


def _folder_of(model: MultimodalLM, name: str, file: str) -> Path:
    """Folder of an extension with this file, which keeps its inputs. Raises InputError if it has none."""
    folder = store.handle(model, name).folder
    if folder is None or not (folder / file).is_file():
        what = "latents" if file == latents.FILE else "router-input memory"
        raise InputError(
            f"extension '{name}' is active and has no {what}.",
            where="scope 'all'",
            hint="Create all with scope='all' and the same retention, activate others, or set retention='none'.",
        )
    return folder
