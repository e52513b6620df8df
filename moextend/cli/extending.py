"""`moextend extend`: extends a base with own data, and prints the effect."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import Field
from typer import Option

from moextend.cli import inputs, opening, options
from moextend.cli.command import grouped
from moextend.cli.output import bar
from moextend.errors import InputError, at, counted, duration
from moextend.model import sources
from moextend.moe.recipe import Recipe, check_name
from moextend.training.settings import Settings, default_settings
from moextend.util import spec
from moextend.util.spec import Spec

if TYPE_CHECKING:
    from moextend.data.conversations import Conversation
    from moextend.extension.card import Effect, Origin
    from moextend.extension.store import Extension
    from moextend.model.multimodal import MultimodalLM


RECIPE = ("layers", "share", "experts", "width", "routing", "scope", "retention")
"""Options that are fields of the recipe."""
SETTINGS = ("steps", "batch_size", "learning_rate", "seed")
"""Options that are settings of the training."""
ELSEWHERE = ("base", "data", "name", "out", "config", "device", "as_json", *RECIPE, *SETTINGS)
"""Parameters that a card holds in other places, or that change nothing in the result."""


class Config(Spec):
    """What the file holds."""

    settings: dict[str, Any] = Field(default_factory=dict)
    """Of the training; each may be left out."""
    recipe: dict[str, Any] = Field(default_factory=dict)
    """Fields of moextend.Recipe."""


def asked(
    values: Mapping[str, Any], named: Collection[str], config: Path | None, name: str
) -> tuple[Recipe, dict[str, Any]]:
    """The recipe, and the settings by name: options that are `named` go before the file, others behind it.

    Args:
        values: all options.
        named: those that stand on the command line.
        name: of the extension.

    Raises:
        InputError: the file cannot be read, or there is no such recipe.
    """
    file, where = Config(), f"extension '{name}'"
    if config is not None:
        file, where = spec.parse(Config, spec.read_yaml(config), where=str(config)), f"{config}: recipe"
    known = {**dict(default_settings(1)), **file.settings}
    checked = spec.parse(Settings, known, where=f"{config}: settings")
    settings = {key: values[key] for key in SETTINGS}
    settings |= {key: getattr(checked, key) for key in file.settings if key not in named}
    fields = {key: values[key] for key in RECIPE if values[key] is not None}
    fields |= {key: value for key, value in file.recipe.items() if key not in named}
    if "retention" in named and fields["scope"] != "all":
        what = f"requires --scope all, and the scope is {fields['scope']}."
        raise InputError(what, where="--retention", hint="Leave it out, or set --scope all.")
    if isinstance(fields["layers"], str):
        fields["layers"] = fields["layers"].replace(",", "+")
    return spec.parse(Recipe, fields, where=where), settings


def other_options(context: typer.Context, named: Collection[str]) -> dict[str, list[str]]:
    """Option -> its values, for the options among `named` that are neither recipe nor settings: --template, -e, ..."""
    found = dict[str, list[str]]()
    for parameter in context.command.params:
        if parameter.name in named and parameter.name not in ELSEWHERE:
            value = context.params[parameter.name]
            values = value if isinstance(value, list | tuple) else [value]
            found[max(parameter.opts, key=len)] = [str(each) for each in values]
    return found


LOG = "log.jsonl"
"""The log of the training, in the folder of the extension."""
WHY = {
    "own": "log-likelihood per token of generic text: the base answers all inputs that you do not activate it for",
    "auto": "log-likelihood per token of generic text, for which the model chooses the extension or the base",
    "all": "log-likelihood per token of generic text, with the extension active",
}
"""What the change on generic text is, by scope."""


@grouped
def extend(
    context: typer.Context,
    base: opening.EncodedBase,
    data: inputs.Data,
    name: Annotated[str, Option(help="Name of the extension: letters, digits, '-', '_'.")],
    out: inputs.Out,
    reading: inputs.Reading,
    layers: Annotated[
        str, Option(help="probe, all, first, last, random, or numbers of MoE layers, lowest first: 0,3.")
    ] = "probe",
    share: Annotated[float, Option(help="Share of the MoE layers that get new experts.")] = 0.5,
    experts: Annotated[int, Option(min=1, help="New experts per layer.")] = 1,
    width: Annotated[
        float | None,
        Option(help="Width as a share of the parent's. Default: 0.25 with exact routing, else 1."),
    ] = None,
    routing: Annotated[
        str,
        Option(
            help="exact: new experts compute in addition to the base's k and start without effect; tokens with closed"
            " gates are computed as in the base, bit for bit. paper: they compete with the old ones for the k slots, as"
            " published. slot: each competes only with the expert that it was copied from."
        ),
    ] = "exact",
    scope: Annotated[
        str,
        Option(
            help="Inputs that the extension acts on. own: those that you activate it for. auto: those similar to its "
            "data. all: every input, co-active with earlier extensions; it learns not to act on their inputs."
        ),
    ] = "auto",
    retention: Annotated[
        str | None,
        Option(
            help="With scope all: what is stored so that later extensions do not change what this one does. latent: "
            "hidden states of whole inputs; output and memory: router inputs; none: nothing. "
            "The default depends on the routing.",
        ),
    ] = None,
    extension: opening.Loaded = None,
    *,
    training: inputs.Training,
    config: Annotated[
        Path | None,
        Option(
            dir_okay=False, help="YAML with 'settings' (of the training) and 'recipe'; options override it."
        ),
    ] = None,
    dry_run: Annotated[
        bool, Option("--dry-run", help="Estimate memory and time; load, train and write nothing.")
    ] = False,
    licence: Annotated[str, Option(help="Licence of the extension, saved in extension.json.")] = "",
    as_json: options.Json = False,
) -> None:
    """Extend a model with your own data; the result is a folder with the new experts only.

    Prints the loss, the score of held-out conversations before and after, and what changed on generic text.
    """
    from moextend.extension.card import Origin

    with at("--name"):
        check_name(name)
    named = _named(context)
    recipe, values = asked(context.params, named, config, name)
    inputs.check_settings(values)
    encoders = base.check()
    extension = opening.folders_of(extension)
    brought = opening.check_extensions(extension)
    inputs.check_out(out, holds="an extension", stem="extension")
    rows = reading.rows(data, encoders | brought)
    opening.check_aligned(rows[0].media, base.projector, brought)
    if dry_run:
        _estimate(base, rows, recipe, values, as_json=as_json)
        return
    model = base.open()
    opening.load_active(model, extension, base.projector)
    settings = inputs.settings_of(model.lm.dtype, len(rows), values)
    origin = Origin(base.base, data, licence, other_options(context, named))
    made, effect = _extended(model, name, rows, recipe, settings, out, origin)
    _say(made, effect, rows, out, recipe, as_json=as_json)


def _estimate(
    base: opening.EncodedBase,
    rows: Sequence[Conversation],
    recipe: Recipe,
    values: Mapping[str, Any],
    *,
    as_json: bool,
) -> None:
    """Prints what the call would take."""
    import torch

    from moextend.extension.estimate import estimate
    from moextend.model.loading import load_tokenizer, skeleton

    lm = skeleton(base.base)
    if base.dtype != "auto":
        lm.to(getattr(torch, base.dtype or "float32"))
    settings = inputs.settings_of(lm.dtype, len(rows), values)
    found = estimate(
        lm,
        rows,
        recipe,
        settings,
        load_tokenizer(base.base),
        vision=base.vision,
        device=sources.device_of(base.device),
    )
    if as_json:
        typer.echo(json.dumps(asdict(found), indent=2))
        return
    options.echo(inputs.first_of(rows))
    probe = f"{counted(found.probe_steps, 'step')} of the probe, then " if found.probe_steps else ""
    cuda = f"; CUDA takes about {found.overhead_gb:.0f} GB more" if found.overhead_gb else ""
    options.echo(
        f"trains {found.parameters:,} parameters in {found.layers} of {counted(found.of_layers, 'MoE layer')}, "
        f"{found.stored_mb:,.1f} MB: {probe}{counted(found.steps, 'step')} of {found.batch_size} conversations "
        f"of at most {found.tokens:,} tokens\n"
        f"  memory  about {_size(found.peak_gb)}: {_size(found.weights_gb)} of frozen weights, "
        f"{_size(found.learning_gb)} of what is trained, {_size(found.working_gb)} of activations{cuda}\n"
        f"  time    about {duration(3600 * found.hours)} of computing: {found.teraflop:,.2f} TFLOP at "
        f"{found.throughput:,.1f} TFLOP/s, a fifth of the peak of {found.throughput_of}\n"
        "Nothing was loaded, trained or written."
    )


def _size(gb: float) -> str:
    return f"{gb:,.1f} GB" if gb >= 1 else f"{1000 * gb:,.0f} MB"


def _named(context: typer.Context) -> set[str]:
    """Options that stand on the command line."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    return {name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"}


