"""`bench paper`: a LaTeX project whose numbers, settings and references are those of the runs."""

import contextlib
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from moextend.bench import methods
from moextend.bench.report import paper
from moextend.bench.report.collect import Experiment, collect
from moextend.bench.report.formats.latex import environment, escape
from moextend.bench.report.paper import compile_pdf
from moextend.bench.report.paper.setup import Bibliography, find_entries, read_bib
from moextend.bench.report.style import find_style
from moextend.bench.report.table import Column, Table, number, text
from moextend.bench.run.records import StageCost
from moextend.errors import InputError, RunFailed, SpecError, visible
from moextend.util import content
from tests.bench import ledger

MakePaper = Callable[..., paper.Written]
HOSTILE = (
    r"\write18{touch x} #1 100% a_b^2 ~$&{} <b>[bold]z[/] -- ''?` \input{/etc/passwd} " + "\x1b[2J\u202e中é"
)


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    folder = tmp_path_factory.mktemp("paper")
    kinds = {
        "lora": ledger.Kind(keeps=0.2),
        "ewc": ledger.Kind(keeps=0.4),
        "moextend:scope=own": ledger.Kind(learned=0.95, keeps=1.0, text_lost=0.0),
        "moextend:scope=all": ledger.Kind(learned=0.8, keeps=0.8),
        "mine:k_x=50%&#": ledger.Kind(),
    }
    runs = ledger.write_runs(folder / "runs", ledger.Shape(items=60, texts=2, transfers=1), kinds, (0, 1, 2))
    for place, run in enumerate(runs, 1):
        own = "scope=own" in run.config.method
        run.write_facts(
            task_identity="given" if own else "none", settings={"rank": place // 4, "alpha": None}
        )
        for stage, task in enumerate(run.config.stages, 1):
            run.write_cost(stage, task, StageCost(trained_parameters=1000 * place, tokens=5, flops=2e12))
    return collect(runs)[0]


@pytest.fixture
def make(experiment: Experiment, tmp_path: Path) -> MakePaper:
    def write(
        folder: str = "out", draw: paper.Draw = lambda experiment, names, folder: [], style: str = ""
    ) -> paper.Written:
        (tmp_path / "report.yaml").write_text(style or "{}")
        return paper.write(experiment, find_style(None, tmp_path), tmp_path / folder, draw)

    return write


def test_a_project_has_tables_setup_references_and_a_document(make: MakePaper, tmp_path: Path) -> None:
    written = make()
    names = {str(path.relative_to(tmp_path / "out")) for path in written.files}
    assert names == {
        "main.tex", "notes.tex", "setup.tex", "references.bib", "tables/main.tex", "tables/tasks.tex",
        "tables/text.tex", "tables/transfer.tex", "tables/ablations.tex", "tables/costs.tex",
    }  # fmt: skip
    main = (tmp_path / "out" / "main.tex").read_text()
    assert set(re.findall(r"\\input\{(.*?)\}", main)) == {
        name[:-4] for name in names if name.endswith(".tex")
    } - {"main"}
    assert r"\label{tab:main}" in (tmp_path / "out/tables/main.tex").read_text()
    assert set(written.uncited) == {"mine", "only1", "task1", "task2", "task3", "text1", "text2"}


def test_the_setup_is_that_of_the_runs(make: MakePaper, tmp_path: Path) -> None:
    make()
    shown = (tmp_path / "out" / "setup.tex").read_text().replace(r"\allowbreak{}", "")
    for words in (
        r"The base is \texttt{tiny} (weights in float32)", r"\texttt{task1} (60 test items)", "4 steps, batches of 2",
        "AdamW with learning rate 0.1", "Seeds: 0, 1, 2", "rank 0", "15,000 trained parameters per stage",
        "Trained parameters: LoRA", "Given the task of every input: MoExtend own",
        r"\texttt{exact@1} for", "Python 3.", "torch ", "CPU cores", "greedy decoding", "item mine: rank 3",
        r"MoExtend all~\cite{zhong2024moextend}: ", r"scored by moextend~\cite{moextend}, with",
    ):  # fmt: skip
        assert words in shown, words
    assert "alpha" not in shown, "settings without a value are not listed"


def test_names_and_order_are_those_of_the_style(make: MakePaper, tmp_path: Path) -> None:
    make(style="methods: {'moextend:scope=own': Ours & co, lora: LoRA}\n")
    table = (tmp_path / "out/tables/main.tex").read_text()
    assert table.index(r"Ours \& co$\dagger$") < table.index("LoRA &")
    setup = (tmp_path / "out" / "setup.tex").read_text()
    assert r"\item Ours \& co~\cite{zhong2024moextend}: " in setup


def test_a_second_call_keeps_the_document_and_renews_what_is_its_own(make: MakePaper, tmp_path: Path) -> None:
    make()
    main, table = tmp_path / "out" / "main.tex", tmp_path / "out" / "tables" / "main.tex"
    main.write_text("mine")
    table.write_text(f"{paper.MARK}\nold")
    assert main in make().kept and main.read_text() == "mine"
    assert "old" not in table.read_text().splitlines()
    other = tmp_path / "out" / "references.bib"
    other.write_text("@book{mine}")
    with pytest.raises(
        InputError, match=r"references\.bib: already exists and was not written by this command"
    ):
        make()
    assert other.read_text() == "@book{mine}"


def test_figures_stand_in_the_document(make: MakePaper, tmp_path: Path) -> None:
    def draw(experiment: Experiment, names: Mapping[str, str], folder: Path) -> list[paper.Picture]:
        assert names["lora"] == "Adapter" and names["moextend:scope=all"] == "MoExtend all"
        folder.mkdir(parents=True)
        (folder / "a.pdf").write_bytes(b"%PDF")
        return [paper.Picture("a.pdf", "50% & more")]

    assert make(draw=draw, style="methods: {lora: Adapter}").pictures == 1
    main = (tmp_path / "out" / "main.tex").read_text()
    assert "{figures/a.pdf}" in main and r"\caption{50\% \& more}" in main


def test_every_method_and_data_set_of_the_package_has_a_whole_reference(tmp_path: Path) -> None:
    entries = [entry for entry in find_entries(tmp_path) if entry.text]
    found = Bibliography(find_entries(tmp_path))
    found.cite(
        *methods.OWN, *content.names("tasks", tmp_path), "metric:transfer", "metric:forgetting", "test:holm"
    )
    for path in content.names("registry", tmp_path).values():
        found.cite(*re.findall(r"\bmodel: ([^,\s}]+)", path.read_text()))
    assert found.unknown == []
    texts: dict[str, str] = {}
    for entry in entries:
        fields = set(re.findall(r"^  (\w+) = \{.*\},$", entry.text, re.MULTILINE))
        assert {"author", "title", "year"} <= fields and fields & {"booktitle", "journal", "howpublished"}, (
            entry.key
        )
        assert entry.used_by and entry.text.isascii() and entry.text.count("{") == entry.text.count("}")
        assert texts.setdefault(entry.key, entry.text) == entry.text, "one key, one entry"


def test_references_of_a_workspace_go_first(tmp_path: Path) -> None:
    (tmp_path / "methods").mkdir()
    (tmp_path / "methods" / "references.bib").write_text(
        "@article{hu2022lora,\n usedby = {mine},\n title = {A {nested} one},\n}\n"
        "@comment{none,\n usedby = {other},\n}\n"
    )
    found = Bibliography(find_entries(tmp_path))
    assert found.cite("mine", "other") == found.cite("lora") == r"~\cite{hu2022lora}" and found.unknown == []
    assert "A {nested} one" in found.text and "Allen-Zhu" not in found.text


def test_a_damaged_bib_file_is_one_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "references.bib"
    path.write_text("@article{a,\n title = {open,\n}")
    with pytest.raises(SpecError, match="the braces of 'a' are not closed"):
        read_bib(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(SpecError, match="not UTF-8"):
        read_bib(path)


needs_tex = pytest.mark.skipif(
    shutil.which("pdflatex") is None,
    reason="needs pdflatex: apt-get install texlive-latex-recommended texlive-science",
)


@needs_tex
def test_the_project_compiles_without_a_warning(make: MakePaper, tmp_path: Path) -> None:
    make()
    made = compile_pdf(tmp_path / "out")
    assert made is not None and made.pdf.read_bytes().startswith(b"%PDF") and made.warnings == []
    assert not list((tmp_path / "out").glob("main.aux")), "what TeX leaves is removed"


@needs_tex
def test_a_document_starts_no_program(tmp_path: Path) -> None:
    (tmp_path / "main.tex").write_text(
        r"\documentclass{article}\begin{document}\immediate\write18{touch shell}\input{|touch pipe}x\end{document}"
    )
    with contextlib.suppress(RunFailed):
        compile_pdf(tmp_path)
    assert not {"shell", "pipe"} & {path.name for path in tmp_path.iterdir()}


@needs_tex
def test_an_error_of_tex_is_one_line_with_its_log(tmp_path: Path) -> None:
    (tmp_path / "main.tex").write_text(
        r"\documentclass{article}\usepackage{nosuchthing}\begin{document}x\end{document}"
    )
    with pytest.raises(RunFailed, match=r"main\.log: .*nosuchthing\.sty.*Install the package") as error:
        compile_pdf(tmp_path)
    assert len(str(error.value).splitlines()) == 1


@needs_tex
@pytest.mark.skipif(
    shutil.which("pdftotext") is None, reason="needs pdftotext: apt-get install poppler-utils"
)
def test_hostile_words_are_printed_as_they_are(tmp_path: Path) -> None:
    columns = [Column("name", HOSTILE, numeric=False), Column("x", HOSTILE)]
    table = Table(
        "key", HOSTILE, columns, [[[text(HOSTILE), number(-1.5, 0.2)], [text("b"), text(HOSTILE)]]], [HOSTILE]
    )
    body = environment(table, "tab:x")
    (tmp_path / "main.tex").write_text(
        r"\documentclass{article}\usepackage{booktabs,siunitx,tabularx}\usepackage[T1]{fontenc}"
        r"\usepackage[landscape,margin=1cm]{geometry}\begin{document}" + body + r"\end{document}"
    )
    made = compile_pdf(tmp_path)
    assert made is not None
    subprocess.run(["pdftotext", "-layout", made.pdf, tmp_path / "out.txt"], check=True)
    shown = (tmp_path / "out.txt").read_text()
    words = [r"\write18{touch", "x}", "#1", "100%", "~$&{}", "<b>[bold]z[/]", r"\input{/etc/passwd}"]
    for word in words:
        assert shown.count(word) >= 4, (word, shown)
    assert not re.search("[\x1b\u202e]", escape(HOSTILE)) and visible(HOSTILE) != HOSTILE
    assert not (tmp_path / "x").exists()
