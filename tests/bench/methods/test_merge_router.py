"""Extensions that are trained apart, and the merge of their routers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from moextend.bench import methods
from moextend.bench.methods.method import Stage
from moextend.data.conversations import Conversation
from tests.bench.methods.short import TASKS, ShortLoop, World, learn, loaded, logits, restored

SPEC = "merge-router:merge_steps=3,kept=0.1"
ROUTERS = ".ext_parts."


def test_the_experts_are_those_of_scope_own_bit_for_bit(world: World) -> None:
    """Their files too, with the routers as they were trained alone; the merged ones are beside them."""
    own = replace(world, folder=world.folder / "own")
    alone, _ = learn(own, "moextend:scope=own", steps=2)
    merged, _ = learn(world, SPEC, steps=2)
    for task in TASKS:
        files = [load_file(each / task / "extension.safetensors") for each in (own.folder, world.folder)]
        assert files[0].keys() == files[1].keys()
        assert all(torch.equal(tensor, files[1][name]) for name, tensor in files[0].items())
    known = dict(alone.named_parameters())
    router = load_file(world.folder / TASKS[1] / "router.safetensors")
    for name, parameter in merged.named_parameters():
        same = torch.equal(parameter, known[name])
        assert same == (ROUTERS not in name), name
        assert same or torch.equal(parameter, router.pop(name))
    assert not router


def test_a_merge_starts_from_the_routers_that_were_trained_alone(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So it depends on what was learned, and not on earlier merges; also after an interruption between two stages."""
    model, _ = learn(world, SPEC, stages=1)
    before = world.folder / TASKS[0]
    started = list[dict[str, Any]]()

    def see(self: ShortLoop, *, phase: str = "train", **given: Any) -> Any:
        if phase == "merge":
            started.append({n: p.detach().clone() for n, p in self.model.trainable().items()})
        return loop(self, phase=phase, **given)

    loop = ShortLoop.__call__
    monkeypatch.setattr(ShortLoop, "__call__", see)
    method = methods.parse(SPEC).make()
    model = restored(world, method, 1)
    stage = world.stage(2)
    method.learn(model, stage, ShortLoop(model, stage))
    method.save(model, stage)
    alone = load_file(before / "extension.safetensors") | load_file(stage.folder / "extension.safetensors")
    (rows,) = started
    assert {name.removeprefix("lm.") for name in rows} == {name for name in alone if ROUTERS in name}
    assert all(torch.equal(row, alone[name.removeprefix("lm.")]) for name, row in rows.items())
    again, _ = learn(replace(world, folder=world.folder / "again"), SPEC)
    for name, parameter in again.named_parameters():
        assert torch.equal(parameter, model.get_parameter(name)), name


def test_a_merge_is_trained_on_the_kept_items_of_all_tasks_and_on_the_generic_text(world: World) -> None:
    generic = [Conversation(((" anna lives in oslo .", ""),))]
    method, model = methods.parse(SPEC).make(), loaded()
    method.start(model, 0)
    facts = dict[int, Any]()
    for index in (1, 2):
        stage: Stage = replace(world.stage(index), generic=generic)
        loop = ShortLoop(model, stage, steps=1)
        facts[index] = method.learn(model, stage, loop)
        method.save(model, stage)
        assert loop.seen["rates"] == {".rows": 10.0, ".bias": 10.0} and "extra_loss" not in loop.seen
        *items, text = loop.seen["data"]
        assert text.turns == (("", " anna lives in oslo ."),), "it is learned, not read"
        for at in range(index):
            five, known = items[5 * at : 5 * at + 5], {row.turns for row in world.stage(at + 1).data}
            assert len(items) == 5 * index and all(row.turns in known for row in five), "a tenth of 48"
        size = sum(len(t.encode()) for row in five for turn in row.turns for t in turn)
        size += sum(len(ref.read()) for row in five for ref in row.media)
        assert facts[index]["raw_mb"] == pytest.approx(size / 1e6), "those of its own task"
    rows = sum(p.numel() for n, p in model.named_parameters() if ROUTERS in n)
    assert facts[2]["merged_parameters"] == rows == 2 * facts[1]["merged_parameters"]


def test_with_the_task_given_each_task_reaches_its_own_extension_alone(world: World) -> None:
    model, _ = learn(world, SPEC)
    method, sees = methods.parse(SPEC).make(), world.data[TASKS[0]].held_out[:4]
    given = method.with_given_task()
    assert given is not None and given.with_given_task() is None and given.task_identity == "given"
    named = {method.select(model, task, TASKS) for task in TASKS}
    every = logits(model, sees)
    own = given.select(model, TASKS[0], TASKS)
    assert len(named) == 1 and own not in named
    assert not torch.equal(logits(model, sees), every)
    assert own == method.select(model, TASKS[1], TASKS[:1])
