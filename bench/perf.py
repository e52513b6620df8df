"""Speed and memory of training and answering: ``python -m moextend.bench.perf --size mid`` (docs/performance.md).

The first stage of each method is measured as a run trains it, and answers after it, one method after another in one
process; the first row is a step of full fine-tuning by transformers and torch alone.
"""

from __future__ import annotations

import gc
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from moextend.bench.report.formats import markdown
from moextend.bench.report.table import Column, Table, Value, fixed, short, text
from moextend.util import lookup
from moextend.util.entry import run_app

if TYPE_CHECKING:
    from moextend import MultimodalLM

Clock = Literal["wall", "cpu"]
Device = Literal["cpu", "cuda"]
Dtype = Literal["float32", "bfloat16"]
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
COLUMNS = [
    Column("method", "method", numeric=False), Column("trained", "params"), Column("seconds", "step ms"),
    Column("of_step", "of transformers"), Column("operations", "GFLOP"), Column("peak_mb", "MB"),
    Column("of_peak", "of transformers"), Column("prefill", "prefill ms"), Column("decode", "decode ms"),
]  # fmt: skip
app = typer.Typer(add_completion=False)


@dataclass(frozen=True)
class Size:
    """A model and the shape of its batches."""

    about: str
    make: Callable[[], MultimodalLM]
    length: int
    """Tokens per row, of `ROWS` in a step; all of them are learned."""
    new_tokens: int
    """Decoded tokens per row."""
    repeats: int
    """Steps and answers that are measured."""


ROWS = 8


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


SIZES = {
    "tiny": Size("the package's tiny base, 4 layers of 4 experts, top-2", _tiny, 64, 32, 21),
    "mid": Size("a random Mixtral of 113M parameters, 8 layers of 8 experts, top-2", _mid, 256, 16, 5),
}


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


@app.command()
def main(
    size: Annotated[list[str] | None, typer.Option(help="tiny or mid; may be repeated.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; default: torch's own number.")] = None,
    device: Annotated[Device, typer.Option(help="Where it computes.")] = "cpu",
    dtype: Annotated[Dtype, typer.Option(help="Type of the base.")] = "float32",
    clock: Annotated[Clock, typer.Option(help="cpu: if others use the machine.")] = "wall",
    method: Annotated[list[str] | None, typer.Option(help="Another method, as in bench run; repeatable.")] = None,
) -> None:  # fmt: skip
    """Print Markdown tables of steps of training and of answers."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # torch's profiler prints messages
    import torch

    from moextend.util.quiet import quiet_process

    chosen = {name: lookup.choose("size", name, SIZES, where="--size") for name in size or ["mid"]}
    quiet_process()
    if threads:
        torch.set_num_threads(threads)
    how = f"{dtype} on {device}, {torch.get_num_threads()} threads; {clock} time"
    for name, one in chosen.items():
        rows = []
        for each in dict.fromkeys([*METHODS, *(method or [])]):
            typer.echo(f"{name}: {each}", err=True)
            rows.append(measure(one, each, device=device, dtype=dtype, clock=clock))
        typer.echo(markdown([_table(name, one, rows, how)]))


def _table(name: str, size: Size, rows: Sequence[Row], how: str) -> Table:
    cells = [[text(row.name), short(row.trained), *_numbers(row, rows[0])] for row in rows]
    notes = [
        f"{size.about}. A step: {ROWS} rows of {size.length} tokens; {how}, medians.",
        "transformers: a step of full fine-tuning without moextend. GFLOP: counted in a step. MB: peak memory of the "
        "training without the base's weights. prefill: until the first token of all rows; decode: the next one.",
    ]
    return Table(f"{name}-steps", f"{name}: training and answering", COLUMNS, [cells], notes)


def _numbers(row: Row, first: Row) -> list[Value]:
    step, flop, peak, prefill, decode = (
        fixed(number, f",.{0 if number >= 100 else 1}f")
        for number in (
            1e3 * row.seconds, row.operations / 1e9, row.peak_mb, 1e3 * row.prefill, 1e3 * row.decode,
        )
    )  # fmt: skip
    ratios = (row.seconds / first.seconds, row.peak_mb / first.peak_mb)
    of_step, of_peak = (fixed(ratio, ".2f", "x") for ratio in ratios)
    return [step, of_step, flop, peak, of_peak, prefill, decode]


class Ids:
    """A tokenizer for texts of token ids: "17 903"."""

    pad_token_id = eos_token_id = 0

    def __call__(self, text: str, add_special_tokens: bool = True) -> dict[str, list[int]]:
        """Ids in a text, without special tokens."""
        return {"input_ids": [int(word) for word in text.split()]}


@dataclass
class Meter:
    """Is called after each step of a training: WARM steps, one under the counter, and those that are measured."""

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
        """Steps of a training."""
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


def measure(size: Size, text: str, *, device: str, dtype: str, clock: Clock) -> Row:
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
    ids = torch.randint(5, model.lm.config.vocab_size, (ROWS, size.length), generator=drawn)
    meter = Meter(device, clock, size.repeats)
    train = _plain if text == TRANSFORMERS else _method
    trained = train(model, ids, text, meter)
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


def _plain(model: MultimodalLM, ids: Any, text: str, meter: Meter) -> int:
    """Steps of full fine-tuning with transformers' loss and torch's optimizer; the trained parameters."""
    import torch

    ids, lm = ids.to(model.device), model.lm.train()
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


if __name__ == "__main__":
    run_app(app, "python -m moextend.bench.perf")
