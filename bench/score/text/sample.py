"""A sample of the items of a text task, answered by the model in this process or by that of a server."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moextend.bench.score.predictions import text_item
from moextend.bench.score.text.cell import load_task, text_of
from moextend.bench.task import TaskSpec

if TYPE_CHECKING:
    from moextend.bench.score.served.answers import ServedModel
    from moextend.model.multimodal import MultimodalLM


def sampled_answers(
    model: MultimodalLM,
    task: TaskSpec,
    *,
    batch_size: int,
    limit: int | None,
    items: int,
    seed: str,
    workspace: Path,
    served: ServedModel | None = None,
) -> list[tuple[str, str | float, int]]:
    """(item, answer or log-likelihood in nats, its tokens) of a sample of the items of a text task; nothing is saved.

    The choice of the answer with the highest log-likelihood is an answer, too. `limit`: only among the first items.
    """
    from moextend.bench.score.text.harness import run

    chosen = text_of(task)
    loaded = load_task(task, chosen, workspace)
    sizes = {
        name: min(len(part.eval_docs), limit or len(part.eval_docs)) for name, part in loaded.tasks.items()
    }
    places = [(name, place) for name, size in sizes.items() for place in range(size)]
    samples: dict[str, list[int]] = {}
    for name, place in sorted(random.Random(seed).sample(places, min(items, len(places)))):
        samples.setdefault(name, []).append(place)
    found = run(model, loaded, batch_size=batch_size, limit=None, served=served, samples=samples)
    return [
        value
        for name in samples
        for sample in _first_filter(found["samples"][name])
        for value in _values(model, text_item({"task": name, "id": sample["doc_id"]}), sample)
    ]


def _first_filter(samples: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [sample for sample in samples if sample["filter"] == samples[0]["filter"]]


def _values(model: MultimodalLM, item: str, sample: dict[str, Any]) -> list[tuple[str, str | float, int]]:
    """What the model gave for an item, before any filter."""
    values: list[tuple[str, str | float, int]] = []
    for (response, *_), arguments in zip(sample["resps"], sample["arguments"], strict=True):
        if isinstance(response, str):
            values.append((item, response, 1))
            continue
        number = response[0] if isinstance(response, list | tuple) else response
        text = str(arguments[-1])
        values.append(
            (item, float(number), len(model.tokenizer(text, add_special_tokens=False)["input_ids"]))
        )
    likelihoods = [value for _, value, _ in values if isinstance(value, float)]
    if len(likelihoods) > 1:
        best = max(range(len(likelihoods)), key=lambda place: likelihoods[place])
        values.append((item, f"choice {best + 1}", 1))
    return values
