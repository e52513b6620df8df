"""Measures how often `scope: auto` assigns inputs to an extension: inputs of its task, similar and unrelated ones.

Task inference uses frozen features, so that no training is needed, only the tiny base and the generated world.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from random import Random

from moextend import ImageRef, MultimodalLM, Prompt
from moextend.bench.world.data import asked_scenes
from moextend.bench.world.render import png
from moextend.bench.world.scenes import Split
from moextend.bench.world.views import view_of
from moextend.extension import task_inference

TASKS = ("attributes", "counting", "reading", "position", "comparison")
LEARNED = TASKS[:3]
"""Tasks of the sequence `tiny`. The other tasks are similar, but belong to no extension."""
TEMPLATE = "<image> Q {} A:"
"""Prompt of the tasks."""
INPUTS = task_inference.INPUTS
"""Number of training prompts for the statistics of an extension, as in `extend`."""


@dataclass(frozen=True)
class Row:
    """Result for one kind of input."""

    extension: str
    candidates: int
    """Number of extensions that are candidates for an input, including this one."""
    inputs: str
    count: int
    accepted: float
    """Share assigned to `extension`, 0..1."""
    elsewhere: float
    """Share assigned to another extension; the rest is assigned to none."""


def prompts(task: str, split: Split, count: int) -> list[Prompt]:
    """First questions about the first scenes of a task."""
    asked, domain = islice(asked_scenes(task, split), count), view_of(task).domain
    return [
        Prompt(TEMPLATE.format(some[0].words), (ImageRef(data=png(scene, domain)),)) for scene, some in asked
    ]


def separated(model: MultimodalLM, stages: Sequence[str], count: int = 500) -> dict[str, dict[str, float]]:
    """Data set of each stage -> stage ("": none) -> share of its test inputs assigned to it, after the last stage."""
    known = {name: task_inference.collect(model, prompts(name, "train", INPUTS)) for name in stages}
    choose = task_inference.TaskInference(model, known)
    return {name: choose.shares(prompts(name, "test", count)) for name in stages}


def measure(model: MultimodalLM, count: int = 500) -> list[Row]:
    """Shares for every kind of input and every extension of `LEARNED`, alone and with the others."""
    statistics = {task: task_inference.collect(model, prompts(task, "train", INPUTS)) for task in LEARNED}
    tests = {task: prompts(task, "test", count) for task in TASKS}
    found = []
    for known in [*({task: statistics[task]} for task in LEARNED), statistics]:
        choose = task_inference.TaskInference(model, known)
        for task in known:
            for name, asked in inputs(task, tests).items():
                shares = choose.shares(asked)
                elsewhere = sum(shares.values()) - shares[task] - shares[""]
                found.append(Row(task, len(known), name, len(asked), shares[task], elsewhere))
    return found


def inputs(task: str, tests: Mapping[str, Sequence[Prompt]]) -> dict[str, list[Prompt]]:
    """Name -> inputs, from the task's own to unrelated ones."""
    own, kinds = tests[task], {"own, unseen": list(tests[task])}
    for other, asked in tests.items():
        if other != task:
            kinds[f"{other}"] = list(asked)
            kinds[f"own questions, images of {other}"] = _swapped(own, asked)
            kinds[f"questions of {other}, own images"] = _swapped(asked, own)
    kinds["own questions, colours inverted"] = [_seen(prompt, _inverted) for prompt in own]
    kinds["own questions, images of noise"] = [_seen(prompt, _noise) for prompt in own]
    kinds["own questions, blank images"] = [_seen(prompt, _blank) for prompt in own]
    kinds["own images, words of the question shuffled"] = [_shuffled(prompt) for prompt in own]
    kinds["own questions, no image"] = [Prompt(p.text.replace("<image> ", "")) for p in own]
    return kinds


def _swapped(texts: Sequence[Prompt], images: Sequence[Prompt]) -> list[Prompt]:
    return [replace(one, media=other.media) for one, other in zip(texts, images, strict=True)]


def _seen(prompt: Prompt, change: object) -> Prompt:
    from PIL import Image

    assert callable(change)
    buffer = io.BytesIO()
    image: Image.Image = change(prompt.media[0].open(), Random(prompt.media[0].digest))
    image.save(buffer, "PNG")
    return replace(prompt, media=(ImageRef(data=buffer.getvalue()),))


def _inverted(image: object, drawn: Random) -> object:
    from PIL import Image, ImageOps

    assert isinstance(image, Image.Image)
    return ImageOps.invert(image)


def _noise(image: object, drawn: Random) -> object:
    from PIL import Image

    assert isinstance(image, Image.Image)
    return Image.frombytes("RGB", image.size, drawn.randbytes(3 * image.size[0] * image.size[1]))


def _blank(image: object, drawn: Random) -> object:
    from PIL import Image

    assert isinstance(image, Image.Image)
    colour = tuple(drawn.randrange(256) for _ in range(3))
    return Image.new("RGB", image.size, colour)


def _shuffled(prompt: Prompt) -> Prompt:
    start, words, end = prompt.text.partition("Q ")[0] + "Q ", prompt.text.split()[2:-1], " A:"
    Random(prompt.text).shuffle(words)
    return replace(prompt, text=f"{start}{' '.join(words)}{end}")
