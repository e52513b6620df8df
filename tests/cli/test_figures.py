"""`moextend bench figures` and `report items`, and what docs/figures.md says of them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import matplotlib
import pandas as pd
import pytest

from moextend.bench.figures import FIGURES
from moextend.bench.report.frame import COLUMNS
from tests.bench import ledger

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "figures.md").read_text(encoding="utf-8")


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Four runs in the workspace."""
    kinds = {"lora": ledger.Kind(run_sd=0.05), "moextend": ledger.Kind(keeps=1.0)}
    shape = ledger.Shape(stages=2, texts=1, items=12)
    for run in ledger.write_runs(tmp_path / "runs", shape, kinds, (0, 1)):
        ledger.write_variants(run)
    return tmp_path / "runs"


def test_all_figures_are_written(cli: Any, runs: Path, tmp_path: Path) -> None:
    done = cli("bench", "figures", "ledger", "--out", "made", "--format", "png")
    assert done.code == 0, done.err
    assert done.out.split()[1::2] == [f"made/{name}.png" for name in FIGURES]
    assert {path.name for path in (tmp_path / "made").iterdir()} == {f"{name}.png" for name in FIGURES}


def test_figures_have_the_style_of_the_workspace(cli: Any, runs: Path, tmp_path: Path) -> None:
    def drawn(*more: str) -> bytes:
        assert cli("bench", "figures", "--out", "made", "-f", "png", "--only", "plasticity", *more).code == 0
        return (tmp_path / "made" / "plasticity.png").read_bytes()

    plain = drawn()
    (tmp_path / "report.yaml").write_text("methods: {lora: LoRA}")
    named = drawn()
    (tmp_path / "other.yaml").write_text("{}")
    assert plain != named and drawn("--style", "other.yaml") == plain


def test_a_figure_without_data_is_named(cli: Any, tmp_path: Path) -> None:
    ledger.write_run(tmp_path / "runs", ledger.Shape(stages=1, texts=0, items=4), "lora", 0, ledger.Kind())
    done = cli("bench", "figures", "--out", "made", "--format", "svg", "--only", "matrix")
    assert done.code == 0
    asked = cli("bench", "figures", "--out", "made", "--only", "plasticity")
    assert asked.code == 2 and "error: plasticity: no run learned two tasks." in asked.err
    every = cli("bench", "figures", "--out", "made", "--format", "svg")
    assert every.code == 0 and "left out: plasticity: no run learned two tasks." in every.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--only", "matrx"], "no figure 'matrx'. Did you mean 'matrix'?"),
        (["--format", "gif"], "no format 'gif'. Available: pdf, png, svg."),
        (["--method", "lroa"], "no method 'lroa'. Did you mean 'lora'?"),
        (["--baseline", "lroa"], "no method 'lroa'. Did you mean 'lora'?"),
        (["nothing"], "no run 'nothing'."),
    ],
)
def test_wrong_input(cli: Any, runs: Path, tmp_path: Path, arguments: list[str], words: str) -> None:
    done = cli("bench", "figures", "--out", "made", *arguments)
    assert done.code == 2 and words in done.err and done.err.count("\n") == 1
    assert not list((tmp_path / "made").glob("*"))


def test_figures_of_several_experiments_do_not_overwrite_each_other(cli: Any, tmp_path: Path) -> None:
    for stages in (1, 2):
        shape = ledger.Shape(stages=stages, texts=0, items=4)
        ledger.write_run(tmp_path / f"runs{stages}", shape, "lora", 0, ledger.Kind())
    done = cli("bench", "figures", "runs1", "runs2", "--out", "made", "--format", "png", "--only", "accuracy")
    made = done.out.split()[1::2]
    assert len({*made}) == 2 and all(re.fullmatch(r"made/ledger-\w{8}-accuracy\.png", one) for one in made)


def test_items_as_a_file_and_as_text(cli: Any, runs: Path, tmp_path: Path) -> None:
    text = cli("bench", "report", "items", "-f", "csv")
    assert text.code == 0 and text.out.splitlines()[0] == ",".join(COLUMNS)
    assert len(text.out.splitlines()) == 1 + 4 * 3 * 3 * 12
    done = cli("bench", "report", "lora-s0", "items", "-f", "parquet", "--out", "new/items.parquet")
    assert done.out == "wrote new/items.parquet\n"
    assert len(pd.read_parquet(tmp_path / "new" / "items.parquet")) == 3 * 3 * 12
    assert cli("bench", "report", "items", "-f", "csv", "--out", "new").out == "wrote new/items.csv\n"


def test_items_name_what_is_missing(cli: Any, runs: Path) -> None:
    for path in (runs / "ledger" / "lora-s0" / "predictions").glob("*/task1-*"):
        path.write_text("broken\n" * 12)
    (runs / "ledger" / "lora-s1" / "status.json").unlink()
    done = cli("bench", "report", "items", "-f", "csv")
    assert done.code == 0 and "left out: lora-s1 (waiting)" in done.err
    assert "the predictions of task1 (damaged: " in done.err


def test_the_page_shows_every_figure() -> None:
    shown = re.findall(r"\]\(images/figures/([\w-]+)\.png\)", PAGE)
    assert sorted(shown) == sorted(FIGURES)
    for name in shown:
        assert f"`{name}`" in PAGE
        assert (ROOT / "docs" / "images" / "figures" / f"{name}.png").stat().st_size < 300_000
    assert (ROOT / "docs" / "images" / "matrix.svg").stat().st_size < 60_000


def test_the_code_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = {"full-ft": ledger.Kind(), "lora": ledger.Kind()}
    shape = ledger.Shape(stages=3, texts=1, items=12)
    ledger.write_runs(tmp_path / "demo" / "runs", shape, kinds, [0])
    monkeypatch.chdir(tmp_path)
    matplotlib.use("agg")
    code = "\n".join(re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL))
    code = code.replace('"tiny"', '"ledger"').replace("tiny-counting", "task2")
    scope: dict[str, Any] = {}
    exec(compile(code, "docs/figures.md", "exec"), scope)
    assert len(scope["lost"]) > 0 and len(scope["results"]) == 2 * 4 * 4 * 12
    assert scope["left"].lines and scope["right"].get_legend()
