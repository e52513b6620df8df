"""Runs -> a small LaTeX project: tables, figures, how it was done, and what to cite.

`main.tex` and `latexmkrc` are written once and are the author's from then on; all other files are written again by
every call, so that new runs reach the paper.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from moextend.bench.report.ablations import ablation_tables
from moextend.bench.report.collect import Experiment
from moextend.bench.report.costs import costs_table
from moextend.bench.report.forgetting import forgetting_table
from moextend.bench.report.latex import Labels, Notes, environment, escape, pages
from moextend.bench.report.orders import orders_tables
from moextend.bench.report.paper.bibliography import Bibliography, find_entries
from moextend.bench.report.paper.setup import setup_text
from moextend.bench.report.ranks import ranked
from moextend.bench.report.sources import with_sources
from moextend.bench.report.style import Styling, TableStyle
from moextend.bench.report.table import Table
from moextend.bench.report.tasks import TITLES as TASK_TITLES
from moextend.bench.report.tasks import tasks_table, text_table, transfer_table
from moextend.bench.report.variants import variant_tables
from moextend.errors import InputError
from moextend.util import files

MARK = "% Written by moextend bench paper: changes here are lost at its next call."
MAIN = r"""\documentclass[10pt,twocolumn]{article}
\def\DoNotLoadEpstopdf{}%% figures are PDF: no program has to be started
\usepackage[margin=2cm]{geometry}
\usepackage{booktabs,graphicx,siunitx,tabularx}
\emergencystretch=5em\hbadness=10000

\title{%(title)s}
\author{}
\date{}

\begin{document}
\maketitle

\section{Experimental setup}
\input{setup}

\section{Results}
%(main)s
%(figures)s%(further)s
\clearpage
\section{Notes to the tables}
\input{notes}
\bibliographystyle{plain}
\bibliography{references}
\end{document}
"""
LATEXMKRC = """$pdf_mode = 1;
$pdflatex = 'pdflatex -interaction=nonstopmode -halt-on-error -no-shell-escape %O %S';
"""
TITLES = {
    **TASK_TITLES, "ablations": "settings of a method",
    "rewind": "scaled models", "subsets": "models without some stages", "costs": "costs",
}  # fmt: skip
"""Tables besides the main one -> what they show."""


@dataclass(frozen=True)
class Picture:
    """A figure that was drawn into the project."""

    file: str
    """Its name in `figures/`."""
    caption: str


Draw = Callable[[Experiment, Mapping[str, str], Path], Sequence[Picture]]
"""Draws an experiment's figures, with other names for methods and tasks, into a folder; none where it cannot."""


@dataclass(frozen=True)
class Written:
    """What was written."""

    files: list[Path]
    kept: list[Path]
    """Files that were there and are the author's."""
    pictures: int
    uncited: list[str]
    """Methods, tasks and models of which no reference is known."""


def write(experiment: Experiment, styling: Styling, folder: Path, draw: Draw) -> Written:
    """Writes the project of one experiment.

    Raises:
        InputError: a file of the project is there and was not written by this function.
        UnknownName: the style names a column, task or method that does not exist.
    """
    styling = styling.for_papers([experiment])
    (experiment,) = styling.arranged([experiment])
    bibliography = Bibliography(find_entries(styling.workspace))
    texts = {f"tables/{name}.tex": text for name, text in _tables(experiment, styling).items()}
    notes = texts.pop("tables/notes.tex")
    further = [name for name in TITLES if f"tables/{name}.tex" in texts]
    texts["setup.tex"] = setup_text(experiment, styling.names, bibliography)
    texts["notes.tex"] = notes
    texts["references.bib"] = bibliography.text
    _refuse_foreign(folder, texts)
    pictures = list(draw(experiment, styling.names, folder / "figures"))
    once = {"main.tex": _main(experiment, styling, further, pictures), "latexmkrc": LATEXMKRC}
    kept = [folder / name for name in once if files.exists(folder / name)]
    made = {name: f"{MARK}\n{text}" for name, text in texts.items()}
    made |= {name: text for name, text in once.items() if folder / name not in kept}
    for name, text in made.items():
        files.write_text(folder / name, text)
    drawn = [folder / "figures" / picture.file for picture in pictures]
    return Written([*(folder / name for name in made), *drawn], kept, len(pictures), bibliography.unknown)


def _refuse_foreign(folder: Path, names: Iterable[str]) -> None:
    """InputError if a file or the figures' folder is there that this module did not write."""
    paths = [path for name in names if files.exists(path := folder / name)]
    foreign = [path for path in paths if not (path.is_file() and path.read_bytes().startswith(MARK.encode()))]
    if not paths and files.exists(folder / "figures"):
        foreign.append(folder / "figures")
    if foreign:
        raise InputError(
            "already exists and was not written by this command.",
            where=str(foreign[0]),
            hint="Name another --out folder, or move the file.",
        )


def _tables(experiment: Experiment, styling: Styling) -> dict[str, str]:
    """Name -> table environments; `notes` are the paragraphs of notes."""
    text, transfer = text_table(experiment), transfer_table(experiment)
    made: dict[str, list[Table]] = {
        "main": [forgetting_table(experiment), *orders_tables(experiment)],
        "tasks": [tasks_table(experiment)],
        "text": [text] if text else [],
        "transfer": [transfer] if transfer else [],
        "ablations": ablation_tables(experiment),
        **variant_tables(experiment),
        "costs": [costs_table(experiment)] if any(result.costs for result in experiment.results) else [],
    }
    labels, notes, texts = Labels(), Notes(), dict[str, str]()
    for name, found in made.items():
        shown = [with_sources([experiment], ranked(experiment, table)) for table in found]
        parts = [part for table in styling.styled(shown) for part in pages(table)]
        named = [(part, labels.of(part, f"tab:{name}")) for part in parts]
        for one in named:
            notes.add(*one)
        if named:
            place = "tp" if name == "main" else "htp"
            texts[name] = "\n".join(environment(*one, place=place) for one in named)
    return {**texts, "notes": notes.text}


def _label(styling: Styling, name: str) -> str:
    """What the first table of a file is referred to by."""
    style: TableStyle = getattr(styling.style.tables, "forgetting" if name == "main" else name)
    return style.label or f"tab:{name}"


def _main(
    experiment: Experiment, styling: Styling, further: Sequence[str], pictures: Sequence[Picture]
) -> str:
    floats = "".join(
        "\\begin{figure}[tp]\n\\centering\n"
        f"\\includegraphics{{figures/{picture.file}}}\n"
        f"\\caption{{{escape(picture.caption)}}}\n\\end{{figure}}\n"
        for picture in pictures
    )
    named = ", ".join(f"{TITLES[name]} (Table~\\ref{{{_label(styling, name)}}})" for name in further)
    inputs = "\n".join(f"\\input{{tables/{name}}}" for name in further)
    return MAIN % {
        "title": f"Forgetting on {escape(experiment.name)}",
        "main": f"Table~\\ref{{{_label(styling, 'main')}}} has the results. Further tables: {named}.\n"
        "\\input{tables/main}\n",
        "figures": floats,
        "further": f"{inputs}\n",
    }
