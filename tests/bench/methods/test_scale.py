"""What stages learned is scaled between the base and the last model, bit for bit at both ends."""

from __future__ import annotations

import pytest
import torch

import moextend
from moextend.bench import methods
from moextend.bench.methods.method import Method
from moextend.data.conversations import Conversation
from moextend.errors import InputError
from tests.bench.methods.short import SPECS, TASKS, World, learn, learned, loaded, logits

pytestmark = pytest.mark.long  # 46 s; test_methods.py has a quick case of each method

TEXT = [Conversation((("anna lives in", " oslo ."),))]
SCALED = [
    spec
    for spec in SPECS
    if spec != "zero-shot" and ":over=" not in spec and not spec.startswith(("ewc", "lwf"))
]
"""One method of each kind of weights: replay, EWC and LwF have those of `lora`."""


def scaling(world: World, method: Method) -> moextend.MultimodalLM:
    """A model that scales what the two stages learned."""
    model = loaded()
    method.start(model, 0)
    method.keep_base(model)
    for index in (1, 2):
        method.restore(model, world.stage(index))
    return model


@pytest.mark.parametrize("spec", SCALED)
def test_a_method_goes_from_the_base_to_its_last_model(world: World, spec: str) -> None:
    world, method = learned(world, spec), methods.parse(spec).make()
    model = scaling(world, method)
    sees = world.data[TASKS[1]].held_out[:4]
    plain = loaded()
    base, base_text = logits(plain, sees), logits(plain, TEXT)
    named = method.select(model, TASKS[1], TASKS)
    last, last_text = logits(model, sees), logits(model, TEXT)
    if model.choose is not None:  # then each input reaches one extension, and `logits` none
        with model.choose.reaching((TASKS[1],)):
            last = logits(model, sees)
    assert not torch.equal(last, base)

    def at(strength: float) -> tuple[str, torch.Tensor, torch.Tensor]:
        found = method.scale(model, TASKS[1], dict.fromkeys(TASKS, strength))
        seen, read = logits(model, sees), logits(model, TEXT)
        if model.choose is not None and strength:
            with model.choose.reaching((TASKS[1],)):
                seen = logits(model, sees)
        return found, seen, read

    names, distances = [], []
    for strength in (0.5, 1.0, 0.0, 0.25, 0.75, 1.0, 0.0):
        name, seen, read = at(strength)
        names.append(name)
        distances.append(float((seen - base).norm()))
        if strength == 0:
            assert (
                torch.equal(seen, base) and torch.equal(read, base_text) and name == model.base_fingerprint()
            )
        if strength == 1:
            assert torch.equal(seen, last) and torch.equal(read, last_text) and name == named
    assert len(set(names)) == 5, "each strength has its fingerprint"
    assert names[1] == names[5] and names[2] == names[6]
    assert 0 < distances[3] < distances[1], "a weak part of what was learned changes less than all of it"


@pytest.mark.parametrize("spec", [s for s in SCALED if methods.parse(s).kind.scales == "each"])
def test_a_stage_can_be_left_out(world: World, spec: str) -> None:
    world, method = learned(world, spec), methods.parse(spec).make()
    model = scaling(world, method)
    sees = world.data[TASKS[0]].held_out[:4]
    whole = method.select(model, TASKS[0], TASKS)
    if spec == "moextend:routing=paper,scope=all":
        with pytest.raises(InputError, match="was made with"):  # its calibration reads the first
            method.scale(model, TASKS[0], {TASKS[0]: 0.0, TASKS[1]: 1.0})
        assert method.scale(model, TASKS[0], {TASKS[0]: 1.0, TASKS[1]: 0.0}) != whole
        return
    without = method.scale(model, TASKS[0], {TASKS[0]: 0.0, TASKS[1]: 1.0})
    assert without != whole
    if model.choose is not None:
        asked = [moextend.Prompt(row.turns[0][0], row.media) for row in sees]
        assert all(names in ((), (TASKS[1],)) for names in model.choose(asked)), "it cannot be chosen"
    elif method.task_identity == "given":
        assert without == model.base_fingerprint(), "the task has no other extension"
        assert torch.equal(logits(model, sees), logits(loaded(), sees))
        assert method.scale(model, TASKS[0], {TASKS[0]: 1.0, TASKS[1]: 0.0}) == whole
    assert method.scale(model, TASKS[0], dict.fromkeys(TASKS, 1.0)) == whole


def test_weights_are_interpolated_linearly(world: World) -> None:
    model, _ = learn(world, "full-ft")
    tuned = {name: p.detach().clone() for name, p in model.lm.named_parameters()}
    method = methods.parse("full-ft").make()
    model = scaling(world, method)
    base = dict(loaded().lm.named_parameters())
    method.scale(model, TASKS[0], dict.fromkeys(TASKS, 0.25))
    for name, p in model.lm.named_parameters():
        assert torch.allclose(p, 0.75 * base[name] + 0.25 * tuned[name], atol=1e-6), name
