"""The shipped models of the tiny base; test_versions.py pins their bytes."""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from torch import Tensor

import moextend
from moextend.bench.world.render import render
from moextend.bench.world.scenes import WORLD_VERSION, draw_scene
from moextend.model.generation import Prompt, choice_likelihoods

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "registry" / "models" / "tiny"
ITEMS = ROOT / "tasks" / "tiny" / "lm_eval" / "data"


def recorded(name: str = "") -> Any:
    return json.loads((FOLDER / name / "build.json").read_text())


def drawn(seed: int, count: int) -> tuple[list[Image.Image], Tensor]:
    """Pictures of train scenes, as images and scaled to [-1, 1]."""
    rng = random.Random(seed)
    pictures = np.stack([render(draw_scene(rng, "train")) for _ in range(count)])
    scaled = (torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5
    return [Image.fromarray(picture) for picture in pictures], scaled


def test_the_shipped_language_model_loads_and_scores_as_recorded() -> None:
    model, of = moextend.load("tiny"), recorded()["language"]
    assert model.lm.num_parameters() == of["parameters"] < 1_000_000
    assert model.lm.config.eos_token_id == model.tokenizer.eos_token_id
    for task in ("facts", "textqa"):
        items = [json.loads(line) for line in (ITEMS / f"{task}.jsonl").read_text().splitlines()]
        prompts, choices = [Prompt(item["context"]) for item in items], [item["choices"] for item in items]
        found = choice_likelihoods(model, prompts, choices, batch_size=256)
        hits = [each.index(max(each)) == item["gold"] for each, item in zip(found, items, strict=True)]
        assert 100 * sum(hits) / len(hits) == pytest.approx(of["accuracy"][task], abs=1)


@torch.no_grad()
def test_the_shipped_encoder_gives_features_of_the_recorded_scale() -> None:
    model = open_clip.create_model_and_transforms(f"local-dir:{FOLDER / 'vision'}")[0].eval()
    out = model.visual.forward_intermediates(
        drawn(0, 500)[1], indices=[2], intermediates_only=True, output_fmt="NLC"
    )
    features = out["image_intermediates"][-1]
    assert features.shape == (500, 9, 64)
    assert features.std().item() == pytest.approx(recorded()["vision"]["feature_std"], rel=0.01)


def test_preprocessing_is_the_identity_but_for_the_scale() -> None:
    _, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{FOLDER / 'vision'}")
    (image,), (scaled,) = drawn(1, 1)
    assert torch.equal(preprocess(image), scaled)


def test_the_models_are_of_this_world() -> None:
    assert recorded()["world_version"] == recorded("audio")["world_version"] == WORLD_VERSION


def test_the_tokenizer_goes_round_for_every_word() -> None:
    tokenizer = moextend.load("tiny").tokenizer
    words = " ".join(sorted(tokenizer.get_vocab().keys() - set(tokenizer.all_special_tokens)))
    ids = tokenizer(words)["input_ids"]
    assert ids[0] == tokenizer.bos_token_id and tokenizer.unk_token_id not in ids
    assert tokenizer.decode(ids, skip_special_tokens=True) == words
    assert tokenizer.encode("A: red <eos>")[-1] == tokenizer.eos_token_id
    assert tokenizer.encode("nonsense")[-1] == tokenizer.unk_token_id
    assert tokenizer(["Q", "Q how many"], padding=True)["attention_mask"][0] == [0, 0, 1, 1]
