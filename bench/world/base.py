"""Builds the tiny base: trains the language model and the vision encoder, and records their scores."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from moextend.bench.world import language, measure, vision
from moextend.bench.world.language import Progress
from moextend.bench.world.scenes import WORLD_VERSION
from moextend.bench.world.text import TEXT_TASKS, text_items
from moextend.bench.world.words import save_tokenizer
from moextend.util.files import write_json, write_text

LIBRARIES = ("torch", "transformers", "open_clip_torch", "tokenizers", "numpy", "safetensors")


@dataclass(frozen=True)
class Recipe:
    """Steps, batch sizes and seed of the build."""

    seed: int = 0
    language_steps: int = 900
    language_batch: int = 64
    """Lines per step."""
    vision_steps: int = 1500
    vision_batch: int = 32
    """Groups (a scene and three twins) per step."""


@dataclass(frozen=True)
class Bars:
    """Two progress bars, one per model."""

    language: Progress
    vision: Progress


@contextmanager
def progress_bars(recipe: Recipe) -> Iterator[Bars]:
    """Progress bars of a build on the terminal."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns) as progress:
        text = progress.add_task("language model", total=recipe.language_steps)
        image = progress.add_task("vision encoder", total=recipe.vision_steps)
        yield Bars(lambda: progress.advance(text), lambda: progress.advance(image))


def build(recipe: Recipe, out: Path) -> dict[str, Any]:
    """Trains both models and saves them under `out` (lm/, vision/, build.json, README.md); returns the record."""
    torch.set_num_threads(1)  # one thread keeps the order of sums, so that builds are reproducible
    with progress_bars(recipe) as bars:
        text_record = build_language(recipe, out / "lm", bars.language)
        image_record = build_vision(recipe, out / "vision", bars.vision)
    record = {
        "world_version": WORLD_VERSION,
        "recipe": asdict(recipe),
        "language": text_record,
        "vision": image_record,
        "libraries": {name: version(name) for name in LIBRARIES},
        "python": platform.python_version(),
        "machine": platform.machine(),
    }
    write_json(out / "build.json", record)
    write_text(out / "README.md", model_card(record))
    return record


def build_language(recipe: Recipe, folder: Path, tick: Progress) -> dict[str, Any]:
    """Trains and saves the language model and its tokenizer; returns parameters, loss, scores and seconds."""
    start = time.perf_counter()
    model = language.build_language_model(recipe.seed)
    loss = language.train_language_model(
        model, recipe.seed, recipe.language_steps, recipe.language_batch, tick
    )
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    save_tokenizer(folder)
    scores = {task: round(language.text_accuracy(model, text_items(task)), 1) for task in TEXT_TASKS}
    return {
        "parameters": model.num_parameters(),
        "loss": round(loss, 4),
        "accuracy": scores,
        "seconds": round(time.perf_counter() - start),
    }


def build_vision(recipe: Recipe, folder: Path, tick: Progress) -> dict[str, Any]:
    """Trains and saves the vision encoder; returns parameters, loss, probes, retrieval, feature scale, seconds."""
    start = time.perf_counter()
    model = vision.build_vision_model(recipe.seed)
    loss = vision.train_vision_model(model, recipe.seed, recipe.vision_steps, recipe.vision_batch, tick)
    vision.save_vision_model(model, folder)
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "loss": round(loss, 4),
        "probe_accuracy": measure.probe_accuracies(model, recipe.seed),
        "retrieval_of_100": measure.retrieval(model, recipe.seed),
        "feature_std": round(measure.feature_scale(model, recipe.seed), 4),
        "seconds": round(time.perf_counter() - start),
    }


def model_card(record: dict[str, Any]) -> str:
    """README of the built base."""
    text, image = record["language"], record["vision"]
    text_rows = "\n".join(f"| {task} | {score} |" for task, score in text["accuracy"].items())
    image_rows = "\n".join(f"| {what} | {score} |" for what, score in image["probe_accuracy"].items())
    return f"""# The tiny base

A language model and a vision encoder of the generated world (version {record["world_version"]}).
They are small enough to ship; they show and test the pipeline; they know nothing outside their world.

- `lm/`: `MixtralForCausalLM`, {text["parameters"]:,} parameters, with its word-level tokenizer;
  trained on the text world.
- `vision/`: open_clip CLIP, {image["parameters"]:,} parameters, 48x48 pixels, nine patch tokens of
  width {vision.WIDTH}; trained on captions of train scenes. The raw tokens of the penultimate
  layer have a standard deviation of {image["feature_std"]}.
- `build.json`: seed, steps, library versions and the scores below.

Built by `python -m moextend.bench.world build --seed {record["recipe"]["seed"]} --out registry/models/tiny`
in {text["seconds"] + image["seconds"]} s on one thread. Licence: Apache-2.0, as the rest of the package.

| text task | accuracy (multiple choice) |
|---|---|
{text_rows}

| attribute of a thing | linear probe on the token of its cell |
|---|---|
{image_rows}

The image's own caption is the nearest of 100 for {image["retrieval_of_100"]}% of held-out images.
"""
