"""Steps and answers of a method on a small model, measured.

The first stage of a method is measured as a run trains it, and answers after it. TRANSFORMERS is a step of full
fine-tuning by transformers and torch alone.
"""

from __future__ import annotations

import gc
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import moextend
from moextend import MultimodalLM
from moextend.bench import methods

TRANSFORMERS = "transformers"
CACHED = ", cached prefix"
"""Behind a method: the step of a later epoch with `cache_prefix`."""
WARM = 3
"""Steps before the first one that is measured: they make the optimizer's state and fill the cache."""
ROWS = 8


class Size(NamedTuple):
    """A model and the shape of its batches."""

    make: Callable[[], MultimodalLM]
    length: int
    """Tokens of each of the `ROWS` of a step; all of them are learned."""
    new_tokens: int
    """Decoded tokens per row."""
    repeats: int
    """Steps and answers that are measured."""


def _tiny() -> MultimodalLM:
    return moextend.load("tiny")


def _mid() -> MultimodalLM:
    """A random Mixtral of 113M parameters."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    config = AutoConfig.for_model(
        "mixtral", hidden_size=512, intermediate_size=1024, num_hidden_layers=8, num_attention_heads=8,
        num_key_value_heads=8, num_local_experts=8, num_experts_per_tok=2, vocab_size=4096,
        max_position_embeddings=1024,
    )  # fmt: skip
    return MultimodalLM(AutoModelForCausalLM.from_config(config), None)


def _wide() -> MultimodalLM:
    """A random OLMoE of the widths of OLMoE-1B-7B and four of its 16 layers: 1.9 billion parameters in bfloat16."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    config = AutoConfig.for_model("olmoe", intermediate_size=1024, num_hidden_layers=4)
    return MultimodalLM(AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16), None)


SIZES = {"tiny": Size(_tiny, 64, 32, 21), "mid": Size(_mid, 256, 16, 5), "wide": Size(_wide, 512, 16, 5)}


class Device(NamedTuple):
    """Where a method is measured, and how its steps compute."""

    name: str = "cpu"
    bf16: bool = False

    @property
    def is_gpu(self) -> bool:
        """Whether work is done behind the host's back."""
        return self.name != "cpu"

    def now(self) -> float:
        """Seconds, when all work is done that was asked for."""
        import torch

        if self.is_gpu:
            torch.cuda.synchronize()
        return time.perf_counter()


CPU = Device()


class Row(NamedTuple):
    """Medians of a method."""

    trained: int
    """Parameters."""
    seconds: float
    """Of a step."""
    operations: int
    """Of a step, counted."""
    peak_mb: float
    """Peak memory of a training above the base's weights: what the method adds, gradients, AdamW, activations."""
    estimated_mb: float
    """The same by the formula of `--dry-run`."""
    prefill: float
    """Seconds until the first token of the answers."""
    decode: float
    """Seconds of the next token of all rows."""


class Ids:
    """A tokenizer for texts of token ids: "17 903"."""

    bos_token_id = pad_token_id = eos_token_id = 0

    def __call__(self, text: str, add_special_tokens: bool = True) -> dict[str, list[int]]:
        """Ids in a text, without special tokens."""
        return {"input_ids": [int(word) for word in text.split()]}


class Meter:
    """Is called after each step of a training: WARM steps, one under the counter, and those that are measured."""

    def __init__(
        self, repeats: int, now: Callable[[], float], estimate: Callable[[], float], device: Device
    ) -> None:
        from moextend.training.flops import Counter

        self.steps, self.now, self.device = WARM + 1 + repeats, now, device
        self.times, self.memory, self.count, self.estimated = list[float](), [0], Counter(), 0.0
        self.loss, self._start, self._around, self._estimate = 0.0, 0.0, ExitStack(), estimate

    def begin(self) -> None:
        """Called before the training."""
        self._around.enter_context(peak(self.memory, self.device))

    def __call__(self, done: int, total: int) -> None:
        """Called after `done` steps."""
        if done == 1:
            self.estimated = self._estimate()
        if done > WARM + 1:
            self.times.append(self.now() - self._start)
        if done in (WARM, WARM + 1):
            self._around.close()
        if done == WARM:
            self._around.enter_context(self.count)
        self._start = self.now()


@contextmanager
def peak(found: list[int], device: Device = CPU) -> Iterator[None]:
    """Context whose peak memory of tensors, above the memory before it, is put into `found`, in bytes."""
    import torch

    gc.collect()  # what is freed inside must not count
    if device.is_gpu:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        yield
        found[0] = torch.cuda.max_memory_allocated() - before
        return
    cpu = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=cpu, profile_memory=True) as seen:
        yield
    results: Any = seen.profiler
    held = 0
    events = [event for event in results.kineto_results.events() if event.name() == "[memory]"]
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        found[0] = max(found[0], held)


