"""Two short stages of a method on a small model: measured, and as `--dry-run` estimates them.

Memory is what torch's allocator hands out, by its profiler; operations are counted by `flops.Counter` around the whole
stage and the whole scoring, whatever the method computes there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

import moextend
from moextend import Conversation, MultimodalLM
from moextend.bench import methods
from moextend.bench.methods.method import Stage
from moextend.bench.perf.measure import Ids, peak
from moextend.bench.run.estimate import Plan
from moextend.bench.sequence import Base, Scoring, SequenceSpec
from moextend.bench.sequence import Stage as Stage_
from moextend.bench.task import Data, TaskSpec
from moextend.model import loading
from moextend.training import flops
from moextend.training.estimate import Step, bytes_of
from moextend.training.settings import Settings, Training

ITEMS, HELD, GENERIC, STEPS, ROWS, QUESTION, ANSWER, NEW = 29, 3, 4, 8, 4, 40, 8, 4
TASKS = ("one", "two")
MID = {
    "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 6, "num_attention_heads": 8,
    "num_key_value_heads": 4, "num_local_experts": 8, "num_experts_per_tok": 2, "vocab_size": 8192,
    "max_position_embeddings": 512, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
"""A Mixtral of 27 million parameters."""


def _mid() -> Any:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model("mixtral", **MID))


def _empty() -> Any:
    with torch.device("meta"):
        return _mid()


BASES: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
    "tiny": (lambda: moextend.load("tiny").lm, lambda: loading.skeleton("tiny")),
    "mid": (_mid, _empty),
}
"""Name -> a small base, real and on device meta."""


@dataclass
class Measured:
    """What a stage took."""

    trained: int
    stored: float
    """Bytes."""
    operations: float
    """Of all that learning it computed."""
    peak: float
    """Bytes."""
    scoring: float
    """Operations of answers to ROWS prompts after it."""
    scoring_peak: float


def _rows(count: int, seed: int) -> list[Conversation]:
    ids = torch.randint(
        5, 100, (count, QUESTION + ANSWER), generator=torch.Generator().manual_seed(seed)
    ).tolist()
    words = [[" ".join(map(str, row[:QUESTION])), " ".join(map(str, row[QUESTION:]))] for row in ids]
    return [Conversation(((asked, answer),), closed=False) for asked, answer in words]


def measure(spec: str, base: str, folder: Path) -> list[Measured]:
    """Two stages of a method."""
    model, method, found = MultimodalLM(BASES[base][0](), Ids()), methods.parse(spec).make(), []
    model.lm.set_experts_implementation("grouped_mm")
    data = {task: _rows(ITEMS, i) for i, task in enumerate(TASKS)}
    generic = [Conversation(((" ".join(row.turns[0]), ""),)) for row in _rows(GENERIC, 9)]
    method.start(model, 0)
    for index, task in enumerate(TASKS, 1):
        stage = Stage(
            index, task, data[task], _rows(HELD, 10 + index), generic, index, folder / task,
            [(name, folder / name) for name in TASKS[: index - 1]], lambda name: data[name], batch_size=ROWS,
        )  # fmt: skip

        def loop(
            *, learning_rate: Any = None, data: Any = None, steps: Any = None, phase: str = "train",
            stage: Stage = stage, **more: Any,
        ) -> Any:  # fmt: skip
            settings = Settings(steps=steps or STEPS, batch_size=ROWS, learning_rate=learning_rate or 1e-4)
            return moextend.train(model, data or stage.data, settings, folder=stage.folder / phase, **more)

        before, bytes_ = bytes_of(model.lm.parameters()), [0]
        with flops.Counter() as count, peak(bytes_):
            facts = method.learn(model, stage, loop)
            method.prepare_inference(model, stage)
            method.save(model, stage)
        operations = count.total
        stored = sum(path.stat().st_size for path in stage.folder.glob("*.safetensors"))
        method.select(model, task, TASKS[:index])
        ids, asked = torch.randint(5, 100, (ROWS, QUESTION)), [0]
        with flops.Counter() as count, peak(asked), torch.no_grad():
            model.lm.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=NEW, min_new_tokens=NEW,
                do_sample=False,
            )  # fmt: skip
        weights = bytes_of(model.lm.parameters())
        found.append(
            Measured(
                facts["trained_parameters"], stored, operations, before + bytes_[0], count.total, weights + asked[0]
            )
        )  # fmt: skip
    return found


@dataclass(frozen=True)
class FixedPlan(Plan):
    """The tasks of `measure`."""

    tokens: int = QUESTION + ANSWER

    def length(self, name: str) -> int:
        """As measured."""
        return self.tokens

    def items(self, name: str, split: Any) -> int:
        """As measured."""
        return ITEMS + HELD if split == "train" else ROWS

    @cached_property
    def step(self) -> Step:
        """As measured."""
        return replace(super().step, labelled=ANSWER)


def estimate(spec: str, base: str) -> list[Measured]:
    """The same, estimated."""
    sequence = SequenceSpec(
        sequence="s", version=1, base=Base(model="tiny", dtype="float32"), stages=[Stage_(task=task) for task in TASKS],
        train=Training(steps=STEPS, batch_size=ROWS, learning_rate=1e-4), scoring=Scoring(batch_size=ROWS),
    )  # fmt: skip
    task = TaskSpec(task="one", version=1, kind="vqa", max_new_tokens=NEW, data=Data(path="none"))
    plan = FixedPlan(sequence, dict.fromkeys(TASKS, task), Path(), BASES[base][1])
    asked = replace(plan, tokens=QUESTION)
    parsed, found = methods.parse(spec), []
    size, answers = plan.size(parsed), asked.size(parsed)
    for before in range(len(TASKS)):
        cost, memory = plan.learning(size, {"one": STEPS}, before), plan.memory(size, before + 1)
        scored = asked.scoring(["one"], answers, before)["one"]
        peaks = [memory[name] * 1e9 for name in ("training", "scoring")]
        found.append(Measured(size.trained, size.stored, cost, peaks[0], scored or 0.0, peaks[1]))
    return found
