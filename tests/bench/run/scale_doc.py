"""Writes docs/scale.md from the configs of published models: ``python -m tests.bench.run.scale_doc [--write]``.

Nothing is downloaded and nothing computed: about two minutes.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from moextend.bench import methods
from moextend.bench.run.budget import ANSWER_TOKENS, TERA, TEXT_TOKENS
from moextend.bench.run.method_size import MethodSize, Sizes
from moextend.model import loading
from moextend.training.encoder_size import ASSUMED_TOKENS, ASSUMED_WIDTH
from moextend.training.estimate import OVERHEAD, Size, size_of
from moextend.training.throughput import UTILISATION
from moextend.training.tracing import Step

DOC = Path(__file__).parents[3] / "docs" / "scale.md"
CONFIGS = Path(__file__).parents[2] / "fixtures" / "scale"
MODELS = (
    "allenai/OLMoE-1B-7B-0924", "mistralai/Mixtral-8x7B-v0.1", "Qwen/Qwen3-30B-A3B", "Qwen/Qwen3-235B-A22B",
)  # fmt: skip
METHODS = (
    "full-ft", "lora", "lora:experts=false", "ewc", "lwf", "moe-lora", "moextend:scope=own", "moextend:scope=all",
)  # fmt: skip
SHOWN = ("full-ft", "lora", "lora:experts=false", "moextend:scope=own")
"""Methods in the tables of set-ups."""
STEPS, ROWS, LENGTH, PROMPTS, NEW = 1000, 64, TEXT_TOKENS + ASSUMED_TOKENS, 16, 16
GB, ENCODER = 1e9, 1.2
"""ENCODER: GB of the image encoder."""
GIB = 1.073741824
PEAK = 989.0
"""Of an H100 and of an H200 in bfloat16, in units of 1e12 operations a second."""


@dataclass(frozen=True)
class Setup:
    """Accelerators of one training."""

    name: str
    nodes: int
    each: int
    """Accelerators of a node."""
    memory: float
    """GB of one."""

    @property
    def devices(self) -> int:
        """Number of accelerators."""
        return self.nodes * self.each

    @property
    def room(self) -> float:
        """GB of a device that tensors may take: what the runtime and a tenth leave."""
        return 0.9 * self.memory - OVERHEAD / GB

    @property
    def command(self) -> str:
        """How to start it."""
        if self.devices == 1:
            return "`moextend-worker RUN`"
        many = f"--num_processes {self.devices} --num_machines {self.nodes}"
        node = (
            " --machine_rank $NODE --main_process_ip $FIRST --main_process_port 29500"
            if self.nodes > 1
            else ""
        )
        return f"`accelerate launch --config_file fsdp.yaml {many}{node} --no_python moextend-worker RUN`"


SETUPS = (
    Setup("1 H100 (80 GB)", 1, 1, 80 * GIB), Setup("1 H200 (141 GB)", 1, 1, 141),
    Setup("1 node of 8 H100", 1, 8, 80 * GIB), Setup("1 node of 8 H200", 1, 8, 141),
    Setup("4 nodes of 8 H100", 4, 8, 80 * GIB), Setup("8 nodes of 8 H100", 8, 8, 80 * GIB),
)  # fmt: skip

HEAD = """# From one GPU to several nodes

