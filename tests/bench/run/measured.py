"""Runs two short stages of a method on a small model, and measures what `--dry-run` estimates.

Memory is what torch's allocator hands out, by its profiler; operations are counted by `flops.Counter` around the whole
stage and the whole scoring, whatever the method computes there.
"""

from __future__ import annotations

import gc
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

import moextend
from moextend import Conversation, MultimodalLM, Prompt
from moextend.bench import methods
from moextend.bench.methods.method import Method, Stage
from moextend.bench.run.estimate import Plan
from moextend.bench.sequence import Base, Scoring, SequenceSpec
from moextend.bench.sequence import Stage as Stage_
from moextend.bench.task import Data, TaskSpec
from moextend.model import loading
from moextend.model.batches import Collator
from moextend.model.generation import generate, prompt_ids
from moextend.model.multimodal import IGNORE
from moextend.training import flops
from moextend.training.estimate import Step, bytes_of
from moextend.training.loop import Report, train
from moextend.training.settings import Settings, Training
from tests.toys import toy_tokenizer

ITEMS, HELD, GENERIC, STEPS, ROWS, QUESTION, ANSWER, ASKED, NEW = 29, 3, 4, 2, 4, 40, 8, 8, 4
TASKS = ("one", "two")
SPECS = (
    "zero-shot", "full-ft", "lora", "lora-per-task", "lora-per-task:task=inferred", "replay", "replay:over=full-ft",
    "ewc:items=8", "ewc:over=full-ft,items=8", "lwf", "lwf:over=full-ft", "o-lora", "moe-lora",
    "moextend:probe_steps=2", "moextend:scope=auto,layers=first", "moextend:scope=all,layers=first,memory_tokens=64",
    "moextend:routing=paper,layers=first", "moextend:routing=slot,layers=first",
    "moextend:scope=all,retention=latent,layers=first,memory_tokens=96,memory_sample=48",
)  # fmt: skip
MID = {
    "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 6, "num_attention_heads": 8,
    "num_key_value_heads": 4, "num_local_experts": 8, "num_experts_per_tok": 2, "vocab_size": 8192,
    "max_position_embeddings": 512, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
"""A Mixtral of 27 million parameters."""


@dataclass(frozen=True)
class Small:
    """A small base, real and on device meta."""

    make: Callable[[], MultimodalLM]
    skeleton: Callable[[], Any]
    bf16: bool = False
    checkpointing: bool = False


def _mid(dtype: torch.dtype = torch.float32) -> MultimodalLM:
    torch.manual_seed(0)
    lm = AutoModelForCausalLM.from_config(AutoConfig.for_model("mixtral", **MID)).to(dtype)
    return MultimodalLM(lm, toy_tokenizer())


def _empty() -> Any:
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(AutoConfig.for_model("mixtral", **MID))


BASES = {
    "tiny": Small(lambda: moextend.load("tiny"), lambda: loading.skeleton("tiny")),
    "mid": Small(_mid, _empty),
    "mid bf16": Small(lambda: _mid(torch.bfloat16), _empty, bf16=True, checkpointing=True),
}


@dataclass
class Measured:
    """What a stage took."""

    trained: int
    stored: int
    """Bytes."""
    operations: float
    """Of all that learning it computed."""
    peak: float
    """Bytes."""
    scoring: float
    """Operations of answers to ASKED prompts after it."""
    scoring_peak: float


def conversations(model: MultimodalLM, count: int, seed: int) -> list[Conversation]:
    """Conversations of equal length, of words that the tokenizer knows."""
    known = [word for word in sorted(model.tokenizer.get_vocab()) if word.isalnum()]
    drawn = torch.Generator().manual_seed(seed)

    def words(many: int) -> str:
        return " ".join(known[i] for i in torch.randint(len(known), (many,), generator=drawn).tolist())

    return [Conversation(((words(QUESTION), " " + words(ANSWER)),)) for _ in range(count)]


def allocated(work: Callable[[], Any]) -> float:
    """Most bytes that torch's CPU allocator holds during `work`, above those at its start."""
    gc.collect()
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as found:
        work()
    results: Any = found.profiler
    events = [event for event in results.kineto_results.events() if event.name() == "[memory]"]
    now = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return float(most)


def _learn(method: Method, model: MultimodalLM, stage: Stage, loop: Any, facts: dict[str, Any]) -> None:
    """What a run does in a stage."""
    facts.update(method.learn(model, stage, loop))
    facts.update(method.prepare_inference(model, stage))
    method.save(model, stage)


def measure(spec: str, base: Small, folder: Path) -> list[Measured]:
    """Two stages of a method."""
    model, method, found = base.make(), methods.parse(spec).make(), []
    model.lm.set_experts_implementation("grouped_mm")
    data = {task: conversations(model, ITEMS, i) for i, task in enumerate(TASKS)}
    held = {task: conversations(model, HELD, 10 + i) for i, task in enumerate(TASKS)}
    generic = [
        Conversation(((row.turns[0][0] + row.turns[0][1], ""),)) for row in conversations(model, GENERIC, 9)
    ]
    method.start(model, 0)
    for index, task in enumerate(TASKS, 1):
        stage = Stage(
            index, task, data[task], held[task], generic, index, folder / task,
            [(name, folder / name) for name in TASKS[: index - 1]], lambda name: data[name], batch_size=ROWS,
        )  # fmt: skip
        facts: dict[str, Any] = {}

        def loop(
            *, learning_rate: float | None = None, data: Any = None, extra_loss: Any = None, rates: Any = None,
            steps: int | None = None, phase: str = "train", stage: Stage = stage,
        ) -> Report:  # fmt: skip
            settings = Settings(
                steps=steps or STEPS, batch_size=ROWS, learning_rate=learning_rate or 1e-4, bf16=base.bf16,
                gradient_checkpointing=base.checkpointing,
            )  # fmt: skip
            where = stage.folder / f"{phase}-in-flight"
            return train(
                model, data or stage.data, settings, folder=where, extra_loss=extra_loss, rates=rates
            )

        before = bytes_of(model.lm.parameters())
        with flops.Counter() as count:
            peak = allocated(partial(_learn, method, model, stage, loop, facts))
            operations = float(count.total)
        stored = sum(path.stat().st_size for path in stage.folder.glob("*.safetensors"))
        method.select(model, task, TASKS[:index])
        prompts = [Prompt(row.turns[0][0]) for row in data[task][:ASKED]]
        with flops.Counter() as count:
            asked = allocated(partial(answers, model, prompts))
        found.append(
            Measured(
                facts["trained_parameters"], stored, operations, before + peak, float(count.total),
                bytes_of(model.lm.parameters()) + asked,
            )
        )  # fmt: skip
    return found


def answers(model: MultimodalLM, prompts: Sequence[Prompt]) -> None:
    """Answers of exactly NEW tokens."""
    model.tokenizer.eos_token_id, before = None, model.tokenizer.eos_token_id
    try:
        generate(model, prompts, max_new_tokens=NEW, batch_size=ROWS)
    finally:
        model.tokenizer.eos_token_id = before


@dataclass(frozen=True)
class FixedPlan(Plan):
    """The tasks of `measure`."""

    lengths: tuple[int, int, int] = (0, 0, 0)
    """Tokens of a conversation, those that are learned, and tokens of a prompt."""
    asks: bool = False
    """Whether a task's tokens are those of its prompts."""
    generic = GENERIC

    def length(self, name: str) -> int:
        """As measured."""
        return self.lengths[2] if self.asks else self.lengths[0]

    def items(self, name: str, split: Any) -> int:
        """As measured."""
        return ITEMS + HELD if split == "train" else ASKED

    @cached_property
    def step(self) -> Step:
        """As measured."""
        return replace(super().step, labelled=self.lengths[1])


def estimate(spec: str, base: Small) -> list[Measured]:
    """The same, estimated; the tokenizer of the real base says how many tokens there are."""
    model = base.make()
    rows = conversations(model, 1, 0)
    collate = Collator.of(model)
    lengths = (
        collate.ids(rows[:1])["input_ids"].shape[1],
        int((collate(rows)["labels"] != IGNORE).sum()),
        len(prompt_ids(model, Prompt(rows[0].turns[0][0]))),
    )
    del model
    train = Training(
        steps=STEPS,
        batch_size=ROWS,
        learning_rate=1e-4,
        bf16=base.bf16,
        gradient_checkpointing=base.checkpointing,
    )
    sequence = SequenceSpec(
        sequence="s", version=1, base=Base(model="tiny", dtype="bfloat16" if base.bf16 else "float32"), train=train,
        stages=[Stage_(task=task) for task in TASKS], scoring=Scoring(batch_size=ROWS),
    )  # fmt: skip
    task = TaskSpec(task="one", version=1, kind="vqa", max_new_tokens=NEW, data=Data(path="none"))
    plan = FixedPlan(sequence, dict.fromkeys(TASKS, task), Path(), base.skeleton, lengths)
    asked = replace(plan, asks=True)
    parsed, found = methods.parse(spec), []
    size, answers = plan.size(parsed), asked.size(parsed)
    for before in range(len(TASKS)):
        cost = plan.learning(size, ["one"], {"one": STEPS}, before)
        scored, memory = asked.scoring(["one"], answers, before)["one"], plan.memory(size, before + 1)
        assert scored is not None
        peaks = [memory[name].get("peak_gb", 0) * 1e9 for name in ("training", "scoring")]
        found.append(
            Measured(size.trained, round(size.stored), sum(cost.values()), peaks[0], scored, peaks[1])
        )
    return found


def main() -> None:
    """Prints estimate divided by measurement: ``python -m tests.bench.run.measured [BASE] [METHOD ...]``."""
    base, *specs = sys.argv[1:] or ["tiny"]
    keys = [each.name for each in fields(Measured)]
    print("method", *keys, sep=" | ")
    for spec in specs or SPECS:
        with tempfile.TemporaryDirectory() as folder:
            real = measure(spec, BASES[base], Path(folder))
        for index, (one, other) in enumerate(zip(estimate(spec, BASES[base]), real, strict=True), 1):
            ratios = [getattr(one, key) / max(1, getattr(other, key)) for key in keys]
            print(
                spec,
                index,
                *(f"{ratio:.3f}" for ratio in ratios),
                *vars(other).values(),
                sep=" | ",
                flush=True,
            )


if __name__ == "__main__":
    main()
