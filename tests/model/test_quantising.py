"""A base in 4 or 8 bits: what is quantised, what stays exact on it, and what is refused."""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import moextend
from moextend import (
    Conversation,
    MultimodalLM,
    Settings,
    attach,
    detach,
    load_extension,
    new_parameters,
    save_extension,
)
from moextend.bench.methods import adapters
from moextend.errors import InputError
from moextend.export.stock import stock_model
from moextend.extension.store import QuantisationWarning
from moextend.model.batches import Collator
from moextend.model.generation import choice_likelihoods
from moextend.model.quantising import Quantisation
from moextend.moe import low_bits
from moextend.moe.low_bits import METHODS, Method, Packed
from moextend.moe.recipe import Mode, Recipe
from moextend.moe.sites import find_sites
from tests.moe.test_families import ALL, IDS, everywhere, modes_of
from tests.moe.toy_families import build, outputs
from tests.toys import logits, picture, shake, toy_lm, toy_model, toy_tokenizer

pytest.importorskip("bitsandbytes", reason="pip install bitsandbytes")
ERROR = {"nf4": 0.1, "int8": 0.01}
"""Largest relative error of normally distributed weights."""
PICTURES = [picture(20 * i) for i in range(8)]
SOUNDS = [moextend.AudioRef.of(torch.sin(torch.arange(4000) * 0.05 * i).numpy(), 8000) for i in range(1, 9)]


def quantise(lm: Any, method: Method = "nf4") -> MultimodalLM:
    """The model in memory, quantised."""
    from moextend.model.quantising import quantise

    return quantise(MultimodalLM(lm, toy_tokenizer()), method)


