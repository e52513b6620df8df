"""The core library from the shell: align, probe, extend, generate, extensions."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from moextend.cli import before, options
from moextend.cli.bars import bar
from moextend.cli.extending import extend
from moextend.cli.opening import (
    Attention,
    Audio,
    Base,
    Batch,
    Columns,
    Data,
    Dtype,
    Images,
    Out,
    Projector,
    Rate,
    Seed,
    Steps,
    Template,
    Vision,
    Weighed,
    check_aligned,
    describe,
    encoders_of,
    load_active,
    opened,
    rows_of,
    settings_of,
    weighed,
)  # fmt: skip
from moextend.errors import InputError
from moextend.util.lookup import BATCH, MOST_STEPS, MOST_TOKENS, RATE


def align(
    base: Base,
    data: Data,
    out: Out,
    vision: Vision = None,
    audio: Audio = None,
    modality: Annotated[
        str | None,
        typer.Option(
            help="Modality whose projector is trained: image or audio. Default: that of the only encoder."
        ),
    ] = None,
    columns: Columns = None,
    images: Images = None,
    template: Template = None,
    steps: Steps = None,
    batch_size: Batch = BATCH,
    learning_rate: Rate = RATE,
    seed: Seed = 0,
    dtype: Dtype = "float32",
    attention: Attention = None,
    device: options.Device = "auto",
    workspace: options.Workspace = Path(),
) -> None:
    """Before the first extension, train the projector of an encoder on captions of images or transcripts of sounds."""
    values = {"steps": steps, "batch_size": batch_size, "learning_rate": learning_rate, "seed": seed}
    before.check_settings(values)
    encoders = encoders_of(vision, audio)
    modality = before.aligned_modality(modality, encoders)
    before.check_model(base, encoders, None, dtype, attention, device)
    before.check_out(out, holds="a projector", stem="projector")
    rows = rows_of(data, columns, images, template, workspace, encoders)
    model = opened(base, encoders, None, dtype, attention, device, workspace)
    settings = settings_of(model.lm.dtype, len(rows), values)
    from moextend.extension.align import align as aligned
    from moextend.training.resuming import is_begun

    with bar("steps", quiet=False, folder=out if is_begun(out) else None) as on_step:
        report = aligned(model, rows, settings, folder=out, on_step=on_step, modality=modality)
    typer.echo(
        f"{len(rows)} conversations, loss {report.loss_first:.3f} -> {report.loss_last:.3f}; wrote {out}"
    )


def probe(
    base: Base,
    data: Data,
    vision: Vision = None,
    audio: Audio = None,
    projector: Projector = None,
    columns: Columns = None,
    images: Images = None,
    template: Template = None,
    share: Annotated[float, typer.Option(help="Share of the MoE layers that get new experts.")] = 0.5,
    experts: Annotated[int, typer.Option(min=1, help="New experts per layer.")] = 1,
    probe_steps: Annotated[int, typer.Option(min=1, max=MOST_STEPS, help="Steps of router tuning.")] = 30,
    batch_size: Batch = BATCH,
    learning_rate: Rate = RATE,
    seed: Seed = 0,
    dtype: Dtype = "float32",
    attention: Attention = None,
    device: options.Device = "auto",
    workspace: options.Workspace = Path(),
    as_json: options.Json = False,
) -> None:
    """Show which MoE layers your data changes most, and which experts 'extend' would copy there.

    Nothing is added to the model.
    """
    from moextend.moe.recipe import recipe

    wanted = recipe("the extension", share=share, experts=experts, probe_steps=probe_steps)
    values = {"steps": None, "batch_size": batch_size, "learning_rate": learning_rate, "seed": seed}
    before.check_settings(values)
    encoders = encoders_of(vision, audio)
    before.check_model(base, encoders, projector, dtype, attention, device)
    rows = rows_of(data, columns, images, template, workspace, encoders)
    check_aligned(rows[0].media, projector)
    model = opened(base, encoders, projector, dtype, attention, device, workspace)
    settings = settings_of(model.lm.dtype, len(rows), values)
    from moextend.extension.extend import preview

    with bar("steps", quiet=as_json) as on_step:
        found = preview(model, rows, recipe=wanted, settings=settings, seed=seed, on_step=on_step)
    if as_json:
        typer.echo(json.dumps(asdict(found), indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for title in ("MoE layer", "change", "most chosen", "gets copies of"):
        table.add_column(title, justify="left" if title == "gets copies of" else "right")
    for layer, (change, shares) in enumerate(zip(found.probe.change, found.probe.before, strict=True)):
        best = max(range(len(shares)), key=shares.__getitem__)
        copied = ", ".join(str(parent) for parent in found.plan.get(layer, ()))
        table.add_row(str(layer), f"{100 * change:.2f}", f"{best} ({shares[best]:.0%})", copied)
    Console().print(table)
    typer.echo(
        "change: standard deviation over the experts, in points, of how much more often each is chosen "
        "after only the routers are tuned."
    )


def generate(
    base: Base,
    prompt: Annotated[
        str, typer.Option("--prompt", "-p", help="The text; <image> and <audio> mark the places of media.")
    ],
    image: Annotated[
        list[Path] | None,
        typer.Option(
            "--image",
            "-i",
            dir_okay=False,
            metavar="FILE",
            help="Image file; repeatable, in order. Images precede a prompt without <image>.",
        ),
    ] = None,
    sound: Annotated[
        list[Path] | None,
        typer.Option(
            dir_okay=False,
            metavar="FILE",
            help="Sound file; repeatable, in order. Sounds precede a prompt without <audio>.",
        ),
    ] = None,
    extension: Weighed = None,
    auto: Annotated[
        bool,
        typer.Option(
            "--auto", help="Infer the extension from the input. Default: all extensions are active."
        ),
    ] = False,
    vision: Vision = None,
    audio: Audio = None,
    projector: Projector = None,
    max_new_tokens: Annotated[
        int, typer.Option(min=1, max=MOST_TOKENS, help="Maximum number of tokens per answer.")
    ] = 32,
    dtype: Dtype = "float32",
    attention: Attention = None,
    device: options.Device = "auto",
    workspace: options.Workspace = Path(),
) -> None:
    """Print the answer of a base to a prompt, with or without extensions."""
    encoders = encoders_of(vision, audio)
    before.check_model(base, encoders, projector, dtype, attention, device)
    folders, strengths = weighed(extension)
    known = {*encoders, *before.check_extensions(folders)}
    text, media = before.shown(prompt, {"image": image or [], "audio": sound or []}, known)
    if auto and not extension:
        raise InputError(
            "chooses among extensions.", where="--auto", hint="Name one or more: --extension FOLDER."
        )
    model = opened(base, encoders, projector, dtype, attention, device, workspace)
    names = load_active(model, folders, projector)
    import moextend

    given = dict(zip(names, strengths, strict=True))
    moextend.activate(model, "auto" if auto else "all", strengths=given)
    asked = [moextend.Prompt(text, media)]
    options.echo(moextend.generate(model, asked, max_new_tokens=max_new_tokens, batch_size=1)[0])


def extensions(
    folders: Annotated[
        list[Path], typer.Argument(metavar="FOLDER...", file_okay=False, help="Folders of extensions.")
    ],
    as_json: options.Json = False,
) -> None:
    """Describe extensions: routing, layers, co-active extensions and base."""
    from moextend.extension.card import read_extension

    records: list[dict[str, Any]] = []
    for folder in folders:
        card = read_extension(folder).model_dump()
        size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
        records.append({"folder": str(folder), **card, "disk_bytes": size})
    if as_json:
        typer.echo(json.dumps(records, indent=2))
        return
    for record in records:
        coactive = ", ".join(other["name"] for other in record["beside"])
        typer.echo(
            f"{record['folder']}: {describe(record)}{', made with ' + coactive if coactive else ''}; "
            f"{record['disk_bytes'] / 1e6:.1f} MB; base {record['base']}"
        )


COMMANDS: dict[str, tuple[Callable[..., None], str]] = {
    "align": (align, "moextend align tiny --vision tiny --data captions.json --out projector"),
    "probe": (probe, "moextend probe tiny --data facts.json"),
    "extend": (extend, "moextend extend tiny --data facts.json --name facts --out facts"),
    "generate": (generate, 'moextend generate tiny --extension facts --prompt "anna lives in"'),
    "extensions": (extensions, "moextend extensions facts colors"),
}
"""Name -> function and example."""
