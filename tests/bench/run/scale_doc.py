"""Writes the tables of docs/scale.md from the configs of published models: ``python -m tests.bench.run.scale_doc``.

Nothing is downloaded and nothing computed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from moextend.bench import methods
from moextend.bench.methods import Shapes
from moextend.bench.run.estimate import ANSWER_TOKENS, GB, TERA, TEXT_TOKENS
from moextend.model import loading
from moextend.model.upcycling import parameter_counts
from moextend.training.encoder_size import ASSUMED_TOKENS
from moextend.training.estimate import OVERHEAD, UTILISATION, Estimator, Step, Training, bytes_of
from moextend.training.prepare import layers_of

DOC = Path(__file__).parents[3] / "docs" / "scale.md"
CONFIGS = Path(__file__).parents[2] / "fixtures" / "scale"
MARK = "<!-- models -->"
MODELS = (
    "allenai/OLMoE-1B-7B-0924", "mistralai/Mixtral-8x7B-v0.1", "Qwen/Qwen3-30B-A3B", "Qwen/Qwen3-235B-A22B",
)  # fmt: skip
METHODS = ("full-ft", "lora", "lora:experts=false", "moextend:scope=own")
STEPS, ROWS, LENGTH, PROMPTS, NEW = 1000, 64, TEXT_TOKENS + ASSUMED_TOKENS, 16, 16
ONE = 8
"""Conversations at a time on one device."""
ENCODER, GIB, PEAK = 1.2, 1.073741824, 989.0
"""GB of the image encoder; GB of a GiB; of an H100 and of an H200 in bfloat16, in units of 1e12 operations a second."""


@dataclass(frozen=True)
class Setup:
    """Accelerators of one training."""

    name: str
    devices: int
    memory: float
    """GB of one."""


SETUPS = (
    Setup("1 H100 (80 GB)", 1, 80 * GIB), Setup("1 H200 (141 GB)", 1, 141), Setup("8 H100", 8, 80 * GIB),
    Setup("8 H200", 8, 141), Setup("4 nodes of 8 H100", 32, 80 * GIB), Setup("8 nodes of 8 H100", 64, 80 * GIB),
)  # fmt: skip


def section(model: str) -> str:
    """The part of the page about a model."""
    found = {}
    for text in METHODS:
        base = Estimator(loading.skeleton(str(CONFIGS / model.partition("/")[2])), torch.bfloat16)
        with torch.device("meta"):
            learning = methods.parse(text).make().trainable(Shapes(base.lm))
        base.learn_only(learning.values())
        found[text] = base
    answers, (total, active) = base.answering(PROMPTS, LENGTH, NEW), parameter_counts(found["full-ft"].lm)
    layer = max(bytes_of(each.parameters()) for each in layers_of(base.lm))
    scoring = (answers.weights + answers.working) / GB + ENCODER
    heads = " | ".join(f"`{text}`" for text in METHODS)
    lines = [
        f"## {model}",
        "",
        f"{total:,} parameters, {active:,} of them per token. `{METHODS[-1]}` trains "
        f"{_pass(base, 1).learns / 1e6:,.1f} M.",
        "",
        f"| set-up | {heads} | scoring | hours per stage (`{METHODS[-1]}`) |",
        f"| --- |{' ---: |' * (len(METHODS) + 2)}",
    ]
    for setup in SETUPS:
        rows = ONE if setup.devices == 1 else ROWS // setup.devices
        passes = [_pass(one, rows) for one in found.values()]
        cells = [_cell(_gigabytes(one, setup, layer), setup) for one in passes]
        work = STEPS * ROWS / rows * passes[-1].operations / TERA
        hours = f"{work / (setup.devices * PEAK * UTILISATION) / 3600:,.2f}" if "no" not in cells[-1] else ""
        lines.append(f"| {setup.name} | {' | '.join(cells)} | {_cell(scoring, setup)} | {hours} |")
    return "\n".join(lines)


def _pass(base: Estimator, rows: int) -> Training:
    return base.training(Step(rows, LENGTH, ANSWER_TOKENS, bf16=True, checkpointing=True, accumulated=True))


def _gigabytes(found: Training, setup: Setup, layer: float) -> float:
    """GB of a device: its share of the frozen weights and two gathered layers, and everything that learns."""
    frozen = found.frozen
    if setup.devices > 1:
        frozen = frozen / setup.devices + min(frozen, 2 * layer if frozen > found.states else 0.0)
    return (frozen + found.states + found.working) / GB + ENCODER


def _cell(gigabytes: float, setup: Setup) -> str:
    room = 0.9 * setup.memory - OVERHEAD / GB
    return f"{gigabytes:,.1f}{'' if gigabytes <= room else ' **no**'}"


if __name__ == "__main__":
    head = DOC.read_text(encoding="utf-8").partition(MARK)[0]
    DOC.write_text("\n\n".join([head + MARK, *map(section, MODELS)]) + "\n", encoding="utf-8")