def dequantised(lm: nn.Module) -> nn.Module:
    """A model of the original classes with the weights that those of a quantised one stand for."""
    plain = copy.deepcopy(lm)
    for module in low_bits.quantised_modules(plain).values():
        weights = low_bits.weights_of(module)
        module._parameters.clear()
        module.__class__ = low_bits.plain_class(type(module))
        del module.__dict__["stored"]
        for name, each in weights.items():
            module._parameters[name] = nn.Parameter(each.dense()) if isinstance(each, Packed) else each
    return plain


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """The folder of a base in full precision, with a tensor for each expert."""
    folder = tmp_path / "base"
    toy_lm("olmoe").save_pretrained(folder)
    toy_tokenizer().save_pretrained(folder)
    return folder


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", [(64, 64), (96, 96), (24, 32), (7, 10), (3, 1)])
def test_codes_of_any_shape_give_the_weights_back(method: Method, shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    parts = low_bits.encode(method, matrix)
    found = low_bits.decode(method, parts, matrix.shape, torch.float32)
    assert found.shape == shape and (found - matrix).norm() < ERROR[method] * matrix.norm()
    laid = {key: (tuple(part.shape), part.dtype) for key, part in parts.items()}
    assert laid == {key: (of[1:], dtype) for key, (of, dtype) in low_bits.layout(method, shape).items()}
    assert sum(part.nbytes for part in parts.values()) == low_bits.size_of(method, shape)


def test_nf4_chooses_the_nearest_level_of_the_paper() -> None:
    # Dettmers et al. (2023), appendix E.
    levels = [
        -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
        -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
        0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
    ]  # fmt: skip
    matrix = torch.randn(8, 64, generator=torch.Generator().manual_seed(1))
    scales = matrix.abs().amax(1, keepdim=True)
    nearest = (matrix / scales).unsqueeze(-1).sub(torch.tensor(levels)).abs().argmin(-1)
    found = low_bits.decode("nf4", low_bits.encode("nf4", matrix), matrix.shape, torch.float32)
    torch.testing.assert_close(found, torch.tensor(levels)[nearest] * scales, rtol=0.02, atol=0)


@pytest.mark.parametrize("method", METHODS)
def test_a_base_is_quantised_while_it_is_loaded(method: Method, saved: Path) -> None:
    full, model = moextend.load(str(saved)), moextend.load(str(saved), quantize=method)
    stacks = [site.experts for site in find_sites(model.lm)]
    assert all(
        isinstance(getattr(each, key), Packed) for each in stacks for key in ("gate_up_proj", "down_proj")
    )
    kept = {name for name, module in model.lm.named_modules() if type(module) is nn.Linear}
    assert kept == {"lm_head"}
    assert isinstance(model.lm.get_submodule("model.layers.0.self_attn.q_proj").weight, Packed)
    assert model.base_dtype == f"float32+{method}" and model.base_fingerprint().endswith(f"_{method}")
    assert model.base_fingerprint() != full.base_fingerprint() and model.base_rounded() == full.base_rounded()
    again = quantise(moextend.load(str(saved)).lm, method)
    assert again.base_fingerprint() == model.base_fingerprint()
    ids = torch.arange(3, 19).reshape(2, 8)
    assert torch.equal(logits(again.lm, ids), logits(model.lm, ids))
    assert not torch.equal(logits(full.lm, ids), logits(model.lm, ids))


@pytest.mark.parametrize("name", ALL)
def test_every_family_is_quantised_and_kept_to_the_bit(name: str, tmp_path: Path) -> None:
    lm = build(name)
    lm.save_pretrained(tmp_path)
    lm = type(lm).from_pretrained(tmp_path, quantization_config=Quantisation("nf4"))
    in_memory = quantise(build(name)).lm
    for each in (lm, in_memory):
        if each._can_set_experts_implementation():
            each.set_experts_implementation("eager")
    base = outputs(lm, IDS)
    assert torch.equal(outputs(in_memory, IDS), base)
    assert low_bits.quantised_modules(lm).keys() == low_bits.quantised_modules(in_memory).keys()
    assert torch.allclose(outputs(dequantised(lm), IDS), base, atol=1e-4, rtol=1e-3)
    for mode in modes_of(name):
        attach(lm, "a", everywhere(lm, 1, 2), mode=mode)
        assert mode == "paper" or torch.equal(outputs(lm, IDS), base), f"{mode} before training"
        shake(lm, "a")
        assert outputs(lm, IDS).isfinite().all()
        moextend.activate(MultimodalLM(lm, None), [])
        assert torch.equal(outputs(lm, IDS), base), f"{mode} off"
        detach(lm, "a")
        assert torch.equal(outputs(lm, IDS), base), f"{mode} detached"


@pytest.mark.parametrize("mode", ["exact", "slot", "paper"])
@pytest.mark.parametrize("method", METHODS)
def test_an_extension_of_a_quantised_base_learns_and_is_read_back_to_the_bit(
    method: Method, mode: Mode, saved: Path, tmp_path: Path
) -> None:
    model = moextend.load(str(saved), quantize=method)
    ids = torch.arange(3, 19).reshape(2, 8)
    base = logits(model.lm, ids)
    attach(model.lm, "a", {0: [2], 2: [1, 0]}, mode=mode)
    site = find_sites(model.lm)[2]
    stacks: Any = site.experts
    for key in ("gate_up_proj", "down_proj"):
        copied = stacks.ext_groups["a"].get_parameter(key)
        empty = key == "down_proj" and mode == "exact"
        wanted = (
            torch.zeros_like(copied)
            if empty
            else torch.stack([getattr(stacks, key)[e].dense() for e in (1, 0)])
        )
        assert copied.dtype == torch.float32 and torch.equal(copied, wanted)
    data = [Conversation((("w1 w2", f"w{i} w3"),)) for i in range(8)]
    losses = []
    for checkpointing in (False, True):
        settings = Settings(
            steps=2,
            batch_size=4,
            learning_rate=1e-2,
            gradient_checkpointing=checkpointing,
            schedule="constant",
        )
        twin = copy.deepcopy(model)
        twin.learn_only([f"lm.{name}" for name in new_parameters(twin.lm, "a")])
        losses.append(moextend.train(twin, data, settings, folder=tmp_path / str(checkpointing)).loss_last)
    assert losses[0] == losses[1]
    learned = logits(twin.lm, ids)
    assert not torch.equal(learned, base)
    save_extension(twin, "a", folder=tmp_path / "a")
    moextend.activate(twin, [])
    assert torch.equal(logits(twin.lm, ids), base)
    other = moextend.load(str(saved), quantize=method)
    with warnings.catch_warnings():
        warnings.simplefilter("error", QuantisationWarning)
        load_extension(other, tmp_path / "a")
    assert torch.equal(logits(other.lm, ids), learned)


@pytest.mark.parametrize(
    ("made_on", "used_on"), [("nf4", None), (None, "nf4"), ("int8", None), (None, "int8")]
)
def test_an_extension_moves_between_quantisations_with_a_warning(
    made_on: Method | None, used_on: Method | None, tmp_path: Path
) -> None:
    made = moextend.load("tiny", quantize=made_on)
    rows = [
        Conversation(((f"Where does the poet number {i} live?", f"In town {i * 7 % 10}."),))
        for i in range(10)
    ]
    attach(made.lm, "a", everywhere(made.lm, 1))
    made.learn_only([f"lm.{name}" for name in new_parameters(made.lm, "a")])
    settings = Settings(steps=20, batch_size=10, learning_rate=3e-3)
    moextend.train(made, rows, settings, folder=tmp_path / "training")
    save_extension(made, "a", folder=tmp_path / "a")
    used = moextend.load("tiny", quantize=used_on)
    before = loss(used, rows)
    with pytest.warns(QuantisationWarning, match=rf"base in {made_on or 'full'}.* is in {used_on or 'full'}"):
        load_extension(used, tmp_path / "a")
    for key, parameter in new_parameters(used.lm, "a").items():
        assert torch.equal(parameter, new_parameters(made.lm, "a")[key])
    here, there = loss(made, rows), loss(used, rows)
    print(
        f"made on {made_on or 'full'}: loss {here:.3f}; on {used_on or 'full'}: {there:.3f}, without it {before:.3f}"
    )
    assert here != there and there < before
    detach(used.lm, "a")
    assert loss(used, rows) == before
    other = MultimodalLM(toy_lm("olmoe", seed=3), toy_tokenizer())
    with pytest.raises(InputError, match="belongs to another base"):
        load_extension(other, tmp_path / "a")


def loss(model: MultimodalLM, rows: list[Conversation]) -> float:
    """Mean cross-entropy of the answers."""
    with torch.no_grad():
        return float(model(**Collator.of(model)(rows))["loss"])


@pytest.mark.parametrize("family", ["olmoe", "gpt_oss", "llama4_text", "deepseek_v3"])
def test_gradients_and_lora_are_those_of_the_dequantised_weights(family: str) -> None:
    lm = quantise(build(family)).lm
    found = []
    bases: list[Any] = [lm, dequantised(lm)]
    for each in bases:
        model = MultimodalLM(each, toy_tokenizer())
        if each._can_set_experts_implementation():
            each.set_experts_implementation("eager")
        adapters.inject(model, adapters.Adapter(rank=4), seed=1)
        own = adapters.parameters(model, adapters.ONE)
        assert any(".experts." in name for name in own)
        shake_all(own)
        out = each(IDS)[0].float()
        out.square().mean().backward()
        found.append((out.detach(), {name: p.grad for name, p in own.items()}))
    (ours, grads), (theirs, wanted) = found
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)
    for name, gradient in grads.items():
        assert gradient is not None
        torch.testing.assert_close(gradient, wanted[name], rtol=1e-3, atol=1e-5, msg=name)


