"""Every view as LaTeX: plain ASCII that compiles and fits its column."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from moextend.bench.references import find_reference
from moextend.bench.report import VIEWS, How, render, tables
from moextend.bench.report.collect import collect
from moextend.bench.report.paper import TITLES
from moextend.bench.run.records import RoutingReport, StageCost
from moextend.util import content
from tests.bench import ledger

PREAMBLE = r"""\documentclass[twocolumn]{article}
\usepackage{booktabs,siunitx,tabularx}
\begin{document}
%s
\end{document}
"""


@pytest.fixture(scope="module")
def latex(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """View -> its LaTeX, of runs whose names hold what LaTeX minds."""
    kinds = {
        "moextend:scope=all,k_x=2": ledger.Kind(),
        "lora": ledger.Kind(),
        "lora:rank=2": ledger.Kind(),
        "a&b~50%^#$é中<": ledger.Kind(learned=0.95, keeps=1.0),
    }
    runs = ledger.write_runs(
        tmp_path_factory.mktemp("latex"), ledger.Shape(items=20, transfers=1), kinds, (0, 1)
    )
    for number, run in enumerate(runs, 1):
        run.write_facts(
            task_identity="given", text_untouched=True, majority=dict.fromkeys(run.config.stages, 20.0)
        )
        for stage, task in enumerate(run.config.stages, 1):
            run.write_cost(stage, task, StageCost(trained_parameters=1000 * number, tokens=5, flops=2e12))
            folder = run.stage_folder(stage, task)
            seen = {"tokens": 5, "experts": [{"": [1, 2]}], "reached": [{"task1": 0.5}], "drift": [0.1]}
            found = {"tasks": {"task1": seen, "(text)": seen}, "layers": [0, 1], "change": [0.1, 0.2]}
            RoutingReport.parse({**found, "run": run.id}, where="").write(folder / "routing.json")
            if number == len(runs):
                (folder / "routing.json").write_text("{")
        ledger.write_variants(run)
    folder, shape = runs[0].folder.parents[1], ledger.Shape(items=20, transfers=1)
    for method, kind in list(kinds.items())[:2]:
        runs += [ledger.write_run(folder, shape, method, seed, kind, order="reverse") for seed in (0, 1)]
    experiments = collect(runs)
    views = {view: tables(experiments, view, How("lora")) for view in VIEWS}
    assert len(views["forgetting"]) == 2, "with the table of seeds and orders"
    assert len(views["comparison"]) == 3, "of each order, and of the mean over orders"
    nowhere = tmp_path_factory.mktemp("none")
    published = content.names("registry/references", nowhere)
    assert published
    views |= {
        name: tables([], how=How(references=[find_reference(name, nowhere)])) for name in list(published)[:2]
    }
    return {view: render(shown, "latex") for view, shown in views.items()}


def test_latex_of_every_view_is_plain_ascii_without_loose_specials(latex: dict[str, str]) -> None:
    assert "neq" in latex["costs"] and "\\dagger" in latex["forgetting"] and "\\S{}" in latex["text"]
    note = "given the task id"
    assert note in latex["forgetting"] and note in latex["tasks"]
    assert f"{note}." not in latex["text"] + latex["transfer"], "inputs of no learned task"
    for view, text in latex.items():
        assert text.isascii(), view
        for line in text.splitlines():
            # commands, what they take, and the & and \\\\ of rows aside, no special may be left
            bare = re.sub(r"^% needs .*|\\(?:label|ref)\{[\w:.-]+\}|%$", "", line)
            bare = re.sub(r"^\\paragraph\{Notes to Table~|\\begin\{tabularx\}.*", "", bare)
            bare = re.sub(r"\\[&%$#_{}]|\\\\$| & |\$[^$]{1,9}\$", "", bare)
            assert not re.search(r"[&%$#_~^]", bare), (view, line)
            assert bare.count("{") == bare.count("}") or line.startswith(r"\paragraph"), line


@pytest.mark.long  # 9 s; those of papers are compiled by test_paper.py
def test_latex_views_besides_those_of_papers_compile_and_fit_their_column(
    latex: dict[str, str], tmp_path: Path
) -> None:
    pdflatex = shutil.which("pdflatex")
    if pdflatex is None:
        pytest.skip("needs pdflatex: apt-get install texlive-latex-recommended texlive-science")
    (tmp_path / "views.tex").write_text(
        PREAMBLE % "\n\\clearpage\n".join(text for view, text in latex.items() if view not in TITLES)
    )
    command = [pdflatex, "-interaction=nonstopmode", "-halt-on-error", "-draftmode", "views.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout[-2000:]
    complaints = re.findall(
        r"^Overfull.*|^.*Warning: (?!Label|Reference|There were).*", done.stdout, re.MULTILINE
    )
    assert not complaints
