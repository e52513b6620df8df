"""Training above a cached prefix gives the result of training without it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast, get_args

import pytest
import torch
from torch import Tensor, nn

from moextend import Conversation, MultimodalLM, Settings, attach, new_parameters, train
from moextend.errors import InputError
from moextend.model.batches import Collator
from moextend.moe.recipe import Mode
from moextend.training import flops, loop
from moextend.training.prefix_cache import PrefixCache
from moextend.training.trainer import TokenTrainer
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


@pytest.mark.parametrize("mode", get_args(Mode))
@pytest.mark.parametrize("data", [EVEN, UNEVEN])
def test_a_cached_prefix_changes_only_rounding(tmp_path: Path, data: list[Conversation], mode: Mode) -> None:
    plain, short = extended(mode=mode), extended(mode=mode)
    whole = losses(plain, data, SETTINGS, tmp_path / "a")
    counts = runs_of(short)
    begun = losses(short, data, SETTINGS.having(cache_prefix=True), tmp_path / "b")
    assert begun == pytest.approx(whole, abs=1e-6)
    assert difference(plain, short) < 1e-5
    assert whole[-1] < whole[0] - 0.1
    whole_checks, checks, epoch = 2, 3, 2
    assert counts == [whole_checks + epoch, checks + 8, checks + 8], "an epoch is two steps of eight"
    assert not any("forward" in layer.__dict__ or layer._forward_hooks for layer in short.lm.model.layers)


def test_it_goes_with_accumulation_checkpointing_and_bfloat16(tmp_path: Path) -> None:
    settings = SETTINGS.having(
        batch_size=2, gradient_accumulation=2, gradient_checkpointing=True, bf16=True, balance=0.1
    )
    plain, short = extended(), extended()
    for model in (plain, short):
        model.lm.to(torch.bfloat16)
        for parameter in model.trainable().values():
            parameter.data = parameter.data.float()
    whole = losses(plain, EVEN, settings, tmp_path / "a")
    counts = runs_of(short)
    begun = losses(short, EVEN, settings.having(cache_prefix=True), tmp_path / "b")
    assert begun == pytest.approx(whole, rel=0.05)
    assert counts[0] == 2 + 4


def test_later_epochs_count_fewer_operations(tmp_path: Path) -> None:
    def operations(**more: Any) -> float:
        found = train(extended(), EVEN, SETTINGS.having(**more), folder=tmp_path / "t").flops
        assert found
        return found

    one = operations(steps=2)
    assert operations() == 4 * one
    assert operations(steps=2, cache_prefix=True) == one
    assert one < operations(cache_prefix=True) < 3.5 * one


@pytest.mark.parametrize("cache_prefix", [False, True])
@pytest.mark.parametrize("seed", [0, 4])
def test_the_operations_of_a_training_are_those_of_all_its_batches(
    seed: int, cache_prefix: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [Conversation(((" ".join(["w1"] * (80 if i == 0 else 3)), "w2"),)) for i in range(16)]
    settings = Settings(steps=12, batch_size=4, learning_rate=1e-2, seed=seed, cache_prefix=cache_prefix)
    counts: list[int] = []
    one_step = TokenTrainer.training_step

    def counted(self: TokenTrainer, *args: Any, **kwargs: Any) -> Any:
        with flops.Counter() as count:
            loss = one_step(self, *args, **kwargs)
        counts.append(count.total)
        return loss

    monkeypatch.setattr(TokenTrainer, "training_step", counted)
    found = train(extended(), rows, settings, folder=tmp_path / "t").flops
    assert max(counts) > 4 * min(counts), "the batch with the long row"
    assert (seed == 4) == (counts[0] > 4 * min(counts)), "the first batch has it, or not"
    assert found == pytest.approx(sum(counts), rel=0.03), (
        "attention, which grows faster than the positions, included"
    )


def test_if_the_lowest_layer_is_trained_nothing_is_cached(tmp_path: Path) -> None:
    def first(model: MultimodalLM) -> MultimodalLM:
        attach(model.lm, "a", {0: [1]})
        return model

    plain, asked = first(toy_model()), first(toy_model())
    losses(plain, EVEN, SETTINGS, tmp_path / "a")
    losses(asked, EVEN, SETTINGS.having(cache_prefix=True), tmp_path / "b")
    assert difference(plain, asked) == 0
    projecting = toy_model()
    attach(projecting.lm, "a", {2: [1]})
    projecting.learn_only(
        ["modalities.image.projector.inner.weight", *(f"lm.{n}" for n in new_parameters(projecting.lm, "a"))]
    )
    assert not PrefixCache(projecting, tmp_path).skipped


def drops(model: MultimodalLM) -> None:
    model.lm.model.layers[0].self_attn.attention_dropout = 0.5


def hands_on_two(model: MultimodalLM) -> None:
    model.lm.model.layers[0].register_forward_hook(lambda layer, args, out: (out, out))


def looks_down(model: MultimodalLM) -> None:
    seen: list[Tensor] = []
    layers = model.lm.model.layers
    layers[0].self_attn.register_forward_hook(lambda layer, args, out: seen.append(out[0]))
    layers[2].register_forward_hook(lambda layer, args, out: out + (seen.pop() if seen else 0))


@pytest.mark.parametrize(
    ("make", "why"),
    [(drops, "is random"), (hands_on_two, "more than one tensor"), (looks_down, "read more than")],
)
def test_a_model_that_it_does_not_fit_is_one_clear_error(
    tmp_path: Path, make: Callable[[MultimodalLM], None], why: str
) -> None:
    model = extended()
    make(model)
    with pytest.raises(InputError, match=rf"cannot start above.*{why}.*Use cache_prefix: false"):
        train(model, EVEN, SETTINGS.having(cache_prefix=True), folder=tmp_path / "t")
    with pytest.raises(InputError, match="no list of decoder layers"):
        model.lm.model.layers = nn.Sequential(*model.lm.model.layers)
        PrefixCache(model, tmp_path)


def test_compile_and_fsdp_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cache_prefix cannot be combined with compile"):
        SETTINGS.having(cache_prefix=True, compile=True)
    sharded = cast(TokenTrainer, SimpleNamespace(sharded=True))
    with pytest.raises(InputError, match="cache_prefix cannot be combined with FSDP"):
        loop._prefix(toy_model(), sharded, tmp_path)


@pytest.mark.parametrize("family", ["olmoe", "qwen2_moe", "qwen3_moe", "granitemoe"])
def test_other_families_give_the_same_logits(tmp_path: Path, family: str) -> None:
    model = extended(family)
    batch = Collator.of(model)(UNEVEN)
    items, mask = list(range(len(UNEVEN))), batch["attention_mask"]
    cache = PrefixCache(model, tmp_path)
    cache.check(batch)
    with torch.no_grad():
        with cache.around(items, mask):
            whole = model(**batch)["logits"]
        assert cache.knows(items) and not cache.knows([99])
        counts = runs_of(model)
        with cache.around(items, mask):
            short = model(**batch)["logits"]
    assert counts == [0, 1, 1]
    torch.testing.assert_close(short, whole, rtol=1e-5, atol=1e-5)


def test_no_backward_below_what_learns_and_the_head_at_labels_only() -> None:
    model = extended()
    reached, rows = set(), []
    for place, layer in enumerate(model.lm.model.layers):

        def reach(layer: nn.Module, args: Any, out: Tensor, place: int = place) -> None:
            if out.requires_grad:
                out.register_hook(lambda gradient, place=place: reached.add(place))

        layer.register_forward_hook(reach)
    model.lm.lm_head.register_forward_hook(lambda head, args, out: rows.append(out.shape[:-1].numel()))
    batch = Collator.of(model)(UNEVEN)
    model(**batch)["loss"].backward()
    assert reached == {1, 2}
    assert rows == [int((batch["labels"] != -100).sum())]
    assert {n for n, p in model.named_parameters() if p.grad is not None} == set(model.trainable())