def measure(size: Size, text: str, now: Callable[[], float], device: Device = CPU) -> Row:
    """Measures a method, or TRANSFORMERS, in the time that `now` gives.

    Raises:
        InputError: there is no such method, or its settings are wrong.
    """
    from moextend.training.estimate import Estimator, Step

    model, ids = opened(size, device)
    before = sum(p.nbytes for p in model.parameters())
    estimator, step = Estimator(model.lm), Step(ROWS, size.length, size.length, bf16=device.bf16)

    def estimate() -> float:
        cost = estimator.training(step)
        return cost.frozen + cost.states + cost.working

    meter = Meter(size.repeats, now, estimate, device)
    trained = (_plain if text == TRANSFORMERS else train)(model, ids, text, meter)
    model.eval()
    first, all_ = (_answer(model, ids, tokens, size.repeats, now) for tokens in (1, 1 + size.new_tokens))
    memory = meter.memory[0] + sum(p.nbytes for p in model.parameters()) - before
    numbers = (median(meter.times), meter.count.total, memory / 1e6, (meter.estimated - before) / 1e6)
    return Row(trained, *numbers, first, (all_ - first) / size.new_tokens)


def opened(size: Size, device: Device) -> tuple[MultimodalLM, Any]:
    """The model on a device, and the ids of its batch: [ROWS, length]."""
    import torch

    model = size.make()
    model.tokenizer, model.chat = Ids(), None
    model.lm.set_experts_implementation("grouped_mm" if device.is_gpu else "eager")  # as in a run
    model.lm.to(torch.bfloat16 if device.bf16 else torch.float32)
    drawn = torch.Generator().manual_seed(1)
    ids = torch.randint(5, model.lm.config.vocab_size, (ROWS, size.length), generator=drawn)
    return model.to(device.name), ids.to(device.name)


def _plain(model: MultimodalLM, ids: Any, text: str, meter: Meter) -> int:
    """Steps of full fine-tuning with transformers' loss and torch's optimizer; the trained parameters."""
    import torch

    lm = model.lm.train()
    lm.requires_grad_(True)
    optimizer = torch.optim.AdamW(lm.parameters(), lr=0.0, fused=True)
    meter.begin()
    for done in range(meter.steps):
        lm(input_ids=ids, labels=ids).loss.backward()
        torch.nn.utils.clip_grad_norm_(lm.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        meter(done + 1, meter.steps)
    return int(lm.num_parameters())


def train(model: MultimodalLM, ids: Any, text: str, meter: Meter) -> int:
    """The first stage of a method; the trained parameters."""
    named, cached, _ = text.partition(CACHED)
    method = methods.parse(named, where="--method").make()
    data = [moextend.Conversation((("", " ".join(map(str, row))),), closed=False) for row in ids.tolist()]

    def loop(
        *, learning_rate: Any = None, data: Any = None, steps: Any = None, phase: str = "train", **hooks: Any
    ) -> Any:  # fmt: skip
        settings = moextend.Settings(
            steps=steps or meter.steps, batch_size=len(ids), learning_rate=learning_rate or 1e-4, schedule="constant",
            cache_prefix=bool(cached), bf16=meter.device.bf16,
        )  # fmt: skip
        on_step = meter if phase == "train" else None
        if on_step:
            meter.begin()
        report = moextend.train(
            model, data or stage.data, settings, folder=stage.folder / phase, on_step=on_step, **hooks,
        )  # fmt: skip
        meter.loss = report.loss_last
        return report

    with tempfile.TemporaryDirectory() as folder:
        stage = methods.Stage(1, "perf", data, data, [], 0, Path(folder), batch_size=len(ids))
        method.start(model, 0)
        facts = method.learn(model, stage, loop)
        method.prepare_inference(model, stage)
        method.save(model, stage)
        method.select(model, "perf", ["perf"])
        return int(facts["trained_parameters"])


def _answer(model: MultimodalLM, ids: Any, tokens: int, repeats: int, now: Callable[[], float]) -> float:
    """Seconds in which each row gets so many new tokens."""
    import torch

    times = []
    for _ in range(1 + repeats):
        start = now()
        with torch.no_grad():
            generate(model, ids, tokens)
        times.append(now() - start)
    return median(times[1:])


def generate(model: MultimodalLM, ids: Any, tokens: int) -> Any:
    """Greedy answers of so many tokens, behind their prompts."""
    import torch

    return model.lm.generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=tokens, min_new_tokens=tokens,
        do_sample=False, pad_token_id=0,
    )  # fmt: skip
