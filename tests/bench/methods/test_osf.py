"""OSF: what peft trains is what the paper's equations say, and stages follow each other."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from moextend.bench import methods
from moextend.errors import InputError
from tests.bench.methods.short import ShortLoop, World, learn, loaded
from tests.bench.methods.test_targets import shapes


def weights(method: Any, model: Any) -> dict[str, Tensor]:
    return {name: weight.detach().clone() for name, weight in method.parameters(model).items()}


def test_a_stage_changes_the_small_singular_directions_alone(world: World) -> None:
    """The first step of AdamW from U_low, S_low, V_low: W - W' has rank of at most twice the trained directions, and
    the frozen part U_high S_high V_high of W is part of W'.
    """
    method: Any = methods.parse("osf:preserved=0.75").make()
    model = loaded()
    method.start(model, 0)
    before, stage, factors = weights(method, model), world.stage(1), {}

    class Watched(ShortLoop):
        def __call__(self, **given: Any) -> Any:
            report = super().__call__(**given)
            named = dict(self.model.named_parameters())
            for name in before:
                at = name.removesuffix(".weight") + ".osf_svd_params.default."
                factors[name] = [
                    named[f"{at}{part}"].detach().double().numpy() for part in ("U_low", "S_low", "V_low")
                ]
            return report

    method.learn(model, stage, Watched(model, stage, steps=3))
    after = weights(method, model)
    assert before.keys() == after.keys() and len(before) == 4 * len(model.lm.model.layers)
    for name, weight in before.items():
        u, s, v = np.linalg.svd(weight.double().numpy(), full_matrices=False)
        kept = int(0.75 * len(s))
        low_u, low_s, low_v = factors[name]
        wanted = (u[:, :kept] * s[:kept]) @ v[:kept] + (low_u * low_s) @ low_v
        assert np.allclose(after[name].double().numpy(), wanted, atol=1e-5), name
        assert not torch.equal(after[name], weight)


def test_gradients_are_orthogonal_to_the_frozen_directions(world: World) -> None:
    method: Any = methods.parse("osf:preserved=0.5").make()
    model = loaded()
    before = weights(method, model)
    trained = method.prepare(model, world.stage(1))
    torch.manual_seed(0)
    (sum((p * torch.randn_like(p)).sum() for p in trained.values())).backward()
    for name, weight in before.items():
        u, s, v = np.linalg.svd(weight.double().numpy(), full_matrices=False)
        kept, at = int(0.5 * len(s)), name.removesuffix(".weight") + ".osf_svd_params.default."
        for part, frozen in (("U_low", u[:, :kept]), ("V_low", v[:kept].T)):
            gradient = trained[f"{at}{part}"].grad.double().numpy()
            across = frozen.T @ (gradient if part == "U_low" else gradient.T)
            assert np.abs(across).max() < 1e-4 < np.abs(gradient).max()


def test_nothing_of_peft_is_left_after_a_stage(world: World) -> None:
    model, _ = learn(world, "osf", steps=1)
    assert not [name for name, _ in model.named_parameters() if "osf" in name or "base_layer" in name]
    assert not hasattr(model.lm, "peft_config")


@pytest.mark.parametrize(
    ("base", "spec", "says"),
    [
        ("lfm2_moe", "osf", "osf finds no linear maps of attention in Lfm2Moe"),
        (
            "mixtral",
            "osf:preserved=0.01",
            r"preserved=0\.01 freezes none of the \d+ directions of '.*q_proj'",
        ),
    ],
)
def test_what_cannot_be_decomposed_is_refused(base: str, spec: str, says: str) -> None:
    model = shapes(base, **({"layer_types": ["conv", "conv"]} if base == "lfm2_moe" else {}))
    with pytest.raises(InputError, match=says):
        methods.parse(spec).make().check(model)


def test_a_quantised_map_is_refused() -> None:
    model = shapes("mixtral")
    module = model.lm.model.layers[0].self_attn.q_proj
    module.weight.data = module.weight.data.to(torch.float8_e4m3fn)
    with pytest.raises(
        InputError, match=r"osf cannot decompose '.*q_proj', a Linear of torch\.float8_e4m3fn"
    ):
        methods.parse("osf").make().check(model)


def test_a_base_in_bfloat16_is_decomposed_in_float32(world: World) -> None:
    method: Any = methods.parse("osf").make()
    model = loaded()
    model.lm.to(torch.bfloat16)
    trained = method.prepare(model, world.stage(1))
    assert {p.dtype for p in trained.values()} == {torch.float32}
    (sum(p.sum() for p in trained.values())).backward()
    method.after_stage(model, world.stage(1))
    assert {p.dtype for p in method.parameters(model).values()} == {torch.bfloat16}
