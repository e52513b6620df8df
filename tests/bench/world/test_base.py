import json
from pathlib import Path

import open_clip
import pytest
import torch

import moextend
from moextend.bench.world import base, language, vision
from moextend.bench.world.scenes import WORLD_VERSION
from moextend.bench.world.text import text_items

FOLDER = Path(__file__).parents[3] / "registry" / "models" / "tiny"
RECORD = json.loads((FOLDER / "build.json").read_text())


def test_the_shipped_language_model_loads_and_scores_as_recorded() -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(FOLDER / "lm").eval()
    tokenizer = AutoTokenizer.from_pretrained(FOLDER / "lm")
    assert model.num_parameters() == RECORD["language"]["parameters"] < 1_000_000
    assert tokenizer.get_vocab() == language.IDS
    assert model.config.eos_token_id == tokenizer.eos_token_id
    for task in ("facts", "textqa"):
        score = language.text_accuracy(moextend.load("tiny"), text_items(task))
        assert score == pytest.approx(RECORD["language"]["accuracy"][task], abs=1)


def test_the_shipped_encoder_reads_shapes_and_letters() -> None:
    model = open_clip.create_model_and_transforms(f"local-dir:{FOLDER / 'vision'}")[0].eval()
    assert RECORD["world_version"] == WORLD_VERSION
    features = vision.patch_features(model, vision.pixels(vision.probe_scenes(0, 4, "test")))
    assert features.shape == (4, 9, vision.WIDTH)
    probes = vision.probe_accuracies(model, seed=3, learned=1000, scored=200)
    assert probes["color"] > 97 and probes["shape"] > 93 and probes["letter"] > 85
    assert vision.feature_scale(model, 0) == pytest.approx(RECORD["vision"]["feature_std"], rel=0.01)


def test_preprocessing_is_the_identity_but_for_the_scale() -> None:
    from PIL import Image

    from moextend.bench.world.render import render

    _, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{FOLDER / 'vision'}")
    scene = vision.probe_scenes(1, 1, "test")[0]
    assert torch.equal(preprocess(Image.fromarray(render(scene))), vision.pixels([scene])[0])


@pytest.mark.long
def test_a_short_build_writes_everything_and_repeats_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vision, "POOL", 20)
    recipe = base.Recipe(language_steps=2, language_batch=4, vision_steps=2, vision_batch=2)
    for name in ("one", "two"):
        base.build(recipe, tmp_path / name)
    files = sorted(str(p.relative_to(tmp_path / "one")) for p in (tmp_path / "one").rglob("*") if p.is_file())
    assert {"build.json", "lm/config.json", "vision/open_clip_config.json"} <= set(files)
    for name in ("lm/model.safetensors", "vision/open_clip_model.safetensors"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
