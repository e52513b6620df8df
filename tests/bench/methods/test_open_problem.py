"""The methods of examples/open_problem: their mathematics, on a toy model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from moextend import Conversation, MultimodalLM
from moextend.bench import methods
from moextend.bench.methods.method import Method, Stage
from moextend.model.batches import Collator
from tests.bench.methods.short import ShortLoop
from tests.toys import picture, toy_model

pytestmark = pytest.mark.long  # 23 s

FOLDER = Path(__file__).parents[3] / "examples" / "open_problem"
METHODS = ["text-gates", "output-penalty:answers=0.5", "null-space", "gaussian-memory:rank=2",
           "slot-apart:hard=true,with_parent=true,start=0.2", "distilled", "dymoe", "newest-first", "chained-penalty",
           "base-stream"]  # fmt: skip
TEXT = [Conversation(((f"w{i} w{i + 1} w{i + 2}", ""),)) for i in range(20, 40)]


def shown(first: int) -> list[Conversation]:
    return [
        Conversation(((f"<image> w{first} w{i}", f"w{i % 5}"),), (picture(i * 9, first * 5),))
        for i in range(20)
    ]


def stages(folder: Path) -> list[Stage]:
    one = Stage(1, "a", shown(30), shown(30)[:10], TEXT, 0, folder / "a", batch_size=8)
    two = replace(one, index=2, task="b", data=shown(40), held_out=shown(40)[:10], folder=folder / "b",
                  earlier=[("a", folder / "a")])  # fmt: skip
    for stage in (one, two):
        stage.folder.mkdir()
    return [one, two]


def learned(spec: str, folder: Path) -> tuple[Method, MultimodalLM, list[Stage]]:
    method, model = methods.parse(spec, workspace=FOLDER).make(), toy_model()
    made = stages(folder)
    for stage in made:
        method.learn(model, stage, ShortLoop(model, stage))
        method.save(model, stage)
    return method, model, made


@torch.no_grad()
def hidden(model: MultimodalLM) -> tuple[Tensor, Tensor]:
    """Last hidden states of the start token and the images [B, 1 + 4, H], and those of the text after them."""
    batch = Collator.of(model)(shown(30))
    assert bool((batch["input_ids"][:, 1:5] < 0).all()) and bool((batch["input_ids"][:, 5:] >= 0).all())
    states = model.hidden(batch["input_ids"], batch["attention_mask"], batch["features"])
    return states[:, :5], states[:, 5:]


@pytest.mark.parametrize("spec", METHODS)
def test_a_restored_model_is_the_learned_one(spec: str, tmp_path: Path) -> None:
    method, model, made = learned(spec, tmp_path)
    fresh, other = methods.parse(spec, workspace=FOLDER).make(), toy_model()
    for stage in made:
        fresh.restore(other, stage)
    assert method.select(model, "b", ["a", "b"]) == fresh.select(other, "b", ["a", "b"])
    for part, again in zip(hidden(model), hidden(other), strict=True):
        assert torch.equal(part, again)


def test_shut_gates_leave_tokens_of_images_to_the_base(tmp_path: Path) -> None:
    method, model, _ = learned("text-gates:scope=own", tmp_path)
    method.select(model, "a", ["a", "b"])
    (images, text), (base_images, base_text) = hidden(model), hidden(toy_model())
    assert torch.equal(images, base_images) and not torch.isclose(text, base_text).all(-1).any()
    assert model.media_tokens is None
