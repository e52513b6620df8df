"""A GPU: its speed, memory and utilisation, beside the estimates of `--dry-run` and what the CPU computes."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Sequence
from statistics import median

import moextend
from moextend.bench.perf.measure import (
    CPU,
    SIZES,
    TRANSFORMERS,
    Device,
    Meter,
    generate,
    measure,
    opened,
    train,
)
from moextend.util import lookup

CHECKED = (
    (False, TRANSFORMERS), (False, "lora:rank=8"), (False, "moextend:scope=own"),
    (True, "lora:rank=8"), (True, "moextend:scope=own"), (True, "moextend:scope=own,layers=last"),
)  # fmt: skip
"""What `--gpu-check` measures: whether in bfloat16, and a method."""
CHECKS = (
    "model", "type", "method", "step ms", "TFLOP/s", "MFU %", "MB", "estimated MB", "prefill ms", "decode ms",
)  # fmt: skip
"""Columns of `--gpu-check`."""
ROUTINGS = ("moextend:scope=own", "moextend:scope=own,routing=slot", "moextend:scope=own,routing=paper")


def check(name: str, sizes: Sequence[str]) -> Iterator[str]:
    """Lines of Markdown on a device: its speed, memory and utilisation, and how far it is from the CPU."""
    import peft
    import torch
    import transformers

    gpu = torch.cuda.get_device_properties(name) if name != "cpu" else None
    what = f"{gpu.name}, {gpu.total_memory / 2**30:.1f} GiB, CUDA {torch.version.cuda}" if gpu else "cpu"
    versions = {"torch": torch, "transformers": transformers, "peft": peft}
    named = ", ".join(f"{key} {module.__version__}" for key, module in versions.items())
    yield f"### {what}\n\nmoextend {moextend.__version__}, {named}, Python {platform.python_version()}\n"
    speed = {bf16: _product(Device(name, bf16)) for bf16 in (False, True)}
    yield f"Matrix products: {speed[False] / 1e12:,.2f} TFLOP/s in float32, {speed[True] / 1e12:,.2f} in bfloat16.\n"
    yield f"| {' | '.join(CHECKS)} |\n| :--- | :--- | :--- |{' ---: |' * 7}"
    for size in sizes:
        one = lookup.choose("size", size, SIZES, where="--size")
        for bf16, text in CHECKED:
            if size == "wide" and not bf16:
                continue
            device = Device(name, bf16)
            row = measure(one, text, device.now, device)
            reached = row.operations / row.seconds
            numbers = [
                f"{1e3 * row.seconds:,.1f}", f"{reached / 1e12:,.2f}", f"{100 * reached / speed[bf16]:.0f}",
                f"{row.peak_mb:,.0f}", f"{row.estimated_mb:,.0f}", f"{1e3 * row.prefill:,.1f}",
                f"{1e3 * row.decode:,.1f}",
            ]  # fmt: skip
            yield f"| {' | '.join([size, 'bfloat16' if bf16 else 'float32', text, *numbers])} |"
    yield "\n| tiny, after 20 steps in float32 | logits | loss | answers | off |\n| :--- |" + " ---: |" * 4
    for text in ROUTINGS:
        yield f"| {' | '.join([text, *compared(text, Device(name))])} |"
    yield (
        "\nMB: peak of a training without the base's weights. MFU %: share of the speed of matrix products. logits, "
        "loss: largest difference from the CPU, as a share of the largest number. answers: greedy ones of 32 tokens "
        "that are equal. off: whether the logits without the extension are those before it, bit for bit."
    )


def _product(device: Device) -> float:
    """Operations a second of large matrix products."""
    import torch

    width = 8192 if device.is_gpu else 1024
    a = torch.ones(width, width, device=device.name, dtype=torch.bfloat16 if device.bf16 else torch.float32)
    times = []
    for _ in range(8):
        start = device.now()
        a @ a
        times.append(device.now() - start)
    return float(2 * width**3 / median(times))


def compared(text: str, device: Device) -> list[str]:
    """How far an extension that a device trained is from the one that the CPU trained."""
    import torch

    found = []
    for place in (CPU, device):
        model, ids = opened(SIZES["tiny"], place)
        meter = Meter(16, place.now, float, place)
        with torch.no_grad():
            before = model.lm(input_ids=ids).logits
        train(model, ids, text, meter)
        with torch.no_grad():
            logits = model.lm(input_ids=ids).logits.cpu()
            answers = generate(model, ids, 32).cpu()
            moextend.activate(model, "none")
            off = torch.equal(model.lm(input_ids=ids).logits, before)
        found.append((logits, meter.loss, answers, off))
    (ours, loss, told, _), (theirs, other, heard, off) = found
    apart = ((ours - theirs).abs().max() / ours.abs().max()).item()
    equal = int((told == heard).all(1).sum())
    return [
        f"{apart:.1e}",
        f"{abs(loss - other) / loss:.1e}",
        f"{equal} of {len(told)}",
        "equal" if off else "**different**",
    ]
