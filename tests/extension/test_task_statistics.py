"""Task statistics: what is kept of inputs, its files and other modalities."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from moextend import Conversation, MultimodalLM, Prompt, attach
from moextend.errors import InputError
from moextend.extension import task_inference
from tests.extension.prompts import COLOUR, TEXT
from tests.toys import ToyEncoder, curve, picture, series, toy_lm, toy_tokenizer


def test_a_later_extension_leaves_earlier_statistics_alone(model: MultimodalLM, tmp_path: Path) -> None:
    statistics = task_inference.collect(model, COLOUR)
    task_inference.write(statistics, tmp_path)
    attach(model.lm, "count", {0: [1]})
    again = task_inference.collect(model, COLOUR)
    kept = task_inference.read(tmp_path)
    for one in (again, kept):
        assert torch.equal(one.mean, statistics.mean) and torch.equal(one.scatter, statistics.scatter)
        assert (one.count, one.kind) == (statistics.count, statistics.kind)


def test_damaged_statistics_are_refused(model: MultimodalLM, tmp_path: Path) -> None:
    task_inference.write(task_inference.collect(model, COLOUR), tmp_path)
    path = tmp_path / "task_statistics.safetensors"
    whole = path.read_bytes()
    for damaged in (
        whole[:-1] + bytes([whole[-1] ^ 1]),
        whole[:-200] + bytes([whole[-200] ^ 64]) + whole[-199:],
        whole.replace(b'"mean"', b'"meal"', 1),
        whole[: len(whole) // 2],
        b"",
    ):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"task_statistics.safetensors: is damaged.*Copy it again"):
            task_inference.read(tmp_path)


def mixed_model() -> MultimodalLM:
    torch.manual_seed(1)
    return MultimodalLM(toy_lm(), toy_tokenizer(), ToyEncoder(), {"series": series().Fourier()})


def test_each_modality_has_a_part_and_a_threshold(tmp_path: Path) -> None:
    model = mixed_model()
    both = [
        Prompt(f"<series> w1 <image> w{i % 5 + 3}", (curve(1 + i / 200, 2), picture(i))) for i in range(120)
    ]
    task_inference.write(task_inference.collect(model, both), tmp_path)
    kept = task_inference.read(tmp_path)
    assert kept.kind == ("image", "series") and kept.mean.shape == (32 + 2 * (8 + 8),)
    choose = task_inference.TaskInference(
        model, {"both": kept, "colour": task_inference.collect(model, COLOUR)}
    )
    assert len(choose.rule.thresholds["both"].distances) == 3
    own = Prompt("w1 <image> <series> w4", (picture(55), curve(1.2, 2)))
    other_series = Prompt("w1 <image> <series> w4", (picture(55), curve(40, 2, 7)))
    other_image = Prompt("w1 <image> <series> w4", (picture(0, 250, 250), curve(1.2, 2)))
    assert choose([own, other_series, other_image, COLOUR[3], TEXT[1]]) == [
        ("both",), (), (), ("colour",), (),
    ]  # fmt: skip
    assert choose([Prompt("<series> w1", (curve(1.2, 2),))]) == [()]
    other = task_inference.TaskInference(
        model, {"both": replace(kept, kind=("image", "touch")), "colour": choose.statistics["colour"]}
    )
    assert other.fingerprint() != choose.fingerprint()


def test_statistics_of_text_fit_models_with_and_without_images(model: MultimodalLM) -> None:
    bare = MultimodalLM(model.lm, model.tokenizer)
    tasks = {"text": TEXT, "more": [Prompt(f"w30 w31 w{i % 5 + 3}") for i in range(40)]}
    by_bare = {name: task_inference.collect(bare, prompts) for name, prompts in tasks.items()}
    by_seeing = {name: task_inference.collect(model, prompts) for name, prompts in tasks.items()}
    assert len(by_bare["text"].mean) < len(by_seeing["text"].mean)
    asked = [TEXT[3], tasks["more"][4]]
    for statistics in (by_bare, by_seeing, {"text": by_bare["text"], "more": by_seeing["more"]}):
        for own in (bare, model):
            assert task_inference.TaskInference(own, statistics)(asked) == [("text",), ("more",)]
        assert task_inference.accuracy(statistics) == {"text": 1.0, "more": 1.0}


def test_statistics_are_of_held_out_inputs_and_of_training_data_at_even_distances(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def rows(count: int, first: int) -> list[Conversation]:
        return [Conversation(turns=((f"w{first + i}", "w1"),)) for i in range(count)]

    monkeypatch.setattr(task_inference, "INPUTS", 5)
    found = [prompt.text for prompt in task_inference.inputs_of(rows(2, 0), rows(9, 10))]
    assert found == ["w0", "w1", "w10", "w13", "w16"]
    assert len(task_inference.inputs_of(rows(2, 0), rows(1, 10))) == 3
    assert [prompt.text for prompt in task_inference.inputs_of(rows(7, 0), rows(1, 10))] == [
        "w0", "w1", "w2", "w4", "w5"
    ]  # fmt: skip
    assert [prompt.text for prompt in task_inference.inputs_of(rows(2, 0), [])] == ["w0", "w1"]
    assert task_inference.places(2, 9) == [0, 3, 6] and task_inference.places(7, 9) == []
