"""Commands of the generated world, which ``python -m moextend.bench.world --help`` lists."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from moextend.util.entry import run_app

app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False)


@app.command()
def build(
    out: Annotated[Path, typer.Option(help="Folder of the built base.")],
    seed: Annotated[int, typer.Option(help="Seed of all draws.")] = 0,
    language_steps: Annotated[int | None, typer.Option(help="Steps of the language model.")] = None,
    vision_steps: Annotated[int | None, typer.Option(help="Steps of the vision encoder.")] = None,
) -> None:
    """Train the tiny base. Example: build --seed 0 --out registry/models/tiny."""
    from moextend.bench.world.base import Recipe
    from moextend.bench.world.base import build as build_base

    default = Recipe()
    recipe = Recipe(
        seed=seed,
        language_steps=language_steps or default.language_steps,
        vision_steps=vision_steps or default.vision_steps,
    )
    record = build_base(recipe, out)
    typer.echo(f"text: {record['language']['accuracy']}")
    typer.echo(f"probes: {record['vision']['probe_accuracy']}")


@app.command()
def audio(
    out: Annotated[Path, typer.Option(help="Folder of the encoder.")],
    seed: Annotated[int, typer.Option(help="Seed of all draws.")] = 0,
    steps: Annotated[int | None, typer.Option(help="Steps of training.")] = None,
) -> None:
    """Train the tiny audio encoder. Example: audio --seed 0 --out registry/models/tiny/audio."""
    from rich.progress import Progress

    from moextend.bench.world.audio import Recipe
    from moextend.bench.world.audio import build as build_audio

    recipe = Recipe(seed=seed, steps=steps or Recipe.steps)
    with Progress() as progress:
        bar = progress.add_task("audio encoder", total=recipe.steps)
        record = build_audio(recipe, out, lambda: progress.advance(bar))
    typer.echo(f"heads: {record['accuracy']}")


@app.command()
def items(folder: Annotated[Path, typer.Argument(help="Folder of the JSON lines.")]) -> None:
    """Write the items of the text tasks. Example: items tasks/tiny/lm_eval/data."""
    from moextend.bench.world.text import write_items

    for path in write_items(folder):
        typer.echo(path)


@app.command()
def generic(
    out: Annotated[Path, typer.Argument(help="Text file with one text per line.")],
    lines: Annotated[int, typer.Option(help="Lines.")] = 400,
    seed: Annotated[
        int, typer.Option(help="Seed of the lines; the base's training uses another one.")
    ] = 1000,
) -> None:
    """Write generic text of the kind that the base was trained on. Example: generic registry/tiny-generic.txt."""
    import random

    from moextend.bench.world.questions import Balance
    from moextend.bench.world.text import training_line
    from moextend.util.files import write_text

    rng = random.Random(seed)
    balance = Balance(rng)
    lines_of_text = (" ".join(word.text for word in training_line(rng, balance)) for _ in range(lines))
    write_text(out, "".join(f"{line}\n" for line in lines_of_text))
    typer.echo(out)


@app.command()
def picture(
    out: Annotated[Path, typer.Argument(help="PNG file.")],
    seed: Annotated[int, typer.Option(help="Seed of the scenes.")] = 0,
) -> None:
    """Draw a sheet of scenes with questions. Example: picture docs/images/world-scenes.png."""
    from moextend.bench.world.picture import draw_sheet

    draw_sheet(out, seed)
    typer.echo(out)


@app.command()
def domains(
    out: Annotated[Path, typer.Argument(help="PNG file.")],
    seed: Annotated[int, typer.Option(help="Seed of the scene.")] = 0,
) -> None:
    """Draw a scene in every domain. Example: domains docs/images/world-domains.png."""
    from moextend.bench.world.picture import draw_domains

    draw_domains(out, seed)
    typer.echo(out)


@app.command()
def sounds(
    out: Annotated[Path, typer.Argument(help="PNG file.")],
    seed: Annotated[int, typer.Option(help="Seed of the scene and the performer.")] = 0,
) -> None:
    """Draw spectrograms of sounds. Example: sounds docs/images/world-sounds.png."""
    from moextend.bench.world.picture import draw_sounds

    draw_sounds(out, seed)
    typer.echo(out)


@app.command()
def near(
    count: Annotated[int, typer.Option(help="Inputs of each kind.")] = 500,
) -> None:
    """Measure which inputs scope auto assigns to an extension. Example: near --count 500."""
    import moextend
    from moextend.bench.world.near import measure

    typer.echo("| extension | others | inputs | accepted | elsewhere | none |")
    typer.echo("| :--- | ---: | :--- | ---: | ---: | ---: |")
    for row in measure(moextend.load("tiny", vision="tiny"), count):
        none = max(0.0, 1 - row.accepted - row.elsewhere)
        shares = " | ".join(f"{100 * share:.1f}" for share in (row.accepted, max(0.0, row.elsewhere), none))
        typer.echo(f"| {row.extension} | {row.candidates - 1} | {row.inputs} | {shares} |")


@app.command()
def apart(
    data: Annotated[list[str], typer.Argument(help="Data sets of the generated world, one per stage.")],
    count: Annotated[int, typer.Option(help="Inputs of each stage.")] = 500,
) -> None:
    """Measure which stage scope auto assigns the inputs of each stage to. Example: apart night-looking dim-looking."""
    import moextend
    from moextend.bench.world.near import separated

    shares = separated(moextend.load("tiny", vision="tiny"), list(dict.fromkeys(data)), count)
    typer.echo(f"| inputs of | none | {' | '.join(shares)} |")
    typer.echo(f"| :--- |{' ---: |' * (1 + len(shares))}")
    for name, own in shares.items():
        typer.echo(f"| {name} | {' | '.join(f'{100 * own[key]:.1f}' for key in ('', *shares))} |")


@app.command()
def probes(
    learned: Annotated[int, typer.Option(help="Scenes that the probes are trained on.")] = 1000,
    scored: Annotated[int, typer.Option(help="Scenes that they are scored on.")] = 200,
) -> None:
    """Measure what linear probes read from the encoder's tokens in every domain. Example: probes --scored 200."""
    import open_clip

    from moextend.bench.world.domains import DOMAINS
    from moextend.bench.world.measure import VALUES, probe_accuracies
    from moextend.util import content

    folder = content.package_folder("registry") / "models" / "tiny" / "vision"
    encoder = open_clip.create_model_and_transforms(f"local-dir:{folder}")[0].eval()
    typer.echo(f"| domain | {' | '.join(VALUES)} |")
    typer.echo(f"| :--- |{' ---: |' * len(VALUES)}")
    for name, domain in DOMAINS.items():
        found = probe_accuracies(encoder, 0, learned, scored, domain)
        typer.echo(f"| {name} | {' | '.join(f'{found[attribute]:.0f}' for attribute in VALUES)} |")


if __name__ == "__main__":
    run_app(app, "python -m moextend.bench.world")
