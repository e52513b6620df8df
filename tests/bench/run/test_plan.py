"""Plans of runs from the user's options, with all settings resolved."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from moextend.bench.run.plan import Request, distinct_orders, ordered, resolve
from moextend.bench.run.preview import describe, preview
from moextend.bench.run.rundir import RunConfig
from moextend.bench.sequence import Stage
from moextend.errors import InputError, SpecError, UnknownName

SEQUENCE = {
    "sequence": "mine",
    "version": 1,
    "base": {"model": "tiny"},
    "stages": [{"task": "tiny-counting"}, {"task": "tiny-reading", "steps": 7}],
    "retention": ["tiny-facts"],
    "train": {"steps": 5, "batch_size": 2, "learning_rate": 0.1},
    "methods": ["lora", "full-ft"],
    "settings": {"lora": {}, "full-ft": {"learning_rate": 0.01}},
}


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def write(name: str = "sequence", **changes: Any) -> Path:
        path = tmp_path / "registry" / f"{name}.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(yaml.safe_dump({**SEQUENCE, **changes}))
        return path

    return write


def slugs(configs: Sequence[RunConfig]) -> list[str]:
    return [config.slug for config in configs]


def test_without_a_name_the_workspaces_sequence_runs_else_the_default(
    tmp_path: Path, write: Callable[..., Path]
) -> None:
    assert {config.sequence["sequence"] for config in resolve(Request(tmp_path))} == {"tiny"}
    write()
    configs = resolve(Request(tmp_path))
    assert [config.sequence["sequence"] for config in configs] == ["mine", "mine"]
    assert slugs(configs) == ["lora-s0", "full-ft-s0"]


def test_every_method_seed_order_and_mode_is_a_run(tmp_path: Path) -> None:
    request = Request(
        tmp_path,
        methods=("lora", "lora", "joint:lora"),
        seeds=(0, 1),
        orders=("given", "reverse"),
    )
    assert sorted(slugs(resolve(request))) == [
        "lora-s0", "lora-s0-joint", "lora-s0-reverse", "lora-s0-reverse-joint",
        "lora-s1", "lora-s1-joint", "lora-s1-reverse", "lora-s1-reverse-joint",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("named", "found"),
    [
        (("joint",), ["full-ft-s0-joint"]),
        (("individual", "joint"), ["full-ft-s0-independent", "full-ft-s0-joint"]),
        (("lora", "joint"), ["full-ft-s0-joint", "lora-s0"]),
        (("joint:full-ft", "joint", "joint:"), ["full-ft-s0-joint"]),
        (("joint:lora", "ewc"), ["ewc-s0", "lora-s0-joint"]),
    ],
)
def test_the_bounds_may_be_named_among_the_methods(
    tmp_path: Path, write: Callable[..., Path], named: tuple[str, ...], found: list[str]
) -> None:
    assert sorted(slugs(resolve(Request(tmp_path, methods=named)))) == found
    write(methods=[*named])
    assert sorted(slugs(resolve(Request(tmp_path)))) == found


def test_options_without_effect_on_results_are_not_part_of_the_run(
    tmp_path: Path, write: Callable[..., Path]
) -> None:
    write()

    def lora() -> RunConfig:
        return resolve(Request(tmp_path, methods=("lora",)))[0]

    before = lora()
    write(description="other", methods=["lora"], settings={"full-ft": {"learning_rate": 0.5}, "lora": {}})
    assert lora().digest == before.digest
    write(settings={"lora": {"learning_rate": 0.5}})
    assert lora().digest != before.digest


def test_limit_and_steps_override_the_sequence(tmp_path: Path, write: Callable[..., Path]) -> None:
    align = {"task": "tiny-captions", "steps": 100, "batch_size": 2, "learning_rate": 0.1}
    write(align=align, base={"model": "tiny", "vision": "tiny"})
    config = resolve(Request(tmp_path, limit=9, steps=3))[0]
    assert config.sequence["scoring"]["limit"] == 9
    assert config.sequence["align"]["steps"] == 3
    assert [stage["steps"] for stage in config.sequence["stages"]] == [None, None]
    assert config.sequence["train"]["steps"] == 3
    assert set(config.tasks) == {"tiny-captions", "tiny-counting", "tiny-reading", "tiny-facts"}


@pytest.mark.parametrize(
    ("steps", "align_steps", "found"),
    [(None, None, 100), (3, None, 3), (500, None, 100), (3, 7, 7)],
)
def test_an_alignment_is_at_most_as_long_as_steps_unless_its_own_are_asked_for(
    tmp_path: Path, write: Callable[..., Path], steps: int | None, align_steps: int | None, found: int
) -> None:
    align = {"task": "tiny-captions", "steps": 100, "batch_size": 2, "learning_rate": 0.1}
    write(align=align, base={"model": "tiny", "vision": "tiny"})
    config = resolve(Request(tmp_path, steps=steps, align_steps=align_steps))[0]
    assert config.sequence["align"]["steps"] == found
    assert [each.steps for each in config.sequence_spec.align] == [found]  # what the worker trains


@pytest.mark.parametrize(
    ("number", "asked", "names"),
    [
        (5, ("random:3",), ["random:1", "random:2", "random:3"]),
        (5, ("random:1", "random:2"), ["random:1", "random:2"]),
        (3, ("random:3",), ["random:1", "given", "reverse"]),
        (3, ("random:2", "given"), ["given", "random:1", "reverse"]),
        (2, ("given", "random:3"), ["given", "reverse"]),
        (1, ("given", "reverse", "random:9"), ["given"]),
    ],
)
def test_an_order_runs_once(number: int, asked: tuple[str, ...], names: list[str]) -> None:
    stages, notes = [Stage(task=name) for name in "abcde"[:number]], list[str]()
    assert distinct_orders(stages, asked, notes.append) == names
    assert len({tuple(stage.task for stage in ordered(stages, name)) for name in names}) == len(names)
    assert bool(notes) == (number < 3), notes


@pytest.mark.parametrize("order", ["rand", "random", "random:x", "random:-1", "random:0", "random:1001", ""])
def test_an_order_that_there_is_not(order: str) -> None:
    with pytest.raises(InputError, match="Orders: given, reverse, random:N"):
        distinct_orders([], [order])


def test_wrong_requests(tmp_path: Path, write: Callable[..., Path]) -> None:
    write()
    with pytest.raises(UnknownName, match=r"no sequence 'tinyy'\. Did you mean 'tiny'"):
        resolve(Request(tmp_path, sequence="tinyy"))
    with pytest.raises(UnknownName, match="Did you mean 'lora'"):
        resolve(Request(tmp_path, methods=("lara",)))
    with pytest.raises(InputError, match="no such key"):
        resolve(Request(tmp_path, methods=("lora:rnk=3",)))
    (tmp_path / "registry" / "bad.yaml").write_text("a: [1\n")
    with pytest.raises(SpecError, match=r"bad.yaml:2:1: not valid YAML"):
        resolve(Request(tmp_path, sequence="bad"))


def test_one_method_spelled_in_two_ways_is_refused(tmp_path: Path) -> None:
    """They would be two rows of one method."""
    for names in (("lora:rank=7", "lora:rank=007"), ("moextend", "moextend:scope=own")):
        with pytest.raises(InputError, match=f"--method: '{names[0]}' and '{names[1]}' are the same method"):
            resolve(Request(tmp_path, sequence="tiny", methods=names))
    assert len(resolve(Request(tmp_path, sequence="tiny", methods=("lora:rank=7", "lora:rank=8")))) == 2
    matched = Request(tmp_path, sequence="tiny", methods=("moextend", "lora", "lora:rank=8"), match="params")
    assert [config.method for config in resolve(matched)] == ["moextend", "lora:rank=12", "lora:rank=8"]


def test_the_preview_of_the_default_needs_no_download(tmp_path: Path) -> None:
    request = Request(tmp_path, methods=("lora", "joint:lora", "full-ft"))
    found = preview(request, resolve(request))
    assert json.loads(json.dumps(found)) == found
    assert found["downloads"] == []
    stages, text = len(found["runs"][0]["stages"]), sum(task["kind"] == "text" for task in found["tasks"])
    cells = (stages + 1) * (stages + text)
    assert [run["cells"] for run in found["runs"]] == [cells, cells, 2 * (stages + text)]
    words = describe(found)
    (tuned,) = (line for line in words.splitlines() if "full-ft-s0" in line)
    assert tuned.endswith("settings from validation items of tiny-dev"), tuned
    assert "lora-s0: tiny-attributes (" in words
    assert "lora-s0-joint: all at once: " in words
    assert "Downloads: none." in words
    assert "Memory and hours: a base whose files have 3.0 MB fits any GPU." in words


def test_the_preview_says_that_settings_were_chosen_on_test_items(
    tmp_path: Path, write: Callable[..., Path]
) -> None:
    write(tuned_on="test items")
    request = Request(tmp_path, methods=("lora", "individual:lora"))
    lines = describe(preview(request, resolve(request))).splitlines()[1:3]
    assert all(line.endswith("; settings from test items") for line in lines), lines


def test_the_preview_names_downloads_and_non_commercial_licences(
    tmp_path: Path, write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    tasks = tmp_path / "tasks"
    tasks.mkdir()
    data = {"version": 1, "kind": "vqa", "licence": "CC-BY-NC-SA-4.0", "non_commercial": True}
    (tasks / "icons.yaml").write_text(
        yaml.safe_dump({"task": "icons", **data, "data": {"path": "no-such/icons"}})
    )
    arc = {"task": "arc", "version": 1, "kind": "text", "lm_eval": {"task": "arc_easy"}}
    (tasks / "arc.yaml").write_text(yaml.safe_dump(arc))
    base = {"model": "no-such/moe", "vision": "ViT-B-32/openai"}
    write(base=base, stages=[{"task": "icons"}], retention=["arc"])
    request = Request(tmp_path)
    words = describe(preview(request, resolve(request)))
    assert "licence CC-BY-NC-SA-4.0 (NON-COMMERCIAL USE ONLY)" in words
    for part in ("model no-such/moe from the hub (size not known)", "image encoder ViT-B-32/openai",
                 "dataset no-such/icons", "lm-eval's arc_easy",
                 "Memory and hours: not estimated until the base's config is available."):  # fmt: skip
        assert part in words


def test_tasks_that_run_generated_code_are_skipped_and_reported(
    tmp_path: Path, write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_ALLOW_CODE_EVAL", raising=False)
    write(retention=["tiny-facts", "mbpp"])
    output: list[str] = []
    request = Request(tmp_path, methods=("lora",))
    config = resolve(request, output.append)[0]
    assert config.retention == ["tiny-facts"]
    assert output == ["left out: mbpp. It runs code that the model writes; --allow-code scores it."]
    words = describe(preview(request, [config]))
    assert "mbpp: left out. It runs code that the model writes; --allow-code scores it." in words
    monkeypatch.setenv("HF_ALLOW_CODE_EVAL", "1")
    request = Request(tmp_path, methods=("lora",))
    assert resolve(request, output.append)[0].retention == ["tiny-facts", "mbpp"]
    assert len(output) == 1 and "left out" not in describe(preview(request, resolve(request)))


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (
            {"settings": {"lorra": {"learning_rate": 0.1}}},
            r"settings: no method 'lorra'\. Did you mean 'lora'",
        ),
        (
            {"retention": ["tiny-counting"]},
            r"retention\[0\]: 'tiny-counting' is a vqa task, and retention holds text",
        ),
        (
            {"transfer": ["tiny-facts"]},
            r"transfer\[0\]: 'tiny-facts' is a text task, and transfer holds tasks about images",
        ),
    ],
)
def test_options_without_effect_are_refused(
    tmp_path: Path,
    write: Callable[..., Path],
    change: dict[str, Any],
    what: str,
) -> None:
    write(**change)
    with pytest.raises(InputError, match=what):
        resolve(Request(tmp_path))


def test_a_quantised_base_is_another_run_and_is_not_trained(
    tmp_path: Path, write: Callable[..., Path]
) -> None:
    bases = [{"model": "tiny"}, {"model": "tiny", "quantize": None}, {"model": "tiny", "quantize": "nf4"}]
    digests = []
    for base in bases:
        write(base=base, methods=["lora", "moextend"], settings={})
        digests.append(next(iter(resolve(Request(tmp_path)))).digest)
    assert digests[0] == digests[1] != digests[2]
    for method in ("full-ft", "esft", "osf", "ewc:over=full-ft"):
        with pytest.raises(
            InputError, match=rf"^--method: '{method}' trains weights of the base.*base\.quantize"
        ):
            resolve(Request(tmp_path, methods=(method,)))
    with pytest.raises(
        InputError, match=r"'joint' trains weights of the base.*such as lora, moextend or joint:lora"
    ):
        resolve(Request(tmp_path, methods=("lora", "joint")))
    notes = list[str]()
    found = resolve(Request(tmp_path, methods=("all", "joint:lora")), notes.append)
    assert {"lora-s0", "lora-s0-joint", "moextend-s0"} <= {config.slug for config in found}
    assert "left out: 'full-ft' trains weights of the base, and base.quantize is nf4." in notes
    assert any(note.startswith("left out: 'joint' trains") for note in notes)
    words = describe(preview(Request(tmp_path), resolve(Request(tmp_path))))
    assert "base tiny in nf4." in words.splitlines()[0]
    write(base={"model": "tiny", "quantize": "nf4", "dtype": "float64"})
    with pytest.raises(SpecError, match=r"base\.quantize takes base\.dtype float32"):
        resolve(Request(tmp_path))
    write(base={"model": "tiny", "quantize": "nf5"})
    with pytest.raises(SpecError, match=r"base\.quantize"):
        resolve(Request(tmp_path))
