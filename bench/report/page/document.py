"""Parts -> one HTML file, or a folder of files. Both open from a disk and load nothing from elsewhere."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from importlib.resources import files as resources
from pathlib import Path
from typing import Any

from moextend.bench.report.collect import Experiment
from moextend.bench.report.page.data import REPORT, parts
from moextend.errors import visible
from moextend.util import files

POLICY = (
    "default-src 'none'; img-src data: {own}; media-src data: {own}; style-src 'unsafe-inline' {own}; "
    "script-src 'unsafe-inline' {own}"
)
"""Nothing is loaded from anywhere but the page's own folder."""
FOLDER = "'self' file:"
"""The page's own folder, on a server or on a disk."""
TEMPLATE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark"><meta name="generator" content="moextend">
{policy}<link rel="icon" href="data:,"><title>{title}</title>
{style}</head><body>
<div id="app"><noscript>This page needs JavaScript. The same tables as text: moextend bench report.</noscript></div>
{scripts}
</body></html>
"""


def page(experiments: Sequence[Experiment], **options: Any) -> str:
    """One HTML file with everything in it; options as data.parts takes them."""
    found = parts(experiments, **options)
    blocks = [_block(name, encoded(value)) for name, value in found.values.items()]
    return TEMPLATE.format(
        policy=_policy(),
        title=_title(experiments),
        style=f"<style>{asset('page.css')}</style>",
        scripts="\n".join([*blocks, f"<script>{asset('page.js')}</script>"]),
    )


def bundle(experiments: Sequence[Experiment], folder: Path, live: str | None = None, **options: Any) -> Path:
    """Writes index.html with parts and images into `folder`; the path of index.html.

    Args:
        experiments: what the page shows.
        folder: where the files go.
        live: the version of the page that a server compares with its runs; None: no server is asked.
        options: as data.parts takes them.
    """
    found = parts(experiments, inline=False, **options)
    first = encoded(found.values.pop(REPORT))
    for name, value in found.values.items():
        files.write_text(
            folder / "parts" / f"{name}.js", f"moextendPart({json.dumps(name)},{encoded(value)})\n"
        )
    for path, data in found.files.items():
        with files.atomic(
            folder / path, synced=False
        ) as temporary:  # thousands of files that can be made again
            temporary.write_bytes(data)
    for name in ("page.js", "page.css"):
        files.write_text(folder / name, asset(name))
    blocks = {REPORT: first} | ({"live": encoded(live)} if live else {})
    scripts = "\n".join(
        [*(_block(name, text) for name, text in blocks.items()), '<script src="page.js"></script>']
    )
    style = '<link rel="stylesheet" href="page.css">'
    policy = _policy(FOLDER) if live is None else _policy(FOLDER, "; connect-src 'self'")
    text = TEMPLATE.format(policy=policy, title=_title(experiments), style=style, scripts=scripts)
    files.write_text(folder / "index.html", text)
    return folder / "index.html"


def encoded(value: Any) -> str:
    """JSON that is safe inside <script>: no text ends the element or opens a comment, and all of it is UTF-8."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    text = text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    return text.encode("utf-8", "backslashreplace").decode()  # half of a surrogate pair


def asset(name: str) -> str:
    """The text of a built asset; its source is page/ at the top of the repository."""
    return (resources(__package__) / "assets" / name).read_text(encoding="utf-8")


def _block(name: str, text: str) -> str:
    return f'<script type="application/json" id="part-{name}">{text}</script>'


def _policy(own: str = "", more: str = "") -> str:
    return f'<meta http-equiv="Content-Security-Policy" content="{POLICY.format(own=own).strip()}{more}">\n'


def _title(experiments: Sequence[Experiment]) -> str:
    names = dict.fromkeys(experiment.name for experiment in experiments)
    return escape(visible(f"{', '.join(names) or 'no results'}: moextend report"))