def shake_all(parameters: Any) -> None:
    drawn = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for each in parameters.values():
            each.copy_(torch.randn(each.shape, generator=drawn) * 0.1)


def saved_base(model: MultimodalLM, tmp_path: Path) -> None:
    moextend.save_base(model, tmp_path / "out")


def stock(model: MultimodalLM, tmp_path: Path) -> None:
    stock_model(model.lm)


def for_vllm(model: MultimodalLM, tmp_path: Path) -> None:
    from moextend.export.served import save_for_vllm

    save_for_vllm(model, tmp_path / "out", base="tiny")


def upcycled(model: MultimodalLM, tmp_path: Path) -> None:
    moextend.upcycle(model, experts=2)


def compiled(model: MultimodalLM, tmp_path: Path) -> None:
    attach(model.lm, "a", {0: [1]})
    settings = Settings(steps=1, batch_size=1, learning_rate=1e-3, compile=True)
    moextend.train(model, [Conversation((("w1", "w2"),))], settings, folder=tmp_path / "out")


def twice(model: MultimodalLM, tmp_path: Path) -> None:
    quantise(model.lm)


REFUSED: dict[Callable[[MultimodalLM, Path], None], str] = {
    saved_base: r"Saving a base needs full weights, and the base is quantised \(nf4\)\. Load the base without",
    stock: r"the base is quantised.*Load the base dequantised",
    for_vllm: r"--as vllm: vLLM needs full weights.*\(nf4\)",
    upcycled: r"quantised",
    compiled: r"training settings: compile needs full weights",
    twice: r"quantised or extended already",
}


