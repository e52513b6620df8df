"""The core library from the shell: align, probe, extend, generate, extensions."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from moextend.cli import before, options
from moextend.cli.bars import bar
from moextend.errors import InputError, at
from moextend.util.limits import MOST_BATCH, MOST_SEED, MOST_STEPS, MOST_TOKENS

if TYPE_CHECKING:
    from moextend.model.batches import Conversation
    from moextend.model.multimodal import MultimodalLM
    from moextend.training.settings import Settings

Base = Annotated[
    str, typer.Argument(metavar="BASE", help="A folder, a .gguf file, a hub id, tiny or smollm2.")
]
Vision = Annotated[str | None, typer.Option(help="The image encoder (docs/vision.md); none for text.")]
Projector = Annotated[
    Path | None, typer.Option(file_okay=False, help="Folder that 'moextend align' wrote the projector to.")
]
Data = Annotated[
    str,
    typer.Option(help="JSON(L), CSV or parquet file, folder or hub id: questions and answers, or LLaVA's."),
]
Columns = Annotated[
    list[str] | None,
    typer.Option(metavar="KEY=COLUMN", help="e.g. image=photo,question=q,answer=label; else guessed."),
]
Images = Annotated[
    Path | None,
    typer.Option(exists=True, file_okay=False, help="Folder of the images, if it is not that of the data."),
]
Template = Annotated[
    str | None, typer.Option(help='The prompt, e.g. "<image> {question}". Default: guessed.')
]
Out = Annotated[Path, typer.Option("--out", "-o", file_okay=False, help="A new folder for the result.")]
Loaded = Annotated[
    list[Path] | None,
    typer.Option("--extension", "-e", file_okay=False, help="Folder of one, in the order of their making."),
]
Steps = Annotated[
    int | None,
    typer.Option(min=1, max=MOST_STEPS, help="Optimizer steps. Default: three passes over the data."),
]
Batch = Annotated[int, typer.Option(min=1, max=MOST_BATCH, help="Conversations a step.")]
Rate = Annotated[float, typer.Option(min=0, help="Highest learning rate.")]
Seed = Annotated[int, typer.Option(min=0, max=MOST_SEED, help="Of all that is drawn.")]
Dtype = Annotated[
    str,
    typer.Option(
        help="Of the base: float32, bfloat16, or auto (the checkpoint's); it is trained in bf16 unless in float32."
    ),
]
Attention = Annotated[
    str | None,
    typer.Option("--attention", help="eager, sdpa or flash_attention_2. Default: transformers' choice."),
]


def align(
    base: Base,
    vision: Annotated[str, typer.Option(help="The image encoder (docs/vision.md).")],
    data: Data,
    out: Out,
    columns: Columns = None,
    images: Images = None,
    template: Template = None,
    steps: Steps = None,
    batch_size: Batch = 16,
    learning_rate: Rate = 1e-3,
    seed: Seed = 0,
    dtype: Dtype = "float32",
    attention: Attention = None,
    device: options.Device = "auto",
    workspace: options.Workspace = Path(),
) -> None:
    """Train the projector of an image encoder on captions, once, before the first extension."""
    before.check_numbers(steps, batch_size, learning_rate, seed)
    before.check_model(base, vision, None, dtype, attention, device)
    before.check_out(out, holds="a projector", stem="projector")
    rows = _data(data, columns, images, template, workspace)
    model = _opened(base, vision, None, dtype, attention, device, workspace)
    settings = _settings(model, rows, steps, batch_size, learning_rate, seed)
    from moextend.extension.align import align as aligned

    with bar("steps", quiet=False) as on_step:
        report = aligned(model, rows, settings, folder=out, on_step=on_step)
    typer.echo(
        f"{len(rows)} conversations, loss {report.loss_first:.3f} -> {report.loss_last:.3f}; wrote {out}"
    )


def probe(
    base: Base,
    data: Data,
    vision: Vision = None,
    projector: Projector = None,
    columns: Columns = None,
    images: Images = None,
    template: Template = None,
    share: Annotated[float, typer.Option(help="Share of the MoE layers that would get new experts.")] = 0.5,
    experts: Annotated[int, typer.Option(min=1, help="New experts a layer.")] = 1,
    probe_steps: Annotated[
        int, typer.Option(min=1, max=MOST_STEPS, help="Steps that the routers are tuned for.")
    ] = 30,
    batch_size: Batch = 16,
    learning_rate: Rate = 1e-3,
    seed: Seed = 0,
    dtype: Dtype = "float32",
    attention: Attention = None,
    device: options.Device = "auto",
    workspace: options.Workspace = Path(),
    as_json: options.Json = False,
) -> None:
    """Show which MoE layers your data changes most, and which experts 'extend' would copy there; adds nothing."""
    from moextend.moe.recipe import recipe

    recipe("the extension", share=share, experts=experts, probe_steps=probe_steps)
    before.check_numbers(None, batch_size, learning_rate, seed)
    before.check_model(base, vision, projector, dtype, attention, device)
    rows = _data(data, columns, images, template, workspace)
    model = _opened(base, vision, projector, dtype, attention, device, workspace)
    settings = _settings(model, rows, None, batch_size, learning_rate, seed)
    from moextend.extension.extend import preview

    with bar("steps", quiet=as_json) as on_step:
        found = preview(
            model, rows, share=share, experts=experts, probe_steps=probe_steps, settings=settings, seed=seed,
            on_step=on_step,
        )  # fmt: skip
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
        "change: standard deviation over the experts, in points, of how much oftener each is chosen once the routers"
        " are tuned alone."
    )


def extend(
    base: Base,
    data: Data,
    name: Annotated[str, typer.Option(help="Name of the extension: letters, digits, '-', '_'.")],
    out: Out,
    vision: Vision = None,
    projector: Projector = None,
    columns: Columns = None,
    images: Images = None,
    template: Template = None,
    layers: Annotated[
        str, typer.Option(help="probe, all, first, last, random, or places of MoE layers: 0,3.")
    ] = "probe",
    share: Annotated[float, typer.Option(help="Share of the MoE layers that get new experts.")] = 0.5,
    experts: Annotated[int, typer.Option(min=1, help="New experts a layer.")] = 1,
    width: Annotated[
        float | None,
        typer.Option(help="Share of their parents' width (default: a quarter in exact routing, else all)."),
    ] = None,
    routing: Annotated[str, typer.Option(help="exact, paper or slot (docs/method.md).")] = "exact",
    scope: Annotated[str, typer.Option(help="own, auto or all (docs/method.md).")] = "auto",
    extension: Loaded = None,
    steps: Steps = None,
    batch_size: Batch = 16,
    learning_rate: Rate = 1e-3,
    seed: Seed = 0,
    dtype: Dtype = "float32",
    attention: Attention = None,
    device: options.Device = "auto",
    workspace: options.Workspace = Path(),
    as_json: options.Json = False,
) -> None:
    """Extend a model with your own data; the result is a folder of the new experts alone."""
    chosen = options.numbers([layers], "--layers") if layers[:1].isdigit() else layers
    from moextend.moe.recipe import check_name, recipe

    with at("--name"):
        check_name(name)
    recipe(
        f"extension '{name}'",
        layers=chosen,
        width=width,
        share=share,
        experts=experts,
        routing=routing,
        scope=scope,
    )
    before.check_numbers(steps, batch_size, learning_rate, seed)
    before.check_model(base, vision, projector, dtype, attention, device)
    before.check_extensions(extension or [])
    before.check_out(out, holds="an extension", stem="extension")
    rows = _data(data, columns, images, template, workspace)
    model = _opened(base, vision, projector, dtype, attention, device, workspace)
    for folder in extension or ():
        _load(model, folder)
    settings = _settings(model, rows, steps, batch_size, learning_rate, seed)
    from moextend.extension.extend import extend as extended

    with bar("steps", quiet=as_json) as on_step:
        made = extended(
            model, name, rows, folder=out, layers=chosen, share=share, experts=experts, width=width,  # type: ignore[arg-type]
            routing=routing, scope=scope, settings=settings, seed=seed, on_step=on_step,  # type: ignore[arg-type]
        )  # fmt: skip
    record = {**asdict(made), "folder": str(out), "conversations": len(rows), "prompt": rows[0].turns[0][0]}
    if as_json:
        typer.echo(json.dumps(record, indent=2))
        return
    typer.echo(f"{len(rows)} conversations, the first prompt: {record['prompt']!r}")
    typer.echo(f"{_told(record)}; {made.parameters:,} parameters, {made.bytes / 1e6:.1f} MB; wrote {out}")


def generate(
    base: Base,
    prompt: Annotated[
        str, typer.Option("--prompt", "-p", help="The text; <image> stands where an image stands.")
    ],
    image: Annotated[
        list[Path] | None,
        typer.Option(
            "--image", "-i", dir_okay=False, help="Repeatable, in order. Before a text without <image>."
        ),
    ] = None,
    extension: Loaded = None,
    auto: Annotated[
        bool, typer.Option("--auto", help="Let the input choose among the extensions. Else all are active.")
    ] = False,
    vision: Vision = None,
    projector: Projector = None,
    max_new_tokens: Annotated[
        int, typer.Option(min=1, max=MOST_TOKENS, help="Tokens of the answer at the most.")
    ] = 32,
    dtype: Dtype = "float32",
    attention: Attention = None,
    device: options.Device = "auto",
    workspace: options.Workspace = Path(),
) -> None:
    """Print what a base says to a prompt, with extensions or without."""
    before.check_model(base, vision, projector, dtype, attention, device)
    pictures = before.pictures(prompt, image or [], vision)
    if auto and not extension:
        raise InputError(
            "chooses among extensions.", where="--auto", hint="Name one or more: --extension FOLDER."
        )
    before.check_extensions(extension or [])
    model = _opened(base, vision, projector, dtype, attention, device, workspace)
    for folder in extension or ():
        _load(model, folder)
    import moextend

    moextend.activate(model, "auto" if auto else "all")
    text = prompt if "<image>" in prompt else "<image>\n" * len(pictures) + prompt
    asked = [moextend.Prompt(text, pictures)]
    options.echo(moextend.generate(model, asked, max_new_tokens=max_new_tokens, batch_size=1)[0])


def extensions(
    folders: Annotated[
        list[Path], typer.Argument(metavar="FOLDER...", file_okay=False, help="Folders of extensions.")
    ],
    as_json: options.Json = False,
) -> None:
    """Say what extensions are: routing, layers, what they were made beside, and their base."""
    from moextend.extension.store import read_extension

    records: list[dict[str, Any]] = []
    for folder in folders:
        card = read_extension(folder).model_dump()
        size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
        records.append({"folder": str(folder), **card, "disk_bytes": size})
    if as_json:
        typer.echo(json.dumps(records, indent=2))
        return
    for record in records:
        beside = ", ".join(other["name"] for other in record["beside"])
        typer.echo(
            f"{record['folder']}: {_told(record)}{', beside ' + beside if beside else ''}; "
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


def _opened(
    base: str,
    vision: str | None,
    projector: Path | None,
    dtype: str,
    attention: str | None,
    device: str,
    workspace: Path,
) -> MultimodalLM:
    """The base, with the projector that its encoder was aligned with, and features kept on disk."""
    import torch

    import moextend
    from moextend.model.vision import FeatureStore
    from moextend.util.quiet import quiet_process

    quiet_process()
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    model = moextend.load(base, vision=vision, dtype=dtype, device=device, attn_implementation=attention)
    if projector is not None:
        moextend.load_projector(model, projector)
    if model.vision is not None:
        model.features = FeatureStore(model.vision, workspace / ".cache" / "features")
    return model


def _load(model: MultimodalLM, folder: Path) -> None:
    """Loads an extension beside those that are loaded; all are active."""
    import moextend

    moextend.load_extension(model, folder)
    moextend.activate(model, "all")


def _data(
    data: str, columns: list[str] | None, images: Path | None, template: str | None, workspace: Path
) -> Sequence[Conversation]:
    from moextend.bench.run.stage_data import own_data

    named = options.pairs(columns or [], "--columns")
    return own_data(data, workspace, columns=named, template=template, images=images)


def _settings(
    model: MultimodalLM, rows: Sequence[Conversation], steps: int | None, batch: int, rate: float, seed: int
) -> Settings:
    from dataclasses import replace

    from moextend.extension.extend import default_settings

    found = default_settings(len(rows), seed)
    return replace(
        found,
        steps=steps or found.steps,
        batch_size=batch,
        learning_rate=rate,
        bf16=str(model.lm.dtype) != "torch.float32",
    )


def _told(record: dict[str, Any]) -> str:
    layers = ", ".join(
        f"{block} (of {', '.join(map(str, found))})" for block, found in record["plan"].items()
    )
    width = f", {record['width']:g} as wide" if record["width"] < 1 else ""
    return (
        f"extension '{record['name']}', {record['mode']} routing, new experts in MoE layers {layers}{width}"
    )
