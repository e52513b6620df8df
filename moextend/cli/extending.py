"""`moextend extend`: extends a base with own data, and prints the effect."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Option

from moextend.cli import options
from moextend.cli.inputs import (
    Batch,
    Columns,
    Data,
    Images,
    Out,
    Rate,
    Reading,
    Seed,
    Steps,
    Template,
    check_out,
    check_settings,
    first_of,
    settings_of,
)
from moextend.cli.opening import (
    Audio,
    Base,
    BaseAsked,
    Dtype,
    Loaded,
    Projector,
    Vision,
    check_aligned,
    check_extensions,
    device_of,
    encoders_of,
    folders_of,
    load_active,
)
from moextend.cli.output import bar
from moextend.errors import at, counted, duration
from moextend.util.lookup import BATCH, RATE

if TYPE_CHECKING:
    from moextend.data.conversations import Conversation
    from moextend.extension.card import Effect, Origin
    from moextend.extension.store import Extension
    from moextend.model.multimodal import MultimodalLM
    from moextend.moe.recipe import Recipe
    from moextend.training.settings import Settings

LOG = "log.jsonl"
"""The log of the training, in the folder of the extension."""
WHY = {
    "own": "log-likelihood per token of generic text: the base answers all inputs that you do not activate it for",
    "auto": "log-likelihood per token of generic text, for which the model chooses the extension or the base",
    "all": "log-likelihood per token of generic text, with the extension active",
}
"""What the change on generic text is, by scope."""


def extend(
    context: typer.Context,
    base: Base,
    data: Data,
    name: Annotated[str, Option(help="Name of the extension: letters, digits, '-', '_'.")],
    out: Out,
    vision: Vision = None,
    audio: Audio = None,
    projector: Projector = None,
    columns: Columns = None,
    images: Images = None,
    template: Template = None,
    layers: Annotated[
        str, Option(help="probe, all, first, last, random, or numbers of MoE layers: 0,3.")
    ] = "probe",
    share: Annotated[float, Option(help="Share of the MoE layers that get new experts.")] = 0.5,
    experts: Annotated[int, Option(min=1, help="New experts per layer.")] = 1,
    width: Annotated[
        float | None,
        Option(
            help="Width of a new expert as a share of its parent's. Default: 0.25 with exact routing, else 1."
        ),
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
            help="Inputs that the extension acts on. own: those that you activate it for. auto: those "
            "similar to its data, inferred from each input. all: every input, co-active with earlier "
            "extensions; it learns not to act on their inputs."
        ),
    ] = "auto",
    retention: Annotated[
        str | None,
        Option(
            help="With scope all: what is stored so that later extensions do not change what this one does. latent: "
            "hidden states of whole inputs; output and memory: router inputs; none: nothing. "
            "The default depends on the routing.",
            show_default=False,
        ),
    ] = None,
    extension: Loaded = None,
    steps: Steps = None,
    batch_size: Batch = BATCH,
    learning_rate: Rate = RATE,
    seed: Seed = 0,
    config: Annotated[
        Path | None,
        Option(
            dir_okay=False,
            help="YAML with 'settings' (of the training: weight_decay, report_to, checkpoint_steps, ...) and 'recipe'; "
            "options override it.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, Option("--dry-run", help="Estimate memory and time; load, train and write nothing.")
    ] = False,
    licence: Annotated[str, Option(help="Licence of the extension, saved in extension.json.")] = "",
    dtype: Dtype = "float32",
    device: options.Device = "auto",
    as_json: options.Json = False,
) -> None:
    """Extend a model with your own data; the result is a folder with the new experts only.

    Prints the loss, the score of held-out conversations before and after, and what changed on generic text.
    """
    from moextend.cli.extend_config import asked, other_options
    from moextend.moe.recipe import check_name

    with at("--name"):
        check_name(name)
    named = _named(context)
    recipe, values = asked(context.params, named, config, name)
    check_settings(values)
    asked_base = BaseAsked(base, encoders_of(vision, audio), projector, dtype, device)
    encoders = asked_base.check()
    extension = folders_of(extension)
    brought = check_extensions(extension)
    check_out(out, holds="an extension", stem="extension")
    rows = Reading(columns, images, template).rows(data, encoders | brought)
    check_aligned(rows[0].media, projector, brought)
    if dry_run:
        _estimate(asked_base, rows, recipe, values, as_json=as_json)
        return
    model = asked_base.open(keep_features=True)
    load_active(model, extension, projector)
    from moextend.extension.card import Origin

    settings = settings_of(model.lm.dtype, len(rows), values)
    origin = Origin(base, data, licence, other_options(context, named))
    made, effect = _extended(model, name, rows, recipe, settings, out, origin)
    _say(made, effect, rows, out, recipe, as_json=as_json)


def _estimate(
    base: BaseAsked, rows: Sequence[Conversation], recipe: Recipe, values: Mapping[str, Any], *, as_json: bool
) -> None:
    """Prints what the call would take."""
    import torch

    from moextend.extension.estimate import estimate
    from moextend.model.loading import load_tokenizer, skeleton

    lm = skeleton(base.name)
    if base.dtype not in (None, "auto"):
        lm.to(getattr(torch, str(base.dtype)))
    settings = settings_of(lm.dtype, len(rows), values)
    found = estimate(
        lm, rows, recipe, settings, load_tokenizer(base.name), vision=base.encoders.get("image"),
        device=device_of(base.device),
    )  # fmt: skip
    if as_json:
        typer.echo(json.dumps(asdict(found), indent=2))
        return
    options.echo(first_of(rows))
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
    model: MultimodalLM,
    name: str,
    rows: Sequence[Conversation],
    recipe: Recipe,
    settings: Settings,
    out: Path,
    origin: Origin,
) -> tuple[Extension, Effect]:
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
    record = {**asdict(made), "folder": str(out), "conversations": len(rows), "prompt": rows[0].turns[0][0]}
    record |= {"effect": asdict(effect), "log": str(out / LOG)}
    if as_json:
        typer.echo(json.dumps(record, indent=2))
        return
    options.echo(first_of(rows))
    typer.echo(f"{_describe(record)}; {made.parameters:,} parameters, {made.bytes / 1e6:.1f} MB")
    typer.echo("\n".join(_effect_lines(out, record["effect"], recipe.scope, texts=rows[0].is_text)))
    if recipe.scope == "all" and recipe.retention == "output" and len(made.plan) > 1:
        options.echo(
            "note: with new experts in several layers, later extensions with scope all can change what this one does. "
            "--retention latent prevents most of it (docs/open-problem.md)."
        )
    typer.echo(f"wrote {out}; log: {out / LOG}")


def _describe(record: dict[str, Any]) -> str:
    """An extension in one line."""
    layers = ", ".join(
        f"{block} (of {', '.join(map(str, found))})" for block, found in record["plan"].items()
    )
    width = f", {record['width']:g} as wide" if record["width"] < 1 else ""
    return (
        f"extension '{record['name']}', {record['mode']} routing, new experts in MoE layers {layers}{width}"
    )


def _effect_lines(out: Path, effect: dict[str, Any], scope: str, *, texts: bool) -> list[str]:
    """The rows loss, held-out scores and what else changed."""
    from moextend.extension.card import read_extension

    origin = read_extension(out).made
    lines = []
    if origin is not None:
        lines.append(
            f"  loss                  {origin.loss_first:.3f} -> {origin.loss_last:.3f}"
            "  (first and last tenth of the steps)"
        )
    first, last = effect["before"], effect["after"]
    what = "per token" if texts else "per token of the answer"
    count = f"{effect['held_out']} held-out {'texts' if texts else 'conversations'}"
    lines.append(
        f"  held-out likelihood   {first['likelihood']:.3f} -> {last['likelihood']:.3f}"
        f"  (log-likelihood {what}, {count})"
    )
    if first["exact"] is not None:
        lines.append(
            f"  held-out exact        {first['exact']:.1%} -> {last['exact']:.1%}  (answers word for word)"
        )
    lines.append(f"  what else changed     {effect['generic']:+.3f}  ({WHY[scope]})")
    return lines
