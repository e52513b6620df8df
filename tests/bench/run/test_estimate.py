"""Estimates of `--dry-run` against measured stages, for every method; records, hub metadata, and items."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from moextend.bench import methods
from moextend.bench.run import data_size
from moextend.bench.run.downloads import download
from moextend.bench.run.plan import Request, resolve
from moextend.bench.run.preview import describe, preview
from moextend.bench.task import find_task
from moextend.errors import InputError
from moextend.training.encoder_size import EncoderSize, image_encoder
from tests.bench.run.measured import BASES, estimate, measure

SPECS = (
    "zero-shot", "full-ft", "lora", "lora-per-task", "replay", "replay:over=full-ft", "ewc:items=8",
    "ewc:over=full-ft,items=8", "lwf", "lwf:over=full-ft", "o-lora", "moe-lora", "moextend:scope=own,probe_steps=2",
    "moextend:scope=own,layers=first", "moextend:scope=all,layers=first,memory_tokens=64",
    "moextend:scope=own,routing=paper,layers=first", "moextend:scope=own,routing=slot,layers=first",
    "moextend:scope=all,retention=latent,layers=first,memory_tokens=96,memory_sample=48",
)  # fmt: skip


def check(spec: str, base: str, folder: Path) -> None:
    """Both stages of a method, each number within its limit."""
    # Which tokens and layers are assumed; whole inputs are sampled.
    assumed = any(word in spec for word in ("paper", "slot", "probe_steps", "latent"))
    memory, files = 0.3 if base == "tiny" else 0.15, 0.4 if "latent" in spec else 0.01
    for guess, real in zip(estimate(spec, base), measure(spec, base, folder), strict=True):
        assert guess.trained == real.trained and guess.stored == pytest.approx(
            real.stored, rel=files, abs=100
        )
        assert guess.operations == pytest.approx(real.operations, rel=0.2 if assumed else 0.05)
        assert guess.scoring == pytest.approx(real.scoring, rel=0.2 if assumed else 0.05)
        if real.trained:
            assert guess.peak == pytest.approx(real.peak, rel=memory)
        assert guess.scoring_peak == pytest.approx(real.scoring_peak, rel=memory)


def test_the_estimate_is_near_what_stages_take(tmp_path: Path) -> None:
    check("moextend:scope=own,layers=first", "tiny", tmp_path)
    assert {spec.partition(":")[0] for spec in SPECS} == set(methods.OWN)


@pytest.mark.long
@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("spec", SPECS)
def test_every_method_is_estimated(spec: str, base: str, tmp_path: Path) -> None:
    check(spec, base, tmp_path)


BIG = {
    "architectures": ["OlmoeForCausalLM"], "model_type": "olmoe", "dtype": "bfloat16", "hidden_size": 1024,
    "intermediate_size": 512, "num_hidden_layers": 6, "num_attention_heads": 8, "num_key_value_heads": 8,
    "num_experts": 32, "num_experts_per_tok": 4, "vocab_size": 8192, "max_position_embeddings": 2048,
}  # fmt: skip


def sequence(folder: Path, **more: Any) -> None:
    """A sequence over a base of which only the config is there."""
    (folder / "registry").mkdir(exist_ok=True)
    (folder / "big").mkdir(exist_ok=True)
    (folder / "big" / "config.json").write_text(json.dumps(BIG))
    text = {
        "sequence": "s", "version": 1, "base": {"model": "big", "vision": "tiny", "dtype": "auto"},
        "stages": [{"task": "tiny-counting"}, {"task": "tiny-attributes"}], "retention": ["arc"],
        "train": {"steps": 10, "batch_size": 4, "learning_rate": 1e-4, "bf16": True},
        "align": {"task": "tiny-captions", "steps": 5, "batch_size": 4, "learning_rate": 1e-4}, **more,
    }  # fmt: skip
    (folder / "registry" / "s.yaml").write_text(yaml.safe_dump(text))
    (folder / "tasks").mkdir(exist_ok=True)
    arc = {"task": "arc", "version": 1, "kind": "text", "lm_eval": {"task": "arc_easy"}}
    (folder / "tasks" / "arc.yaml").write_text(yaml.safe_dump(arc))


def test_a_dry_run_estimates_whole_runs_and_says_what_it_assumes(tmp_path: Path) -> None:
    sequence(tmp_path)
    request = Request(
        tmp_path, sequence="s", methods=("zero-shot", "lwf", "ewc", "moextend"), modes=("sequence",)
    )
    found = preview(request, resolve(request), small=True)
    (lm_eval,) = found["downloads"]
    assert "lm-eval" in lm_eval["what"], (
        "the base is a folder of the workspace, wherever the command is called"
    )
    record = found["estimate"]
    assert json.loads(json.dumps(record)) == record
    assert record["throughput_of"].startswith("20% of the peak of ")
    assert record["tokens"] == 128 + 9, "the encoder says how many tokens an image has"
    runs = record["runs"]
    for run in runs.values():
        parts = run["teraflop"]
        assert run["teraflop_in_all"] == pytest.approx(sum(parts.values()))
        assert run["hours"] == pytest.approx(run["teraflop_in_all"] / record["throughput"] / 3600)
        assert parts["alignment"] > 0 and parts["scoring"] > 0 and run["without_scoring_of"] == ["arc"]
    zero, lwf, ewc = (runs[f"{name}-s0"] for name in ("zero-shot", "lwf", "ewc"))
    assert zero["teraflop"]["training"] == 0 and not zero["memory"]["training"].get("frozen_gb")
    first, second = (stage["teraflop"]["training"] for stage in lwf["stages"])
    assert second > 1.1 * first, "the teacher answers from the second stage on"
    assert ewc["stages"][0]["stored_mb"] == pytest.approx(2 * lwf["stages"][0]["stored_mb"])
    assert ewc["stages"][0]["teraflop"]["other passes"] > 0 == lwf["stages"][0]["teraflop"]["other passes"]
    words = describe(found)
    assert "not measured" in words and "TFLOP/s (20% of the peak of " in words
    assert "Scoring of arc is not included: the number of items is not known." in words


def test_a_dry_run_refuses_a_layer_that_the_base_lacks(tmp_path: Path) -> None:
    sequence(tmp_path)
    request = Request(tmp_path, sequence="s", methods=("lora", "moextend:layers=5+6"))
    with pytest.raises(
        InputError, match=r"method 'moextend:layers=5\+6': layers \[5, 6\]: the model has MoE layers 0 to 5"
    ):
        preview(request, resolve(request), small=True)
    request = Request(tmp_path, sequence="tiny", methods=("lora", "moextend:layers=0+4"))
    with pytest.raises(
        InputError, match=r"method 'moextend:layers=0\+4': layers \[0, 4\]: the model has MoE layers 0 to 3"
    ):
        preview(request, resolve(request))  # a base too small for an estimate


def test_one_stage_of_all_tasks_and_stages_from_the_base(tmp_path: Path) -> None:
    sequence(tmp_path, align=None, retention=[])
    request = Request(
        tmp_path, sequence="s", methods=("moextend",), modes=("sequence", "joint", "independent")
    )
    runs = preview(request, resolve(request))["estimate"]["runs"]
    one, joint, alone = (next(run for run in runs.values() if run["mode"] == mode) for mode in request.modes)
    assert [len(run["stages"]) for run in (one, joint, alone)] == [2, 1, 2]
    assert joint["stages"][0]["steps"] == 20 and joint["stored_mb"] == one["stored_mb"] / 2
    assert joint["teraflop"]["training"] == pytest.approx(one["teraflop"]["training"])
    assert joint["teraflop"]["scoring"] < one["teraflop"]["scoring"]
    assert alone["memory"]["scoring"]["weights_gb"] < one["memory"]["scoring"]["weights_gb"]


def test_items_are_counted_without_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = find_task("tiny-counting", tmp_path)
    assert data_size.items_of(task, "train", tmp_path) == 24_000
    assert data_size.items_of(task, "test", tmp_path) == 500
    assert task.data is not None
    parts = task.data.model_copy(update={"train": "train[:90%]", "test": "train[90%:]"})
    held = task.model_copy(update={"data": parts})
    assert [data_size.items_of(held, split, tmp_path) for split in data_size.SPLITS] == [21_600, 2_400]
    rows = [{"question": "q", "answer": "a", "image": "x.png"}] * 7
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    local = task.model_copy(
        update={"data": task.data.model_copy(update={"path": "rows.json", "test": "all"})}
    )
    local = local.model_copy(update={"path": tmp_path / "t.yaml"})
    stated = {("org/set", None, None): {"all": 1000}}
    monkeypatch.setattr(data_size, "stated_splits", lambda *key: stated.get(key, {}))
    hub = task.model_copy(
        update={"data": task.data.model_copy(update={"path": "org/set", "test": "all[90%:]"})}
    )
    assert data_size.items_of(hub, "test", tmp_path) == 100
    assert data_size.items_of(hub, "train", tmp_path) is None, "the card states no such split"
    columns = local.columns.model_copy(update={"id": None, "kind": None, "group": None})
    local = local.model_copy(update={"columns": columns})
    assert data_size.items_of(local, "test", tmp_path) == 7


def test_encoders_are_known_by_name() -> None:
    large = image_encoder("ViT-L-14-336/openai")
    assert (large.tokens, large.width) == (576, 1024)
    assert image_encoder("ViT-L-14-336/openai:12x12").tokens == 144, "as its tokens are pooled"
    assert large.parameters and 300e6 < large.parameters < 310e6
    assert large.operations and 300e9 < large.operations < 400e9, "361 GFLOP without the last block"
    assert image_encoder("hf-hub:no/such") == EncoderSize(576, 1024), (
        "only a download knows: the assumed size"
    )


def test_a_model_is_in_the_cache_once_all_its_shards_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.HfApi.repo_info", lambda *args, **kwargs: 1 / 0)
    cached = tmp_path / "models--org--model" / "snapshots" / ("0" * 40)
    cached.mkdir(parents=True)
    (cached.parents[1] / "refs").mkdir()
    (cached.parents[1] / "refs" / "main").write_text(cached.name)
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}

    def missing() -> bool:
        return bool(download("org/model", "model", None))

    for name in ("config.json", "model-1.safetensors"):
        (cached / name).write_text("there")
    assert missing(), "it has no index"
    for text in ("", "[]", json.dumps({"weight_map": 1})):
        (cached / "model.safetensors.index.json").write_text(text)
        assert missing(), "its index is damaged"
    (cached / "model.safetensors.index.json").write_text(json.dumps(index))
    assert missing(), "a part is missing"
    (cached / "model-2.safetensors").write_text("there")
    assert not missing()
    (cached / "model.safetensors.index.json").unlink()
    (cached / "pytorch_model.bin").write_text("there")
    assert not missing(), "one file of another format"


def test_a_model_of_235_billion_parameters_is_estimated(tmp_path: Path) -> None:
    sequence(tmp_path, align=None, retention=[])
    config = Path(__file__).parents[2] / "fixtures" / "scale" / "Qwen3-235B-A22B" / "config.json"
    (tmp_path / "big" / "config.json").write_text(config.read_text())
    request = Request(tmp_path, sequence="s", methods=("lora",))
    found = preview(request, resolve(request))["estimate"]
    assert found["parameters"] == 235_093_634_560
    assert found["active_parameters"] == pytest.approx(22e9, rel=0.05)
