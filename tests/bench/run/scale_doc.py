"""Writes the table of docs/scale.md from the configs of published models: ``python -m tests.bench.run.scale_doc``."""

from __future__ import annotations

from pathlib import Path

import torch

from moextend.bench import methods
from moextend.bench.methods import Shapes
from moextend.bench.run.estimate import ANSWER_TOKENS, GB, TERA, TEXT_TOKENS
from moextend.model import loading
from moextend.training.estimate import ASSUMED_TOKENS, THROUGHPUT, UTILISATION, Estimator, Step, bytes_of
from moextend.training.prepare import layers_of

DOC = Path(__file__).parents[3] / "docs" / "scale.md"
CONFIGS = Path(__file__).parents[2] / "fixtures" / "scale"
MARK = "<!-- models -->\n"
MODELS = ("OLMoE-1B-7B-0924", "Mixtral-8x7B-v0.1", "Qwen3-30B-A3B", "Qwen3-235B-A22B")
METHODS = ("full-ft", "lora", "lora:experts=false", "moextend:scope=own")
STEPS, ROWS, LENGTH = 1000, 64, TEXT_TOKENS + ASSUMED_TOKENS
DEVICES = {1: 8, 8: 8, 32: 2, 64: 1}
"""Devices -> conversations that each computes at a time."""
ENCODER = 1.2
"""GB of the image encoder."""


def table(model: str) -> str:
    """The rows of a model."""
    lines = []
    for text in METHODS:
        base = Estimator(loading.skeleton(str(CONFIGS / model)), torch.bfloat16)
        layer = max(bytes_of(each.parameters()) for each in layers_of(base.lm))
        with torch.device("meta"):
            learning = methods.parse(text).make().trainable(Shapes(base.lm))
        base.learn_only(learning.values())
        cells = []
        for devices, rows in DEVICES.items():
            step = Step(rows, LENGTH, ANSWER_TOKENS, bf16=True, checkpointing=True, accumulated=True)
            found = base.training(step)
            gathered = 2 * layer if devices > 1 and found.frozen > found.states else 0.0
            whole = found.frozen / devices + gathered + found.states + found.working
            cells.append(f"{whole / GB + ENCODER:,.1f}")
        answers = base.answering(16, LENGTH, 16)
        cells.append(f"{(answers.weights + answers.working) / GB + ENCODER:,.1f}")
        work = STEPS * ROWS / rows * found.operations / TERA
        cells.append(f"{work / (THROUGHPUT['cuda'][1] * UTILISATION) / 3600:,.2f}")
        lines.append(f"| {model} | `{text}` | {found.learns / 1e6:,.0f} | {' | '.join(cells)} |\n")
    return "".join(lines)


if __name__ == "__main__":
    head, mark, rest = DOC.read_text(encoding="utf-8").partition(MARK)
    titles = "".join(rest.splitlines(keepends=True)[:2])
    DOC.write_text(head + mark + titles + "".join(map(table, MODELS)), encoding="utf-8")
