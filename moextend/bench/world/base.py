"""Builds the tiny base: trains the language model and the vision encoder, and records their scores."""

from __future__ import annotations

import platform
import time
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from moextend.bench.world import language, vision
from moextend.bench.world.scenes import WORLD_VERSION
from moextend.bench.world.text import TEXT_TASKS, text_items
from moextend.bench.world.words import build_tokenizer
from moextend.model.multimodal import MultimodalLM
from moextend.util.files import write_json

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


def build(recipe: Recipe, out: Path) -> dict[str, Any]:
    """Trains both models and saves them under `out` (lm/, vision/, build.json); returns the record."""
    torch.set_num_threads(1)  # one thread keeps the order of sums, so that builds are reproducible
    record = {
        **recorded(recipe),
        "language": build_language(recipe, out / "lm"),
        "vision": build_vision(recipe, out / "vision"),
    }
    write_json(out / "build.json", record)
    return record


def recorded(recipe: Any) -> dict[str, Any]:
    """What every build records: the world, its recipe, and the versions that it was made with."""
    return {
        "world_version": WORLD_VERSION,
        "recipe": asdict(recipe),
        "libraries": {name: version(name) for name in LIBRARIES},
        "python": platform.python_version(),
        "machine": platform.machine(),
    }


def build_language(recipe: Recipe, folder: Path) -> dict[str, Any]:
    """Trains and saves the language model and its tokenizer; returns parameters, loss, scores and seconds."""
    start = time.perf_counter()
    model = language.build_language_model(recipe.seed)
    loss = language.train_language_model(model, recipe.seed, recipe.language_steps, recipe.language_batch)
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    tokenizer = build_tokenizer()
    tokenizer.save_pretrained(folder)
    whole = MultimodalLM(model, tokenizer)
    scores = {task: round(language.text_accuracy(whole, text_items(task)), 1) for task in TEXT_TASKS}
    return {
        "parameters": model.num_parameters(),
        "loss": round(loss, 4),
        "accuracy": scores,
        "seconds": round(time.perf_counter() - start),
    }


def build_vision(recipe: Recipe, folder: Path) -> dict[str, Any]:
    """Trains and saves the vision encoder; returns parameters, loss, probes, feature scale, seconds."""
    start = time.perf_counter()
    model = vision.build_vision_model(recipe.seed)
    loss = vision.train_vision_model(model, recipe.seed, recipe.vision_steps, recipe.vision_batch)
    vision.save_vision_model(model, folder)
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "loss": round(loss, 4),
        "probe_accuracy": vision.probe_accuracies(model, recipe.seed),
        "feature_std": round(vision.feature_scale(model, recipe.seed), 4),
        "seconds": round(time.perf_counter() - start),
    }