@pytest.mark.parametrize("act", REFUSED, ids=lambda act: act.__name__)
def test_what_needs_full_weights_is_refused_by_name(
    act: Callable[[MultimodalLM, Path], None], tmp_path: Path
) -> None:
    model = toy_model()
    quantise(model.lm)
    with pytest.raises(InputError, match=REFUSED[act]):
        act(model, tmp_path)
    assert not (tmp_path / "out").exists()


def test_bases_that_cannot_be_quantised_are_refused_before_they_are_read(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for file in saved.glob("*.safetensors"):
        file.unlink()  # they are not reached
    (saved / "model.safetensors").write_bytes(b"")
    config = json.loads((saved / "config.json").read_text())
    cases: list[tuple[dict[str, Any], dict[str, Any], str]] = [
        ({}, {"quantize": ["nf4"]}, "quantize: no quantisation"),
        ({}, {"quantize": "nf5"}, r"no quantisation 'nf5'\. Did you mean 'nf4'\?"),
        ({}, {"quantize": "nf4", "dtype": "float64"}, "float64 cannot be quantised"),
        (
            {"quantization_config": {"quant_method": "fp8", "weight_block_size": [8, 8]}}, {"quantize": "int8"},
            r"quantised already \(fp8\), and quantize='int8' needs full weights",
        ),
        ({"model_type": "llama", "architectures": ["LlamaForCausalLM"]}, {"quantize": "nf4"}, "no MoE block"),
    ]  # fmt: skip
    for more, options, message in cases:
        (saved / "config.json").write_text(json.dumps({**config, **more}))
        with pytest.raises(InputError, match=message):
            moextend.load(str(saved), **options)
    monkeypatch.setattr("moextend.model.quantising.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"bitsandbytes, which is not installed.*moextend\[quantize\]"):
        moextend.load(str(saved), quantize="nf4")


def test_new_modalities_and_a_folder_of_the_whole_model_keep_the_quantisation(
    saved: Path, tmp_path: Path
) -> None:
    model = moextend.load(str(saved), quantize="nf4", vision="tiny")
    attach(model.lm, "a", {0: [2]})
    shake(model.lm, "a")
    ids: Tensor = torch.arange(3, 19).reshape(2, 8)
    moextend.save_model(model, tmp_path / "whole", base=str(saved), encoders={"image": "tiny"})
    for opened in (moextend.load_model(tmp_path / "whole"),):
        assert opened.base_fingerprint() == model.base_fingerprint()
        assert torch.equal(logits(opened.lm, ids), logits(model.lm, ids))


@pytest.mark.parametrize("retention", ["output", "latent"])
def test_coactive_extensions_of_images_and_sounds_on_a_quantised_base(
    retention: Any, saved: Path, tmp_path: Path
) -> None:
    how: dict[str, Any] = {
        "recipe": Recipe(layers="all", scope="all", retention=retention),
        "settings": Settings(steps=3, batch_size=4, learning_rate=5e-3),
    }
    model = moextend.load(str(saved), quantize="nf4")
    for name, mark, media in (("seen", "image", PICTURES), ("heard", "audio", SOUNDS)):
        moextend.add_modality(model, mark, encoder="tiny")
        model.modalities[mark].projector.aligned = True
        rows = [Conversation(((f"<{mark}> w1", f"w{i}"),), (one,)) for i, one in enumerate(media)]
        moextend.extend(model, name, rows, folder=tmp_path / name, **how)
    asked = [moextend.Prompt("<image> w1", (PICTURES[1],)), moextend.Prompt("<audio> w1", (SOUNDS[2],))]
    both = choice_likelihoods(model, asked, [["w1", "w2"]] * 2, batch_size=2)
    again = moextend.load(str(saved), quantize="nf4")
    for name in ("seen", "heard"):
        moextend.load_extension(again, tmp_path / name)
    moextend.activate(again, "all")
    assert choice_likelihoods(again, asked, [["w1", "w2"]] * 2, batch_size=2) == both
    moextend.activate(again, ["seen"])
    assert choice_likelihoods(again, asked, [["w1", "w2"]] * 2, batch_size=2) != both
