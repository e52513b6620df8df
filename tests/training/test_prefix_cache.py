"""Training above a cached prefix gives the result of training without it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from moextend import Conversation, MultimodalLM, Settings, attach, new_parameters, train
from moextend.errors import InputError
from moextend.moe.recipe import Mode
from moextend.training.prefix_cache import PrefixCache
from tests.toys import picture, toy_model

EVEN = [Conversation(((f"<image> w{i}", f"w{i % 3}"),), (picture(i * 20, 9),)) for i in range(8)]
UNEVEN = [
    Conversation(((f"<image> w{i}" + " w7" * (i % 3), f"w{i % 3}"),), (picture(i * 20, 9),)) for i in range(8)
]
SETTINGS = Settings(steps=8, batch_size=4, learning_rate=1e-2)


def extended(family: str = "mixtral", mode: Mode = "exact") -> MultimodalLM:
    model = toy_model(family)
    attach(model.lm, "a", {1: [1], 2: [0]}, mode=mode)
    if mode == "paper":  # copied rows tie with their parents, and rounding would decide
        for name, parameter in new_parameters(model.lm, "a").items():
            if name.endswith(".rows"):
                parameter.data += 0.3 * torch.randn(
                    parameter.shape, generator=torch.Generator().manual_seed(0)
                )
    return model


def losses(model: MultimodalLM, data: list[Conversation], settings: Settings, folder: Path) -> list[float]:
    losses: list[float] = []

    def follow(batch: Any, out: Any) -> Tensor:
        losses.append(float(out["loss"].detach()))
        return torch.zeros(())

    train(model, data, settings, folder=folder, extra_loss=follow)
    return losses


def difference(one: MultimodalLM, other: MultimodalLM) -> float:
    pairs = zip(new_parameters(one.lm, "a").values(), new_parameters(other.lm, "a").values(), strict=True)
    return max(float((a - b).abs().max().detach()) for a, b in pairs)


def runs_of(model: MultimodalLM) -> list[int]:
    """How often each layer's attention is called, counted from now on."""
    counts = [0] * len(model.lm.model.layers)
    for place, layer in enumerate(model.lm.model.layers):

        def count(*args: Any, place: int = place) -> None:
            counts[place] += 1

        layer.self_attn.register_forward_hook(count)
    return counts


@pytest.mark.parametrize(("mode", "data"), [("exact", EVEN), ("paper", UNEVEN), ("slot", UNEVEN)])
def test_a_cached_prefix_changes_only_rounding(tmp_path: Path, mode: Mode, data: list[Conversation]) -> None:
    plain, short = extended(mode=mode), extended(mode=mode)
    whole = losses(plain, data, SETTINGS, tmp_path / "a")
    counts = runs_of(short)
    begun = losses(short, data, SETTINGS.having(cache_prefix=True), tmp_path / "b")
    assert begun == pytest.approx(whole, abs=1e-6)
    assert difference(plain, short) < 1e-5
    assert whole[-1] < whole[0] - 0.1
    whole_checks, checks, epoch = 1, 2, 2
    assert counts == [whole_checks + epoch, checks + 8, checks + 8], "an epoch is two steps of eight"
    assert not any("forward" in layer.__dict__ or layer._forward_hooks for layer in short.lm.model.layers)


def test_if_the_lowest_layer_is_trained_nothing_is_cached(tmp_path: Path) -> None:
    model = toy_model()
    attach(model.lm, "a", {0: [1]})
    assert not PrefixCache(model, tmp_path).skipped
    projecting = toy_model()
    attach(projecting.lm, "a", {2: [1]})
    projecting.learn_only(["modalities.image.projector.inner.weight"])
    assert not PrefixCache(projecting, tmp_path).skipped


def hands_on_two(model: MultimodalLM) -> None:
    model.lm.model.layers[0].register_forward_hook(lambda layer, args, out: (out, out))


def looks_down(model: MultimodalLM) -> None:
    seen: list[Tensor] = []
    layers = model.lm.model.layers
    layers[0].self_attn.register_forward_hook(lambda layer, args, out: seen.append(out[0]))
    layers[2].register_forward_hook(lambda layer, args, out: out + (seen.pop() if seen else 0))


@pytest.mark.parametrize(
    ("make", "why"), [(hands_on_two, "more than one tensor"), (looks_down, "read more than")]
)
def test_a_model_that_it_does_not_fit_is_one_clear_error(
    tmp_path: Path, make: Callable[[MultimodalLM], None], why: str
) -> None:
    model = extended()
    make(model)
    with pytest.raises(InputError, match=rf"cannot start above.*{why}.*Use cache_prefix: false"):
        train(model, EVEN, SETTINGS.having(cache_prefix=True), folder=tmp_path / "t")


@pytest.mark.parametrize("key", ["cache_prefix", "compile"])
def test_fsdp_is_refused(key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=f"{key} cannot be combined with FSDP.*Use {key}: false"):
        train(extended(), EVEN, SETTINGS.having(**{key: True}), folder=tmp_path / "t")
