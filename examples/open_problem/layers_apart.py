"""What the new experts of one layer, and of all layers together, do to an earlier task.

    python examples/open_problem/layers_apart.py runs/tiny-worlds-conflict/moextend+scope-all-s0 tiny-rule-1 tiny-rule-2

The retention loss of `scope=all` holds layer by layer, on router inputs that were kept before the new experts existed.
This script closes the gates of a later task's experts in all layers but some, and scores both tasks.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

import moextend
from moextend.bench.data.items import prompt_text
from moextend.bench.data.open import open_items
from moextend.bench.run import models
from moextend.bench.run.context import RunContext
from moextend.bench.run.rundir import RunDir
from moextend.bench.scorers import own_answer
from moextend.extension.retention import sites_of
from moextend.model.generation import Prompt

CLOSED = -1.0
"""Logit of a closed gate in exact routing."""


@contextmanager
def only_in(model: Any, name: str, layers: Sequence[int]) -> Iterator[None]:
    """Context in which the new experts of extension `name` compute in these MoE layers alone."""
    hooks = [
        site.router.ext_parts[name].register_forward_hook(lambda part, x, out: torch.full_like(out, CLOSED))
        for site in sites_of(model, name)
        if site.layer not in layers
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def accuracy(model: Any, context: RunContext, name: str) -> float:
    """Percentage of the test items of a task that are answered correctly."""
    task = context.tasks[name]
    items = list(open_items(task, "test", context.workspace))[: context.sequence.scoring.limit or None]
    prompts = [Prompt(prompt_text(task, item), item.media) for item in items]
    found = moextend.generate(model, prompts, max_new_tokens=task.max_new_tokens, batch_size=125)
    hits = [answer == own_answer(task.scorer, item) for answer, item in zip(found, items, strict=True)]
    return 100 * sum(hits) / len(hits)


def main(folder: str, earlier: str, later: str) -> None:
    """Prints the table."""
    torch.set_num_threads(1)
    context = RunContext(RunDir(Path(folder)))
    model = models.restored(context.run, task=later)
    names = [stage.task for stage in context.sequence.stages]
    moextend.activate(model.lm, names[: names.index(later) + 1])
    every = [site.layer for site in sites_of(model, later)]
    print(f"| experts of {later} in layers | {earlier} | {later} |")
    print("| :--- | ---: | ---: |")
    for layers in ([], *([layer] for layer in every), every):
        with only_in(model, later, layers):
            scores = [accuracy(model, context, name) for name in (earlier, later)]
        print(f"| {', '.join(map(str, layers)) or 'none'} | {scores[0]:.1f} | {scores[1]:.1f} |")


if __name__ == "__main__":
    main(*sys.argv[1:])
