"""A workspace for runs on several processes, whose batches are of different lengths and kinds."""

from __future__ import annotations

import json
from pathlib import Path

from tests.robustness import workspace

CHOICES = "columns: {image: image, question: question, answer: answer, choices: choices}"


def make(folder: Path) -> Path:
    """A workspace with nine questions a task, one task with choices, and three text tasks of different kinds."""
    workspace.make(folder)
    sequence = folder / "registry/small.yaml"
    text = sequence.read_text().replace("scoring: {batch_size: 4, limit: 4}", "scoring: {batch_size: 2}")
    text = text.replace("train: {steps: 3, batch_size: 2", "train: {steps: 3, batch_size: 4")
    sequence.write_text(text.replace("retention: [words]", "retention: [words, spoken]"))
    for name in ("colour", "shade"):
        rows = [json.loads(line) for line in (folder / f"data/{name}/train.jsonl").read_text().splitlines()]
        for place, row in enumerate(rows):
            row["question"] += " please" * (place % 3)
            row["choices"] = [row["answer"], "yellow", "brown"][: 2 + place % 2]
        for split, count in (("train", 12), ("test", 9)):
            lines = "".join(json.dumps(row) + "\n" for row in rows[:count])
            (folder / f"data/{name}/{split}.jsonl").write_text(lines)
    shade = folder / "tasks/shade.yaml"
    shade.write_text(
        shade.read_text().replace("columns: {image: image, question: question, answer: answer}", CHOICES)
    )
    words = folder / "tasks/words"
    asked = [
        {"question": " ".join(["red"] * (1 + place % 4)) + " is", "answer": place % 3} for place in range(7)
    ]
    (words / "test.jsonl").write_text("".join(json.dumps(line) + "\n" for line in asked))
    spoken = (
        (words / "words.yaml")
        .read_text()
        .replace("task: words", "task: spoken")
        .replace("multiple_choice", "generate_until")
    )
    spoken = spoken.replace(
        "doc_to_choice: ['red', 'green', 'blue']\n", "generation_kwargs: {until: ['.'], max_gen_toks: 3}\n"
    )
    spoken = spoken.replace("metric: acc", "metric: exact_match").replace("'{{answer}}'", "'{{question}}'")
    (words / "spoken.yaml").write_text(spoken)
    (folder / "tasks/spoken.yaml").write_text(
        "task: spoken\nversion: 1\nkind: text\nlm_eval: {task: spoken, path: words, metric: exact_match}\n"
    )
    return folder
