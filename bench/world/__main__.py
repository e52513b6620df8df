"""Commands of the generated world, which ``python -m moextend.bench.world --help`` lists."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from moextend.util.entry import run_app

app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False)
Out = Annotated[Path, typer.Option(help="Folder to write.")]
Seed = Annotated[int, typer.Option(help="Seed of all draws.")]


@app.command()
def build(out: Out, seed: Seed = 0) -> None:
    """Train the tiny base. Example: build --seed 0 --out registry/models/tiny."""
    from moextend.bench.world.base import Recipe
    from moextend.bench.world.base import build as build_base

    record = build_base(Recipe(seed=seed), out)
    typer.echo(f"text: {record['language']['accuracy']}")
    typer.echo(f"probes: {record['vision']['probe_accuracy']}")


@app.command()
def audio(out: Out, seed: Seed = 0) -> None:
    """Train the tiny audio encoder. Example: audio --seed 0 --out registry/models/tiny/audio."""
    from moextend.bench.world.audio import Recipe
    from moextend.bench.world.audio import build as build_audio

    typer.echo(f"heads: {build_audio(Recipe(seed=seed), out)['accuracy']}")


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
def apart(
    data: Annotated[list[str], typer.Argument(help="Data sets of the generated world, one per stage.")],
    count: Annotated[int, typer.Option(help="Inputs of each stage.")] = 500,
) -> None:
    """Measure which stage scope auto assigns the inputs of each stage to. Example: apart night-looking dim-looking."""
    import moextend
    from moextend.bench.world.data import prompts
    from moextend.extension.task_inference import INPUTS, TaskInference, collect

    model, stages = moextend.load("tiny", vision="tiny"), list(dict.fromkeys(data))
    choose = TaskInference(model, {name: collect(model, prompts(name, "train", INPUTS)) for name in stages})
    typer.echo(f"| inputs of | none | {' | '.join(stages)} |")
    typer.echo(f"| :--- |{' ---: |' * (1 + len(stages))}")
    for name in stages:
        own = choose.shares(prompts(name, "test", count))
        typer.echo(f"| {name} | {' | '.join(f'{100 * own[key]:.1f}' for key in ('', *stages))} |")


@app.command()
def probes(
    learned: Annotated[int, typer.Option(help="Scenes that the probes are trained on.")] = 1000,
    scored: Annotated[int, typer.Option(help="Scenes that they are scored on.")] = 200,
) -> None:
    """Measure what linear probes read from the encoder's tokens in every domain. Example: probes --scored 200."""
    from moextend.bench.world.render import DOMAINS
    from moextend.bench.world.vision import VALUES, probe_accuracies, shipped

    typer.echo(f"| domain | {' | '.join(VALUES)} |")
    typer.echo(f"| :--- |{' ---: |' * len(VALUES)}")
    for name, domain in DOMAINS.items():
        found = probe_accuracies(shipped(), 0, learned, scored, domain)
        typer.echo(f"| {name} | {' | '.join(f'{found[attribute]:.0f}' for attribute in VALUES)} |")


if __name__ == "__main__":
    run_app(app, "python -m moextend.bench.world")