Estimates for learning a stage with four published models, from their `config.json`. **No number on this page
was measured on a GPU.** They are those of `moextend bench run SEQUENCE --dry-run`
([accuracy](gpu.md#accuracy-of-the-estimates)), at {share:.0%} of the peak of an H100 or H200 ({peak:.0f}
TFLOP/s in bfloat16), without communication. A stage is {steps:,} steps of {rows} conversations of {length}
tokens ({image} of an image, {text} of text, {answer} learned), `bf16: true`, `gradient_checkpointing: true`,
the base in bfloat16; scoring is {prompts} prompts at a time; the image encoder (ViT-L/14, {encoder} GB) is
included.

- **One device** computes {one} conversations at a time. **Several devices**: FSDP2 shards the frozen weights;
  each holds its share, two gathered layers and all that learns ([config](training.md#several-processes)). Full
  fine-tuning has no frozen weights to shard. `RUN` is a folder of `moextend bench run SEQUENCE --prepare`.
- **Host memory**: each process loads the whole base first. **Scoring** computes on a whole model in each
  process ([supported set-ups](gpu.md#supported-set-ups)).
- Numbers are GB per device. **no**: above nine tenths of the device's memory, minus {overhead:.0f} GB for the
  runtime. `lora-per-task`, `replay` and `o-lora` train what `lora` trains.

This page is made by `python -m tests.bench.run.scale_doc --write`, from the configs in `tests/fixtures/scale`.
"""


def sizes_of(model: str, rows: int, answered: dict[str, Any]) -> Sizes:
    """Sizes of methods on a model, with steps of `rows` conversations."""
    name = str(CONFIGS / model.partition("/")[2])
    lm = loading.skeleton(name)
    step = Step(rows, LENGTH, ANSWER_TOKENS, bf16=True, checkpointing=True, accumulated=True)
    features = lm.config.hidden_size + 2 * ASSUMED_WIDTH
    return Sizes(
        lambda: loading.skeleton(name), torch.bfloat16, step, PROMPTS, LENGTH, NEW, features, 512, answered
    )


@dataclass(frozen=True)
class Found:
    """Sizes of a method in steps of one and of eight conversations."""

    one: MethodSize
    eight: MethodSize

    def working(self, rows: float) -> float:
        """Bytes of a step besides weights and what learns; steps grow steadily with their conversations."""
        assert self.one.training and self.eight.training
        low, high = self.one.training.working, self.eight.training.working
        return low + (max(1.0, rows) - 1) * (high - low) / 7

    def training(self, setup: Setup, size: Size) -> float:
        """GB of a device in training."""
        assert self.one.training is not None
        frozen, states = self.one.training.frozen, self.one.training.states
        copies = 4.0 * self.one.extra.copies * self.one.trained
        if setup.devices > 1:
            gathered = 2 * size.largest_layer if frozen > states else 0.0
            frozen = frozen / setup.devices + min(frozen, gathered)
        rows = ROWS / setup.devices if setup.devices > 1 else ONE
        return (frozen + states + copies + self.working(rows)) / GB + ENCODER

    @property
    def scoring(self) -> float:
        """GB of a device in scoring."""
        return self.one.answering.peak / GB + ENCODER

    @property
    def operations(self) -> float:
        """Of a stage, in units of 1e12; from the second stage on."""
        assert self.eight.training is not None
        tokens = STEPS * ROWS * LENGTH
        a_token = self.eight.training.operations / (8 * LENGTH) - self.eight.skipped
        teacher = self.eight.answering.forward(STEPS * ROWS, LENGTH, ANSWER_TOKENS, 8)
        return (a_token * tokens + (teacher if self.eight.extra.teacher else 0.0)) / TERA


ONE = 8
"""Conversations at a time on one device."""


@cache
def measure(model: str) -> tuple[Size, dict[str, Found]]:
    """Size of a model, and sizes of methods on it."""
    answered: dict[str, Any] = {}
    one, eight = sizes_of(model, 1, answered), sizes_of(model, 8, answered)
    specs = {text: methods.parse(text) for text in METHODS}
    return size_of(one.base()), {text: Found(one.of(spec), eight.of(spec)) for text, spec in specs.items()}


def section(model: str) -> str:
    """The part of the page about a model."""
    size, found = measure(model)
    weights = 2 * size.total / GB
    base = found["moextend:scope=own"].scoring
    lines = [
        f"## {model}",
        "",
        f"{size.total:,} parameters, {size.active:,} of them per token; {weights:,.1f} GB in bfloat16.",
        "",
        f"A stage of `{SHOWN[-1]}` trains {found[SHOWN[-1]].one.trained / 1e6:,.1f} M parameters and stores"
        f" {found[SHOWN[-1]].one.stored / GB:,.2f} GB.",
    ]
    heads = " | ".join(f"`{text}`" for text in SHOWN)
    lines += [
        "",
        f"| set-up | {heads} | scoring | host memory per node | hours per stage (`{SHOWN[-1]}`) |",
        f"| --- |{' ---: |' * (len(SHOWN) + 3)}",
    ]
    for setup in SETUPS:
        cells = [_cell(found[text].training(setup, size), setup) for text in SHOWN]
        fits = "no" not in cells[-1]
        host = weights * setup.each
        hours = found[SHOWN[-1]].operations / (setup.devices * PEAK * UTILISATION) / 3600
        lines.append(
            f"| {setup.name} | {' | '.join(cells)} | {_cell(base, setup)} | {host:,.0f} GB | "
            f"{f'{hours:,.2f}' if fits else ''} |"
        )
    own = [text for text in METHODS if found[text].training(SETUPS[0], size) <= SETUPS[0].room]
    lines += ["", f"On one H100 fit: {', '.join(f'`{text}`' for text in own) or 'none of the methods'}."]
    return "\n".join(lines)


def _cell(gigabytes: float, setup: Setup) -> str:
    return f"{gigabytes:,.1f}{'' if gigabytes <= setup.room else ' **no**'}"


def commands() -> str:
    """The commands of the set-ups."""
    rows = [f"| {setup.name} | {setup.command} |" for setup in SETUPS]
    return "\n".join(["## Commands", "", "| set-up | command, on each node |", "| --- | --- |", *rows])


def head() -> str:
    """The text before the models."""
    values: dict[str, Any] = {
        "share": UTILISATION, "peak": PEAK, "steps": STEPS, "rows": ROWS, "length": LENGTH, "image": ASSUMED_TOKENS,
        "text": TEXT_TOKENS, "answer": ANSWER_TOKENS, "prompts": PROMPTS, "encoder": ENCODER, "one": ONE,
        "overhead": OVERHEAD / GB,
    }  # fmt: skip
    return HEAD.format(**values)


def page() -> str:
    """The text of the page."""
    return "\n\n".join([head().rstrip(), commands(), *map(section, MODELS)]) + "\n"


if __name__ == "__main__":
    text = page()
    if "--write" in sys.argv:
        DOC.write_text(text, encoding="utf-8")
    else:
        print(text)
