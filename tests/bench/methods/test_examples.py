"""The examples of methods with a step hook, against their equations in NumPy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from moextend.bench import methods
from moextend.bench.methods import Parameters
from moextend.data.conversations import Conversation
from moextend.model.batches import Collator
from tests.bench.methods.short import TASKS, ShortLoop, World, learn, restored

EXAMPLES = Path(__file__).parents[3] / "examples"


def flat(tensors: Any) -> np.ndarray[Any, Any]:
    return np.concatenate([t.detach().double().numpy().ravel() for t in tensors])


def gradient(model: Any, weights: Parameters, rows: Sequence[Conversation], *, logit: bool = False) -> Any:
    """Gradient of the mean loss over labelled tokens, or of the mean logit of the true tokens."""
    batch = Collator.of(model)(list(rows))
    out = model(**batch)
    true = batch["labels"][:, 1:].flatten()
    picked = out["logits"][range(len(out["logits"])), true[true != -100]]
    for weight in weights.values():
        weight.grad = None
    (picked.mean() if logit else (out["logits"].logsumexp(-1) - picked).mean()).backward()
    return flat(w.grad for w in weights.values())


def second_stage(world: World, spec: str) -> tuple[Any, Any, Parameters, Any]:
    """Method, model before the second stage, its trained weights, and the step hook of that stage."""
    learn(world, spec, stages=1, steps=6, workspace=EXAMPLES)
    method = methods.parse(spec, workspace=EXAMPLES).make()
    model = restored(world, method, 1)
    weights = method.parameters(model)  # type: ignore[attr-defined]
    model.learn_only(list(weights))
    return method, model, weights, method.step_hook(model, world.stage(2))  # type: ignore[attr-defined]


def changed(hook: Any, weights: Parameters, g: Any) -> Any:
    """A gradient after the hook."""
    at = 0
    for weight in weights.values():
        part = g[at : at + weight.numel()]
        weight.grad = torch.tensor(part, dtype=weight.dtype).view_as(weight)
        at += weight.numel()
    hook.before_step()
    return flat(w.grad for w in weights.values())


def test_a_gem_projects_gradients_that_conflict_with_those_of_kept_items(world: World) -> None:
    _, model, weights, hook = second_stage(world, "a-gem:items=6,rank=2")
    kept = world.data[TASKS[0]].learn[:6]
    ref = gradient(model, weights, kept)
    noise = np.random.default_rng(0).normal(size=ref.size) * np.abs(ref).mean()
    conflicting, agreeing = noise - 0.5 * ref, noise + 0.5 * ref
    assert conflicting @ ref < 0 < agreeing @ ref
    wanted = conflicting - (conflicting @ ref) / (ref @ ref) * ref
    found = changed(hook, weights, conflicting)
    assert np.linalg.norm(found - wanted) < 1e-4 * np.linalg.norm(wanted)
    assert np.array_equal(changed(hook, weights, agreeing), agreeing.astype(np.float32).astype(float))


def test_a_gem_draws_the_same_items_after_an_interruption(world: World) -> None:
    _, model, weights, hook = second_stage(world, "a-gem:items=40,rank=2")
    g = -gradient(model, weights, world.data[TASKS[0]].learn[:8])
    changed(hook, weights, g)
    state = {name: value.clone() for name, value in hook.state_dict().items()}
    first, second = (changed(hook, weights, g) for _ in range(2))
    hook.load_state_dict(state)
    assert np.array_equal(changed(hook, weights, g), first) and not np.array_equal(first, second)


def test_ogd_removes_what_would_change_answers_of_earlier_stages(world: World) -> None:
    _, model, weights, hook = second_stage(world, "ogd:items=5,rank=2")
    rows = world.data[TASKS[0]].learn[:5]
    answers = np.stack([gradient(model, weights, [row], logit=True) for row in rows])
    basis, _ = np.linalg.qr(answers.T)
    g = gradient(model, weights, world.data[TASKS[1]].learn[:8])
    found = changed(hook, weights, g)
    wanted = g - basis @ (basis.T @ g)
    assert np.linalg.norm(found - wanted) < 1e-4 * np.linalg.norm(g) < 0.1 * np.linalg.norm(g - wanted)
    assert np.abs(answers @ found).max() < 1e-3 * np.abs(answers @ g).max()


def test_ogd_keeps_orthonormal_directions_of_all_stages(world: World) -> None:
    learn(world, "ogd:items=3,rank=2", workspace=EXAMPLES)
    first, both = (load_file(world.folder / task / "ogd.safetensors")["directions"] for task in TASKS)
    assert torch.equal(both[:3], first) and len(both) == 6
    assert torch.allclose(both @ both.T, torch.eye(6), atol=1e-5)


@pytest.mark.parametrize("decay", [0.0, 0.6])
def test_ema_ends_a_stage_with_the_average_of_its_steps(world: World, decay: float) -> None:
    method: Any = methods.parse(f"ema:decay={decay},rank=2", workspace=EXAMPLES).make()
    model, stage = restored(world, method, 0), world.stage(1)
    passed = [flat(method.parameters(model).values())]

    class Watched(ShortLoop):
        def __call__(self, **given: Any) -> Any:
            after = given["step_hook"].after_step

            def after_step() -> None:
                passed.append(flat(method.parameters(model).values()))
                after()

            given["step_hook"].after_step = after_step
            return super().__call__(**given)

    method.learn(model, stage, Watched(model, stage, steps=4))
    assert len(passed) == 5
    wanted = decay**4 * passed[0] + sum((1 - decay) * decay ** (4 - i) * passed[i] for i in range(1, 5))
    assert np.allclose(flat(method.parameters(model).values()), wanted, atol=1e-6)
    assert not np.allclose(passed[-1], passed[0], atol=1e-4)
