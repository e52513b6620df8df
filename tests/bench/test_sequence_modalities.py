"""Sequences whose base has encoders of several modalities, each with its alignment."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from moextend.bench.run import preflight
from moextend.bench.run.context import RunContext, alignments_of, plan
from moextend.bench.run.opening import open_run
from moextend.bench.run.plan import Request, all_tasks, resolve
from moextend.bench.run.preview import describe, preview
from moextend.bench.run.records import AlignmentCost
from moextend.bench.sequence import Base, SequenceSpec, read_sequence
from moextend.errors import InputError, SpecError

TRAIN = {"steps": 4, "batch_size": 2, "learning_rate": 0.1}
COLUMNS: dict[str, dict[str, Any]] = {
    "see": {"image": "image"},
    "look": {"image": "image"},
    "hear": {"audio": "clip"},
    "listen": {"audio": "clip"},
    "watch": {"video": "clip"},
    "both": {"image": "image", "audio": "clip"},
    "feel": {"media": {"smell": "curve"}},
    "read": {"image": None},
}
BOTH = {"model": "tiny", "vision": "tiny", "audio": "data:ears"}


def align(*names: str) -> list[dict[str, Any]]:
    return [{"task": name, **TRAIN} for name in names]


def written(workspace: Path, stages: list[str], **changes: Any) -> SequenceSpec:
    """A sequence of the workspace, with its tasks."""
    for folder in ("registry", "tasks"):
        (workspace / folder).mkdir(exist_ok=True)
    for name, columns in COLUMNS.items():
        task = {"task": name, "version": 1, "kind": "vqa", "data": {"path": "none.jsonl"}, "columns": columns}
        (workspace / "tasks" / f"{name}.yaml").write_text(yaml.safe_dump(task))
    record = {
        "sequence": "mine", "version": 1, "base": BOTH, "stages": [{"task": name} for name in stages], "train": TRAIN,
    }  # fmt: skip
    path = workspace / "registry" / "mine.yaml"
    path.write_text(yaml.safe_dump(record | changes))
    return read_sequence(path)


def check(workspace: Path) -> None:
    sequence, *_ = Request(workspace, sequence="mine").read
    preflight.check(sequence, all_tasks(sequence, workspace), workspace)


def test_one_alignment_or_a_list(tmp_path: Path) -> None:
    one = written(tmp_path, ["see"], align=align("look")[0])
    assert [each.task for each in one.align] == ["look"] and isinstance(one.model_dump()["align"], dict)
    two = written(tmp_path, ["see", "hear"], align=align("look", "listen"))
    assert [each.task for each in two.align] == ["look", "listen"]
    (config,) = resolve(Request(tmp_path, sequence="mine", methods=("lora",), steps=2))
    assert [each["steps"] for each in config.sequence["align"]] == [2, 2]
    assert config.sequence_spec.align == Request(tmp_path, sequence="mine", steps=2).read[0].align
    assert list(config.tasks) == ["see", "hear", "look", "listen"]
    assert written(tmp_path, ["see"]).align == ()


@pytest.mark.parametrize(
    ("changes", "place", "message"),
    [
        ({"align": {**TRAIN}}, "mine.yaml: align[0].task", "is missing"),
        ({"align": [*align("look"), {**TRAIN}]}, "mine.yaml: align[1].task", "is missing"),
        ({"align": [{"task": "look", **TRAIN, "stps": 1}]}, "align[0].stps", "Did you mean 'steps'?"),
        ({"align": {"task": "look", **TRAIN, "stps": 1}}, "align[0].stps", "Did you mean 'steps'?"),
        ({"align": align("look", "look")}, "mine.yaml", "'look' occurs twice"),
        ({"align": align("look")[0], "base": {"model": "tiny"}}, "mine.yaml", "base.vision, base.audio"),
        (
            {"base": {"model": "tiny", "encoders": {"image": "x"}}},
            "base.encoders",
            "write base.vision instead",
        ),
    ],
)
def test_alignments_that_cannot_be(changes: dict[str, Any], place: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError) as caught:
        written(tmp_path, ["see"], **changes)
    assert place in str(caught.value) and message in str(caught.value)


@pytest.mark.parametrize(
    ("stages", "changes", "message"),
    [
        (["see", "hear"], {"base": {"model": "tiny", "vision": "tiny"}},
         "mine.yaml: base.audio: 'hear' is about sounds, and the base has no audio encoder."),
        (["both"], {"base": {"model": "tiny", "vision": "tiny"}},
         "mine.yaml: base.audio: 'both' is about sounds, and the base has no audio encoder."),
        (["hear", "see"], {"base": {"model": "tiny", "audio": "data:ears"}},
         "mine.yaml: base.vision: 'see' is about images, and the base has no image encoder."),
        (["feel"], {}, "mine.yaml: base.encoders.smell: 'feel' is about smell, and the base has no smell encoder."),
        (["see"], {"align": align("listen"), "base": {"model": "tiny", "vision": "tiny"}},
         "mine.yaml: base.audio: 'listen' is about sounds, and the base has no audio encoder."),
        (["see"], {"align": align("look", "listen", "see")},
         "mine.yaml: align: 'look' and 'see' train the same projector, of images."),
        (["see"], {"align": align("both")},
         "mine.yaml: align.task: 'both' has images and sounds, and an alignment trains the projector of one modality."),
        (["see"], {"align": align("read")}, "align.task: 'read' has no media, and an alignment trains"),
        (["see"], {"base": {**BOTH, "encoders": {"smell": "x"}}},
         "mine.yaml: base.encoders.smell: no modality 'smell'."),
        (["see"], {"base": {**BOTH, "audio": "nothing"}}, "mine.yaml: base.audio"),
    ],
)  # fmt: skip
def test_modalities_are_checked_before_anything_is_loaded(
    stages: list[str], changes: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("moextend.load", lambda *_, **__: pytest.fail("a model was loaded"))
    written(tmp_path, stages, **changes)
    with pytest.raises(InputError) as caught:
        check(tmp_path)
    assert message in str(caught.value)
    assert isinstance(caught.value, SpecError) or "encoders.smell: no" in message or "nothing" in str(changes)


def test_an_encoder_to_be_put_in_place(tmp_path: Path) -> None:
    written(tmp_path, ["see", "hear"])
    check(tmp_path)
    request = Request(tmp_path, sequence="mine", methods=("lora",))
    words = describe(preview(request, resolve(request)))
    assert (
        f"To be provided by hand:\n  Copy the folder of the model or encoder there.\n    {tmp_path}/data/ears"
        in words
    )
    sequence, *_ = request.read
    with pytest.raises(InputError, match=r"base\.audio: no folder '.*/data/ears'\. .*Put the encoder there"):
        preflight.check_here(sequence, all_tasks(sequence, tmp_path), tmp_path, device="cpu", runs=None)
    assert sequence.base.encoders_in(tmp_path) == {"image": "tiny", "audio": str(tmp_path / "data" / "ears")}
    assert Base(model="data:lm").found(tmp_path) == str(tmp_path / "data" / "lm")


def test_an_alignment_is_a_cost_of_the_first_stage_with_its_modality(tmp_path: Path) -> None:
    written(tmp_path, ["read", "see", "both", "hear"], align=align("look", "listen"))
    (config,) = resolve(Request(tmp_path, sequence="mine", methods=("lora",)))
    context = RunContext(open_run(config, tmp_path / "runs"))
    costs = {name: AlignmentCost(task=name, steps=4) for name in ("image", "audio")}
    context.alignments.update(costs)
    assert [alignments_of(context, stage) for stage in range(1, 5)] == [
        {}, {"image": costs["image"]}, {"audio": costs["audio"]}, {},
    ]  # fmt: skip
    assert [(unit.phase, unit.task) for unit in plan(context)[:2]] == [("align", "look"), ("align", "listen")]
