"""A workspace of a few small pictures: a run of two stages takes about a second."""

from __future__ import annotations

import json
import random
from pathlib import Path

from PIL import Image

SEQUENCE = """\
sequence: small
version: 1
base: {model: tiny, vision: tiny}
align: {task: captions, steps: 2, batch_size: 2, learning_rate: 3.0e-3, checkpoint_steps: 1}
stages: [{task: colour}, {task: shade}]
retention: [words]
memory: generic.txt
train: {steps: 3, batch_size: 2, learning_rate: 3.0e-3, checkpoint_steps: 1}
scoring: {batch_size: 4, limit: 4}
settings:
  moextend: {probe_steps: 1, memory_tokens: 20}
"""
TASK = """\
task: {name}
version: 1
kind: {kind}
data: {{path: ../data/{name}, train: train, test: test, images: ../images}}
columns: {columns}
prompt: "{prompt}"
scorer: {scorer}
max_new_tokens: 2
"""
COLOURS = ["red", "green", "blue"]


def make(folder: Path) -> Path:
    """Fills `folder` with a sequence of two image tasks, a text task and captions for the alignment."""
    draw = random.Random(0)
    for name in ("registry", "tasks/words", "images", "data"):
        (folder / name).mkdir(parents=True)
    (folder / "registry/small.yaml").write_text(SEQUENCE)
    (folder / "registry/generic.txt").write_text("anna lives in oslo .\n2 plus 3 equals 5 .\n" * 20)
    for name in ("colour", "shade"):
        columns = "{image: image, question: question, answer: answer}"
        prompt = "<image> Q {question} A:"
        text = TASK.format(name=name, kind="vqa", columns=columns, prompt=prompt, scorer="exact@1")
        (folder / f"tasks/{name}.yaml").write_text(text)
        rows(folder, name, draw)
    text = TASK.format(
        name="captions", kind="caption", columns="{image: image, answer: answer}", prompt="<image>",
        scorer="rouge-l@1",
    )  # fmt: skip
    (folder / "tasks/captions.yaml").write_text(text)
    rows(folder, "captions", draw)
    (folder / "tasks/words.yaml").write_text(
        "task: words\nversion: 1\nkind: text\nlm_eval: {task: words, path: words}\n"
    )
    (folder / "tasks/words/words.yaml").write_text(
        "task: words\ndataset_path: json\ndataset_kwargs:\n  data_files: {test: '{folder}/test.jsonl'}\n"
        "test_split: test\noutput_type: multiple_choice\ndoc_to_text: '{{question}}'\n"
        "doc_to_target: '{{answer}}'\ndoc_to_choice: ['red', 'green', 'blue']\n"
        "metric_list: [{metric: acc}]\n"
    )
    lines = [{"question": f"{draw.choice(COLOURS)} is", "answer": draw.randrange(3)} for _ in range(4)]
    (folder / "tasks/words/test.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def rows(folder: Path, name: str, draw: random.Random) -> None:
    """Writes twelve rows to learn and four to score, with a picture each."""
    (folder / "data" / name).mkdir()
    for split, count in (("train", 12), ("test", 4)):
        lines = []
        for place in range(count):
            colour = draw.choice(COLOURS)
            file = f"{name}-{split}-{place}.png"
            Image.new("RGB", (16, 16), colour).save(folder / "images" / file)
            lines.append({"image": file, "question": "what color is it", "answer": colour})
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (folder / "data" / name / f"{split}.jsonl").write_text(text)


def make_extension(folder: Path) -> None:
    """An extension of the tiny base with random weights, which a stock checkpoint can hold."""
    import torch

    import moextend

    model = moextend.load("tiny")
    moextend.attach(model.lm, folder.name, {block: [0] for block in range(4)}, mode="paper", calibrate=False)
    with torch.no_grad():
        for parameter in moextend.new_parameters(model.lm, folder.name).values():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) * 0.1)
    moextend.save_extension(model, folder.name, folder=folder)
