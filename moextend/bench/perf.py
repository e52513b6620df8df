"""Speed and memory of training and answering: ``python -m moextend.bench.perf --size mid`` (docs/performance.md).

The first stage of each method is measured as a run trains it, and answers after it, one method after another in one
process; the first row is a step of full fine-tuning by transformers and torch alone.
"""

from __future__ import annotations

import gc
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Annotated, Any, Literal, NamedTuple

import typer

import moextend
from moextend import MultimodalLM
from moextend.bench import methods
from moextend.util import lookup
from moextend.util.entry import run_app
from moextend.util.quiet import quiet_process

TRANSFORMERS = "transformers"
EXACT = "moextend:scope=own,layers=last,width=0.25"
CACHED = ", cached prefix"
"""Behind a method: the step of a later epoch with `cache_prefix`."""
METHODS = (
    TRANSFORMERS, "full-ft", "lora:rank=8,experts=false", "lora:rank=8", EXACT, f"{EXACT}{CACHED}",
    "moextend:scope=own,layers=last,width=1", "moextend:scope=own,routing=paper,layers=last",
    "moextend:scope=own,routing=slot,layers=last",
)  # fmt: skip
WARM = 3
"""Steps before the first one that is measured: they make the optimizer's state and fill the cache."""
ROWS = 8
COLUMNS = (
    "method", "params", "step ms", "of transformers", "GFLOP", "MB", "of transformers", "prefill ms", "decode ms",
)  # fmt: skip
app = typer.Typer(add_completion=False)


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


SIZES = {"tiny": Size(_tiny, 64, 32, 21), "mid": Size(_mid, 256, 16, 5)}


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
    prefill: float
    """Seconds until the first token of the answers."""
    decode: float
    """Seconds of the next token of all rows."""


@app.command()
def main(
    size: Annotated[list[str] | None, typer.Option(help="tiny or mid; may be repeated.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; default: torch's own number.")] = None,
    clock: Annotated[Literal["wall", "cpu"], typer.Option(help="cpu: if others use the machine.")] = "wall",
    method: Annotated[list[str] | None, typer.Option(help="Another method, as in bench run; repeatable.")] = None,
) -> None:  # fmt: skip
    """Print Markdown tables of steps of training and of answers."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # torch's profiler prints messages
    import torch

    chosen = {name: lookup.choose("size", name, SIZES, where="--size") for name in size or ["mid"]}
    quiet_process()
    if threads:
        torch.set_num_threads(threads)
    now = time.perf_counter if clock == "wall" else time.process_time
    for name, one in chosen.items():
        typer.echo(f"\n### {name}: training and answering\n")
        typer.echo(f"| {' | '.join(COLUMNS)} |\n| :--- |{' ---: |' * 8}")
        first: Row | None = None
        for each in dict.fromkeys([*METHODS, *(method or [])]):
            row = measure(one, each, now)
            first = first or row
            numbers = [
                f"{row.trained:,}", f"{1e3 * row.seconds:,.1f}", f"{row.seconds / first.seconds:.2f}x",
                f"{row.operations / 1e9:,.1f}", f"{row.peak_mb:,.1f}", f"{row.peak_mb / first.peak_mb:.2f}x",
                f"{1e3 * row.prefill:,.1f}", f"{1e3 * row.decode:,.1f}",
            ]  # fmt: skip
            typer.echo(f"| {' | '.join([each, *numbers])} |")


class Ids:
    """A tokenizer for texts of token ids: "17 903"."""

    bos_token_id = pad_token_id = eos_token_id = 0

    def __call__(self, text: str, add_special_tokens: bool = True) -> dict[str, list[int]]:
        """Ids in a text, without special tokens."""
        return {"input_ids": [int(word) for word in text.split()]}


class Meter:
    """Is called after each step of a training: WARM steps, one under the counter, and those that are measured."""

    def __init__(self, repeats: int, now: Callable[[], float]) -> None:
        from moextend.training.flops import Counter

        self.steps, self.now = WARM + 1 + repeats, now
        self.times, self.memory, self.count = list[float](), [0], Counter()
        self._start, self._around = 0.0, ExitStack()

    def begin(self) -> None:
        """Called before the training."""
        self._around.enter_context(peak(self.memory))

    def __call__(self, done: int, total: int) -> None:
        """Called after `done` steps."""
        if done > WARM + 1:
            self.times.append(self.now() - self._start)
        if done in (WARM, WARM + 1):
            self._around.close()
        if done == WARM:
            self._around.enter_context(self.count)
        self._start = self.now()


@contextmanager
def peak(found: list[int]) -> Iterator[None]:
    """Context whose peak memory of tensors, above the memory before it, is put into `found`, in bytes."""
    import torch

    gc.collect()  # what is freed inside must not count
    cpu = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=cpu, profile_memory=True) as seen:
        yield
    results: Any = seen.profiler
    held = 0
    events = [event for event in results.kineto_results.events() if event.name() == "[memory]"]
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        found[0] = max(found[0], held)


def measure(size: Size, text: str, now: Callable[[], float]) -> Row:
    """Measures a method, or TRANSFORMERS, in the time that `now` gives.

    Raises:
        InputError: there is no such method, or its settings are wrong.
    """
    import torch

    model = size.make()
    model.tokenizer, model.chat = Ids(), None
    model.lm.set_experts_implementation("eager")  # as in a run
    before = sum(p.nbytes for p in model.parameters())
    drawn = torch.Generator().manual_seed(1)
    ids = torch.randint(5, model.lm.config.vocab_size, (ROWS, size.length), generator=drawn)
    meter = Meter(size.repeats, now)
    trained = (_plain if text == TRANSFORMERS else _method)(model, ids, text, meter)
    model.eval()
    first, all_ = (_answer(model, ids, tokens, size.repeats, now) for tokens in (1, 1 + size.new_tokens))
    memory = meter.memory[0] + sum(p.nbytes for p in model.parameters()) - before
    seconds = median(meter.times)
    return Row(trained, seconds, meter.count.total, memory / 1e6, first, (all_ - first) / size.new_tokens)


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


def _method(model: MultimodalLM, ids: Any, text: str, meter: Meter) -> int:
    """The first stage of a method; the trained parameters."""
    named, cached, _ = text.partition(CACHED)
    method = methods.parse(named, where="--method").make()
    data = [moextend.Conversation((("", " ".join(map(str, row))),), closed=False) for row in ids.tolist()]

    def loop(
        *, learning_rate: Any = None, data: Any = None, steps: Any = None, phase: str = "train", **hooks: Any
    ) -> Any:  # fmt: skip
        settings = moextend.Settings(
            steps=steps or meter.steps, batch_size=len(ids), learning_rate=learning_rate or 1e-4, schedule="constant",
            cache_prefix=bool(cached),
        )  # fmt: skip
        on_step = meter if phase == "train" else None
        if on_step:
            meter.begin()
        return moextend.train(
            model, data or stage.data, settings, folder=stage.folder / phase, on_step=on_step, **hooks,
        )  # fmt: skip

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
            model.lm.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=tokens,
                min_new_tokens=tokens, do_sample=False, pad_token_id=0,
            )  # fmt: skip
        times.append(now() - start)
    return median(times[1:])


if __name__ == "__main__":
    run_app(app, "python -m moextend.bench.perf")
