"""A LaTeX project -> a PDF, by the TeX that is installed. Documents may not start other programs (no shell escape)."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from moextend.errors import RunFailed

ENGINE = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape"]
SAFE = {"shell_escape": "f", "openout_any": "p", "max_print_line": "1000"}
"""Settings of TeX: no other programs, no files outside the project, log lines that are not cut."""
SECONDS = 300
LEFTOVERS = (".aux", ".bbl", ".blg", ".fdb_latexmk", ".fls", ".log", ".out")
_WARNING = re.compile(
    r"^(?:LaTeX|Package \w+|Class \w+|LaTeX Font) Warning: .*|^(?:Over|Under)full .*|^pdfTeX warning.*",
    re.MULTILINE,
)
PACKAGES = "apt-get install texlive-latex-recommended texlive-science latexmk"


@dataclass(frozen=True)
class Compiled:
    """A PDF that was made."""

    pdf: Path
    warnings: list[str]
    """What TeX complained about in its last pass."""


def compile_pdf(folder: Path, name: str = "main") -> Compiled | None:
    """Makes `name`.pdf in the folder of the project; None where no TeX is installed.

    Raises:
        RunFailed: TeX stopped with an error; its log stays.
    """
    if shutil.which("pdflatex") is None:
        return None
    before = {path.name for path in folder.iterdir()}
    if shutil.which("latexmk"):
        # -norc: a latexmkrc is a program, and this one may be another's
        passes = [["latexmk", "-norc", "-pdf", f"-pdflatex={' '.join(ENGINE)} %O %S", f"{name}.tex"]]
    else:
        latex = [*ENGINE, f"{name}.tex"]
        passes = [latex, ["bibtex", name], latex, latex]
    for command in passes:
        if command[0] != "bibtex" or _cites(folder / f"{name}.aux"):
            _run(command, folder, name)
    log = (folder / f"{name}.log").read_text(encoding="utf-8", errors="replace")
    warnings = _WARNING.findall(log)
    for suffix in LEFTOVERS:
        path = folder / f"{name}{suffix}"
        if path.name not in before:
            path.unlink(missing_ok=True)
    return Compiled(folder / f"{name}.pdf", warnings)


def _cites(aux: Path) -> bool:
    """Whether a document has a bibliography, without which bibtex fails; latexmk knows it by itself."""
    return "\\bibdata" in aux.read_text(encoding="utf-8", errors="replace")


def _run(command: Sequence[str], folder: Path, name: str) -> None:
    try:
        done = subprocess.run(
            command, cwd=folder, env={**os.environ, **SAFE}, stdin=subprocess.DEVNULL, capture_output=True,
            timeout=SECONDS, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise RunFailed(f"{command[0]} did not finish within {SECONDS} s.", where=str(folder)) from error
    if done.returncode:
        log = folder / f"{name}.log"
        text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
        lines = re.findall(r"^! .*", text, re.MULTILINE) or ["! it ended with an error"]
        missing = re.search(r"File `([^']+)' not found", lines[0])
        hint = (
            f"Install the package that has {missing[1]}: {PACKAGES}."
            if missing
            else "See the log; the files are written."
        )
        raise RunFailed(f"{command[0]} stopped: {lines[0][2:]}", where=str(log), hint=hint)