def _extended(
    model: MultimodalLM, name: str, rows: Sequence[Conversation], recipe: Recipe, settings: Settings, out: Path,
    origin: Origin,
) -> tuple[Extension, Effect]:  # fmt: skip
    """Extends the model; the extension, and what it changed."""
    from moextend.extension.effect import measured
    from moextend.extension.extend import extend as extended
    from moextend.training.resuming import is_begun

    with bar("steps", folder=out if is_begun(out) else None) as on_step:
        return measured(
            model, name, rows, scope=recipe.scope, seed=settings.seed, batch_size=settings.batch_size,
            make=lambda: extended(
                model, name, rows, folder=out, recipe=recipe, settings=settings, seed=settings.seed, on_step=on_step,
                origin=origin,
            ),
        )  # fmt: skip


def _say(
    made: Extension, effect: Effect, rows: Sequence[Conversation], out: Path, recipe: Recipe, *, as_json: bool
) -> None:
    """Prints what was made, and what that changed."""
    if as_json:
        record = {
            **asdict(made),
            "folder": str(out),
            "conversations": len(rows),
            "prompt": rows[0].turns[0][0],
        }
        typer.echo(json.dumps({**record, "effect": asdict(effect), "log": str(out / LOG)}, indent=2))
        return
    options.echo(inputs.first_of(rows))
    layers = ", ".join(f"{block} (from expert {', '.join(map(str, of))})" for block, of in made.plan.items())
    width = f", {made.width:g} as wide" if made.width < 1 else ""
    typer.echo(
        f"extension '{made.name}', {made.mode} routing, new experts in MoE layers {layers}{width}; "
        f"{made.parameters:,} parameters, {made.bytes / 1e6:.1f} MB"
    )
    typer.echo("\n".join(_effect_lines(out, effect, recipe.scope, texts=rows[0].is_text)))
    if recipe.scope == "all" and recipe.retention == "output" and len(made.plan) > 1:
        options.echo(
            "note: with new experts in several layers, later extensions with scope all can change what this one does. "
            "--retention latent prevents most of it (docs/open-problem.md)."
        )
    typer.echo(f"wrote {out}; log: {out / LOG}")


def _effect_lines(out: Path, effect: Effect, scope: str, *, texts: bool) -> list[str]:
    """The rows loss, held-out scores and what else changed."""
    from moextend.extension.card import read_extension

    origin, first, last = read_extension(out).made, effect.before, effect.after
    what = "per token" if texts else "per token of the answer"
    count = f"{effect.held_out} held-out {'texts' if texts else 'conversations'}"
    rows = [
        (
            "held-out likelihood",
            f"{first.likelihood:.3f} -> {last.likelihood:.3f}",
            f"log-likelihood {what}, {count}",
        )
    ]
    if origin is not None:
        losses = f"{origin.loss_first:.3f} -> {origin.loss_last:.3f}"
        rows.insert(0, ("loss", losses, "first and last tenth of the steps"))
    if first.exact is not None:
        rows.append(("held-out exact", f"{first.exact:.1%} -> {last.exact:.1%}", "answers word for word"))
    rows.append(("what else changed", f"{effect.generic:+.3f}", WHY[scope]))
    return [f"  {name:<22}{value}  ({meaning})" for name, value, meaning in rows]
