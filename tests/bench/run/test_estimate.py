"""Estimates of `--dry-run` against measured stages, their records, and settings that match trained parameters."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from moextend.bench import methods
from moextend.bench.data.source import SPLITS
from moextend.bench.methods import Shapes
from moextend.bench.run.estimate import Plan, items_of, matched, skeletons
from moextend.bench.run.plan import Request, all_tasks, resolve
from moextend.bench.run.preview import describe, preview
from moextend.bench.sequence import Base, find_sequence
from moextend.bench.task import find_task
from moextend.errors import InputError
from moextend.model import loading, quantising
from moextend.training.estimate import EncoderSize, Estimator, Step, bytes_of, image_encoder
from tests.bench.run import scale_doc
from tests.bench.run.measured import estimate, measure

SPECS = (
    "zero-shot", "full-ft", "lora", "lora-per-task", "replay", "ewc:items=1", "ewc:over=full-ft,items=8", "lwf",
    "o-lora", "moe-lora", "osf", "sdft", "esft:threshold=1,items=8", "moextend:scope=own,probe_steps=2",
    "merge-router:layers=first,merge_steps=4", "moextend:scope=own,layers=first",
    "moextend:scope=own,routing=paper,layers=first", "moextend:scope=own,routing=slot,layers=first",
)  # fmt: skip


def check(spec: str, base: str, folder: Path) -> None:
    """Both stages of a method, each number within its limit."""
    # Which tokens and layers are assumed; of a merge, how many tokens of its texts are learned. A pass that chooses
    # experts is left out.
    assumed = any(word in spec for word in ("paper", "slot", "probe_steps", "ewc", "sdft", "merge", "esft"))
    memory = 0.3 if base == "tiny" else 0.15
    for guess, real in zip(estimate(spec, base), measure(spec, base, folder), strict=True):
        assert guess.trained == real.trained and guess.stored == pytest.approx(real.stored, rel=0.01, abs=100)
        assert guess.operations == pytest.approx(real.operations, rel=0.2 if assumed else 0.05)
        assert guess.scoring == pytest.approx(real.scoring, rel=0.2 if assumed else 0.05)
        if real.trained:
            assert guess.peak == pytest.approx(real.peak, rel=memory)
        assert guess.scoring_peak == pytest.approx(real.scoring_peak, rel=memory)


def test_the_estimate_is_near_what_stages_take(tmp_path: Path) -> None:
    check("moextend:scope=own,layers=first", "tiny", tmp_path)
    assert {spec.partition(":")[0] for spec in SPECS} == set(methods.OWN)


@pytest.mark.long
@pytest.mark.parametrize("spec", SPECS)
def test_every_method_is_estimated(spec: str, tmp_path: Path) -> None:
    check(spec, "mid", tmp_path)


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
    request = Request(tmp_path, sequence="s", methods=("zero-shot", "lwf", "ewc", "moextend"))
    found = preview(request, resolve(request))
    (lm_eval,) = found["downloads"]
    assert "lm-eval" in lm_eval["what"], (
        "the base is a folder of the workspace, wherever the command is called"
    )
    record = found["estimate"]
    assert json.loads(json.dumps(record)) == record
    assert record["tokens"] == 128 + 9, "the encoder says how many tokens an image has"
    runs = record["runs"]
    for run in runs.values():
        parts = run["teraflop"]
        assert run["hours"] == pytest.approx(sum(parts.values()) / record["throughput"] / 3600)
        assert parts["alignment"] > 0 and parts["scoring"] > 0 and run["without_scoring_of"] == ["arc"]
    zero, lwf, ewc = (runs[f"{name}-s0"] for name in ("zero-shot", "lwf", "ewc"))
    assert zero["teraflop"]["training"] == 0 == zero["memory_gb"]["training"]
    assert ewc["stored_mb"] == pytest.approx(2 * lwf["stored_mb"])
    words = describe(found)
    assert "not measured" in words and "198 TFLOP/s (20% of the peak of an H100 in bfloat16)" in words
    assert "Scoring of arc is not included: the number of items is not known." in words


def test_a_dry_run_refuses_a_layer_that_the_base_lacks(tmp_path: Path) -> None:
    sequence(tmp_path)
    request = Request(tmp_path, sequence="s", methods=("lora", "moextend:layers=5+6"))
    with pytest.raises(InputError, match=r"method 'moextend:layers=.*the model has MoE layers 0 to 5"):
        preview(request, resolve(request))


def test_one_stage_of_all_tasks_and_stages_from_the_base(tmp_path: Path) -> None:
    sequence(tmp_path, align=None, retention=[])
    request = Request(tmp_path, sequence="s", methods=("full-ft", "joint", "individual"))
    runs = preview(request, resolve(request))["estimate"]["runs"].values()
    one, joint, alone = (
        next(run for run in runs if run["mode"] == mode) for mode in ("sequence", "joint", "independent")
    )
    assert joint["stored_mb"] == one["stored_mb"] / 2 == alone["stored_mb"] / 2
    assert joint["teraflop"]["training"] == pytest.approx(one["teraflop"]["training"])
    assert joint["teraflop"]["scoring"] < one["teraflop"]["scoring"]


def test_items_are_counted_without_data(tmp_path: Path) -> None:
    task = find_task("tiny-counting", tmp_path)
    assert [items_of(task, split, tmp_path) for split in SPLITS] == [24_000, 500]
    assert task.data is not None
    parts = task.data.model_copy(update={"train": "train[:90%]", "test": "train[90%:]"})
    held = task.model_copy(update={"data": parts})
    assert [items_of(held, split, tmp_path) for split in SPLITS] == [21_600, 2_400]
    rows = [{"question": "q", "answer": "a", "image": "x.png"}] * 7
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    columns = task.columns.model_copy(update={"id": None, "kind": None, "group": None})
    data = task.data.model_copy(update={"path": "rows.json", "test": "all"})
    local = task.model_copy(update={"path": tmp_path / "t.yaml", "columns": columns, "data": data})
    assert items_of(local, "test", tmp_path) == 7


def test_published_models_are_known_by_name_or_config(tmp_path: Path) -> None:
    large = image_encoder("ViT-L-14-336/openai")
    assert (large.tokens, large.width, round((large.parameters or 0) / 1e6)) == (576, 1024, 304)
    assert image_encoder("hf-hub:no/such") == EncoderSize(576, 1024), "only a download knows: assumed"
    sequence(tmp_path, align=None, retention=[])
    config = Path(__file__).parents[2] / "fixtures" / "scale" / "OLMoE-1B-7B-0924" / "config.json"
    (tmp_path / "big" / "config.json").write_text(config.read_text())
    request = Request(tmp_path, sequence="s", methods=("lora",))
    assert preview(request, resolve(request))["estimate"]["parameters"] == 6_919_161_856


@pytest.mark.long
def test_the_table_of_published_models_is_current() -> None:
    page = scale_doc.DOC.read_text(encoding="utf-8")
    assert scale_doc.table("Mixtral-8x7B-v0.1") in page
    assert all(scale_doc.cards(model) in page for model in ("OLMoE-1B-7B-0924", "gpt-oss-20b"))


MAKE = skeletons(Base(model="tiny"), Path("nowhere"))
WHOLE = "moextend:layers=all,width=1"
EXPERT = 3 * 96 * 128
"""Of the tiny base: gate, up and down projection; 4 layers of 4 experts, of which 2 are chosen."""


def match(texts: Sequence[str], how: Any) -> Any:
    return matched([methods.parse(text) for text in texts], how, plan_of("nowhere"))


def plan_of(workspace: str) -> Plan:
    sequence = find_sequence("tiny", Path(workspace))
    return Plan(sequence, all_tasks(sequence, Path(workspace)), Path(workspace), MAKE)


@pytest.mark.parametrize("how", ["nf4", "int8"])
def test_a_quantised_base_is_estimated_as_it_is_stored(how: Any) -> None:
    full, packed = (Estimator(loading.skeleton("tiny"), None, each) for each in (None, how))
    size = quantising.size(packed.lm, how, torch.float32)
    step = Step(2, 32, 4, bf16=False)
    mine, theirs = packed.training(step), full.training(step)
    assert mine.frozen == size < theirs.frozen == bytes_of(full.lm.parameters())
    assert mine.working - theirs.working == packed.dense == 4 * 96 * 256, "gate and up of an expert"
    assert (packed.answering(1, 8, 2).weights, mine.operations) == (size, theirs.operations)


def test_replay_keeps_as_many_bytes_as_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Plan, "_count", lambda plan, name, split: 24_000)
    one = "moextend:scope=all,layers=0,experts=4,width=1"
    found = match(["replay:rank=12", "ewc:rank=12", "replay:mb=3,rank=12"], f"memory={one}")
    plan, mb = plan_of("nowhere"), 1e6
    wanted, adapter = (plan.kept(methods.parse(text)) / mb for text in (one, "lora:rank=12"))
    replay, ewc, fixed = found
    assert replay[0].text == f"replay:rank=12,mb={(wanted - adapter) / 3:.3g}"
    assert f"; {wanted:.2f} MB kept, " in replay[1] and wanted > 2 * adapter > 2 * 4 * 147_456 / mb
    assert ewc[1].endswith(f"; {3 * 2 * adapter:.2f} MB kept, without raw data")
    assert fixed[0].text == "replay:mb=3,rank=12"
    (small,) = match(["replay:rank=4"], "memory=lora:rank=2")
    assert small[0].text == "replay:rank=4" and "NOT matched with" in small[1]


@pytest.mark.parametrize(
    ("text", "params"),
    [
        ("moextend:layers=all,width=1", 4 * (EXPERT + 96 + 1)),
        ("moextend:layers=all", 4 * (EXPERT // 4 + 96 + 1)),
        ("moextend:layers=probe,width=1", 2 * (EXPERT + 96 + 1)),
        ("moextend:layers=all,width=1,experts=2", 4 * 2 * (EXPERT + 96 + 1)),
        ("lora:rank=3", 4 * 3 * (4 * (96 + 96) + 4 * (96 + 256 + 128 + 96))),
        ("lora:rank=3,experts=false", 4 * 3 * 4 * (96 + 96)),
        ("zero-shot", 0),
    ],
)
def test_sizes_are_those_of_the_shapes(text: str, params: int) -> None:
    found = methods.parse(text).make().trainable(Shapes(MAKE()))
    assert sum(parameter.numel() for parameter in found.values()) == params
    assert not any(".lora_" in name for name, _ in MAKE().named_parameters()), "each skeleton is another one"


def test_ranks_are_set_and_what_cannot_be_matched_is_reported(tmp_path: Path) -> None:
    texts = ["zero-shot", "full-ft", "lora", "moe-lora", "lora:rank=2", "ewc:over=full-ft", WHOLE]
    found = match(texts, "params")
    assert [spec.text for spec, _ in found] == [
        "zero-shot", "full-ft", "lora:rank=12", "moe-lora:rank=9", "lora:rank=2", "ewc:over=full-ft", WHOLE,
    ]  # fmt: skip
    words = {spec.text: note for spec, note in found}
    assert words["lora:rank=12"] == "lora:rank=12: 147,456 trained parameters"
    assert "its rank is set; 24,576 trained parameters, NOT matched within 10%" in words["lora:rank=2"]
    assert "it has no rank; 0 trained" in words["zero-shot"]
    assert words[WHOLE].endswith("147,844 trained parameters, which the others are matched to")
    assert match(["lora"], "params=o-lora")[0][0].text == "lora", "it is matched already"
    request, notes = Request(tmp_path, methods=("lora", "moextend"), match="params"), list[str]()
    assert [config.slug for config in resolve(request, notes.append)] == ["lora+rank-12-s0", "moextend-s0"]
    assert len(notes) == 2


@pytest.mark.parametrize(
    ("text", "rank", "chosen"),
    [
        ("moextend:layers=all", 24, "moextend:layers=all,width=1,experts=2"),
        ("moextend:layers=all", 8, "moextend:layers=all,width=0.68"),
        ("moextend:layers=all", 1, "moextend:layers=all,width=0.06"),
        ("moextend:layers=all", 3, "moextend:layers=all"),
        ("moextend:layers=all,routing=slot", 24, "moextend:layers=all,routing=slot,experts=2"),
        ("moextend:layers=all,width=0.5", 24, "moextend:layers=all,width=0.5"),
    ],
)
def test_a_named_reference_sets_the_number_and_width_of_new_experts(
    text: str, rank: int, chosen: str
) -> None:
    found = match([text, "lora"], f"params=lora:rank={rank}")
    assert found[0][0].text == chosen
    near = "NOT matched" not in found[0][1]
    assert near == (rank > 1 and (text != chosen or rank == 3))


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("flops", "cannot match 'flops'"),
        ("params", "no moextend among the methods"),
        ("params=zero-shot", "'zero-shot' trains nothing"),
        ("params=lara", "no method 'lara'"),
    ],
)
def test_wrong_requests_to_match(how: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        match(["lora"], how)
