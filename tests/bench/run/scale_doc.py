"""Writes two tables of docs/gpu.md from the configs of published models.

python -m tests.bench.run.scale_doc
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from moextend.bench import methods
from moextend.bench.methods import Shapes
from moextend.bench.run.estimate import ANSWER_TOKENS, GB, TERA, TEXT_TOKENS
from moextend.model import loading
from moextend.moe import low_bits
from moextend.training.estimate import ASSUMED_TOKENS, THROUGHPUT, UTILISATION, Estimator, Step, bytes_of
from moextend.training.prepare import layers_of

DOC = Path(__file__).parents[3] / "docs" / "gpu.md"
CONFIGS = Path(__file__).parents[2] / "fixtures" / "scale"
MODELS = ("OLMoE-1B-7B-0924", "Mixtral-8x7B-v0.1", "Qwen3-30B-A3B", "Qwen3-235B-A22B")
ON_CARDS = ("OLMoE-1B-7B-0924", "gpt-oss-20b", "Qwen3-30B-A3B", "Mixtral-8x7B-v0.1")
METHODS_OF_BASES = get_args(low_bits.Method)
CARDS = (12, 16, 24, 48, 80)
"""GiB."""
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


def skeleton(model: str) -> Any:
    """A published model on device meta."""
    if model != "gpt-oss-20b":
        return loading.skeleton(str(CONFIGS / model))
    config = AutoConfig.for_model("gpt_oss", num_hidden_layers=24, num_local_experts=32)
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)


def needed(model: str, how: Any, text: str = "") -> float:
    """GB of a training of a method, one conversation at a time, or without one of answers to one prompt."""
    base = Estimator(skeleton(model), torch.bfloat16, how)
    if not text:
        answers = base.answering(1, LENGTH, 16)
        return (answers.weights + answers.working) / GB + ENCODER
    with torch.device("meta"):
        learning = methods.parse(text).make().trainable(Shapes(base.lm))
    base.learn_only(learning.values())
    found = base.training(Step(1, LENGTH, ANSWER_TOKENS, bf16=True, checkpointing=True, accumulated=True))
    return (found.frozen + found.states + found.working) / GB + ENCODER


def cards(model: str) -> str:
    """The rows of a model: on which card it can be extended."""
    lines = []
    for how in (None, *METHODS_OF_BASES):
        sizes = [needed(model, how, text) for text in ("moextend:scope=own", "lora:experts=false", "")]
        fits = next((card for card in CARDS if max(sizes) <= 0.9 * card * 2**30 / GB - 2), None)
        shown = " | ".join(f"{size:,.1f}" for size in sizes)
        lines.append(
            f"| {model} | {how or 'bfloat16'} | {shown} | {f'{fits} GiB' if fits else 'none of these'} |\n"
        )
    return "".join(lines)


def write(mark: str, rows: str) -> None:
    """Replaces the rows of the table after a mark; what follows the table stays."""
    head, mark, rest = DOC.read_text(encoding="utf-8").partition(mark)
    lines = rest.splitlines(keepends=True)
    end = next((place for place, line in enumerate(lines) if not line.startswith("|")), len(lines))
    DOC.write_text(head + mark + "".join(lines[:2]) + rows + "".join(lines[end:]), encoding="utf-8")


if __name__ == "__main__":
    write("<!-- models -->\n", "".join(map(table, MODELS)))
    write("<!-- cards -->\n", "".join(map(cards, ON_CARDS)))
