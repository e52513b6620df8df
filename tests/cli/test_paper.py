"""`bench paper` and `--style`, called as a user does."""

import re
import shlex
import shutil
from functools import partial
from pathlib import Path

import pytest

from moextend.bench.run.opening import open_run
from moextend.bench.run.progress import _write
from moextend.bench.run.records import Status
from moextend.bench.run.rundir import RunDir
from moextend.cli.figures import FIGURES
from tests.bench import ledger
from tests.cli.conftest import Cli

PAGE = Path(__file__).parents[2] / "docs" / "figures.md"


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[RunDir]:
    """Runs of a sequence `tiny` with two tasks, in the workspace."""
    monkeypatch.setattr(ledger, "config", partial(ledger.config, name="tiny"))
    kinds = {
        name: ledger.Kind(keeps=keeps)
        for name, keeps in (("lora", 0.2), ("full-ft", 0.3), ("moextend", 0.9), ("moextend:scope=auto", 1.0))
    }
    return ledger.write_runs(tmp_path / "runs", ledger.Shape(items=40, stages=2), kinds, (0, 1))


def test_the_page_does_what_it_says(
    cli: Cli, runs: list[RunDir], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    text = PAGE.read_text("utf-8").partition("\n## Papers\n")[2]
    for line in "".join(re.findall(r"^```sh\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)).splitlines():
        done = cli(*shlex.split(line)[1:])
        assert done.code == 0, f"{line}\n{done.err}"
    assert (tmp_path / "ablations.tex").read_text().count(r"\begin{table") == 1
    (style,) = re.findall(r"^```yaml\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    (tmp_path / "report.yaml").write_text(style)
    done = cli("bench", "report")
    assert done.code == 0, done.err
    assert done.out.startswith("Accuracy and forgetting. tiny: 2 tasks, base tiny\n")
    rows = re.findall(r"^ (MoExtend|LoRA|Full fine-tuning|lora|moextend)\b", done.out, re.MULTILINE)
    assert rows == ["MoExtend", "LoRA", "Full fine-tuning", "moextend"]
    (tmp_path / "methods").mkdir()
    (bib,) = re.findall(r"^```bibtex\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    (tmp_path / "methods" / "references.bib").write_text(bib)
    assert cli("bench", "paper", "--out", "paper").code == 0


def test_without_a_tex_the_project_is_written_all_the_same(
    cli: Cli, runs: list[RunDir], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    done = cli("bench", "paper", "--out", "paper")
    assert done.code == 0 and "wrote paper/main.tex" in done.out
    for name in FIGURES:
        assert f"{{figures/{name}.pdf}}" in Path("paper/main.tex").read_text()
        assert Path(f"paper/figures/{name}.pdf").read_bytes().startswith(b"%PDF")
    assert "no PDF: TeX was not found (apt-get install" in done.err
    assert "no reference is known for: task1, task2, text1" in done.err
    done = cli("bench", "paper", "--out", "paper", "--no-pdf")
    assert "kept paper/main.tex: it is yours" in done.out and "no TeX" not in done.err


def test_runs_of_two_experiments_make_no_paper(cli: Cli, runs: list[RunDir], tmp_path: Path) -> None:
    other = runs[0].config.model_copy(update={"sequence": {**runs[0].config.sequence, "version": 2}})
    run = open_run(other, tmp_path / "runs2")
    _write(run.folder, Status(state="done"))
    done = cli("bench", "paper", "tiny", run.folder, "--out", "paper")
    assert done.code == 2 and "these are 2 experiments: tiny (8 runs), tiny (1 run)" in done.err
    assert not (tmp_path / "paper").exists()


@pytest.mark.parametrize("command", [["report"], ["paper", "--out", "paper"]])
def test_a_wrong_style_is_one_line_before_anything_is_written(
    cli: Cli, runs: list[RunDir], tmp_path: Path, command: list[str]
) -> None:
    (tmp_path / "mine.yaml").write_text("tables: {forgetting: {colums: [acc]}}")
    done = cli("bench", *command, "--style", "mine.yaml")
    assert done.code == 2 and not done.out and not (tmp_path / "paper").exists()
    assert (
        "mine.yaml: tables.forgetting.colums: no such key." in done.err
        and "Did you mean 'columns'?" in done.err
    )
    assert cli("bench", *command, "--style", "none.yaml").code == 2
