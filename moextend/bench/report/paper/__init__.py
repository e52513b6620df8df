"""Runs -> a small LaTeX project: tables, figures, how it was done, and what to cite.

`main.tex` is written once and is the author's from then on; all other files are written again by every call, so that
new runs reach the paper.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from moextend.bench.report import view
from moextend.bench.report.collect import Experiment
from moextend.bench.report.formats.latex import Document, escape
from moextend.bench.report.paper.setup import Bibliography, find_entries, setup_text
from moextend.bench.report.style import Styling
from moextend.bench.report.views.tasks import TITLES as TASK_TITLES
from moextend.errors import InputError, RunFailed
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
TITLES = {
    **TASK_TITLES, "ablations": "settings of a method",
    "rewind": "scaled models", "subsets": "models without some stages", "costs": "costs",
}  # fmt: skip
"""Tables besides the main one -> what they show."""


ENGINE = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape"]
SAFE = {"shell_escape": "f", "openout_any": "p", "max_print_line": "1000"}
"""Settings of TeX: no other programs, no files outside the project, log lines that are not cut."""
SECONDS = 300
LEFTOVERS = (".aux", ".bbl", ".blg", ".log", ".out")
_WARNING = re.compile(
    r"^(?:LaTeX|Package \w+|Class \w+|LaTeX Font) Warning: .*|^(?:Over|Under)full .*|^pdfTeX warning.*",
    re.MULTILINE,
)
INSTALL = "apt-get install texlive-latex-recommended texlive-science"


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
    main = folder / "main.tex"
    kept = [main] if files.exists(main) else []
    made = {name: f"{MARK}\n{text}" for name, text in texts.items()}
    made |= {} if kept else {"main.tex": _main(experiment, further, pictures)}
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
    document, texts = Document(), dict[str, str]()
    for name in ("main", *TITLES):
        if name == "costs" and not any(result.costs for result in experiment.results):
            continue
        try:
            tables = view(experiment, "forgetting" if name == "main" else name)
        except InputError:  # the view itself names what is damaged
            continue
        place = "tp" if name == "main" else "htp"
        parts = [
            part
            for table in styling.styled(tables)
            for part in document.add(table, f"tab:{name}", place=place)
        ]
        if parts:
            texts[name] = "\n".join(parts)
    return {**texts, "notes": document.notes}


def _main(experiment: Experiment, further: Sequence[str], pictures: Sequence[Picture]) -> str:
    floats = "".join(
        "\\begin{figure}[tp]\n\\centering\n"
        f"\\includegraphics{{figures/{picture.file}}}\n"
        f"\\caption{{{escape(picture.caption)}}}\n\\end{{figure}}\n"
        for picture in pictures
    )
    named = ", ".join(f"{TITLES[name]} (Table~\\ref{{tab:{name}}})" for name in further)
    inputs = "\n".join(f"\\input{{tables/{name}}}" for name in further)
    return MAIN % {
        "title": f"Forgetting on {escape(experiment.name)}",
        "main": f"Table~\\ref{{tab:main}} has the results. Further tables: {named}.\n\\input{{tables/main}}\n",
        "figures": floats,
        "further": f"{inputs}\n",
    }


@dataclass(frozen=True)
class Compiled:
    """A PDF that was made."""

    pdf: Path
    warnings: list[str]
    """What TeX complained about in its last pass."""


def compile_pdf(folder: Path) -> Compiled | None:
    """Makes main.pdf in the folder of the project; None where no TeX is installed.

    Raises:
        RunFailed: TeX stopped with an error; its log stays.
    """
    if shutil.which("pdflatex") is None:
        return None
    before = {path.name for path in folder.iterdir()}
    latex = [*ENGINE, "main.tex"]
    _run(latex, folder)
    if "\\bibdata" in (folder / "main.aux").read_text(encoding="utf-8", errors="replace"):
        _run(["bibtex", "main"], folder)
    for _ in range(2):
        _run(latex, folder)
    log = (folder / "main.log").read_text(encoding="utf-8", errors="replace")
    warnings = _WARNING.findall(log)
    for suffix in LEFTOVERS:
        path = folder / f"main{suffix}"
        if path.name not in before:
            path.unlink(missing_ok=True)
    return Compiled(folder / "main.pdf", warnings)


def _run(command: Sequence[str], folder: Path) -> None:
    try:
        done = subprocess.run(
            command, cwd=folder, env={**os.environ, **SAFE}, stdin=subprocess.DEVNULL, capture_output=True,
            timeout=SECONDS, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise RunFailed(f"{command[0]} did not finish within {SECONDS} s.", where=str(folder)) from error
    if done.returncode:
        log = folder / "main.log"
        text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
        lines = re.findall(r"^! .*", text, re.MULTILINE) or ["! it ended with an error"]
        missing = re.search(r"File `([^']+)' not found", lines[0])
        hint = (
            f"Install the package that has {missing[1]}: {INSTALL}."
            if missing
            else "See the log; the files are written."
        )
        raise RunFailed(f"{command[0]} stopped: {lines[0][2:]}", where=str(log), hint=hint)
