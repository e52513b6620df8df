"""Writes the table of docs/families.md after testing each row: ``python -m tests.moe.families_table [--write]``.

A tiny model of each type is saved, loaded with `moextend.load`, extended in each routing mode and restored.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor

import moextend
from moextend.errors import InputError
from moextend.moe.families import FAMILIES
from moextend.moe.recipe import Mode
from moextend.moe.scoring import Family
from moextend.moe.sites import find_sites
from tests.moe.toy_composites import COMPOSITES, composite
from tests.moe.toy_families import family, outputs
from tests.toys import toy_tokenizer

DOC = Path(__file__).parents[2] / "docs" / "families.md"
HEAD = "| model types (and what they load from, where that differs) | scoring | exact | slot | paper |"
MODES: tuple[Mode, ...] = ("exact", "slot", "paper")
IDS = torch.tensor([[1, 5, 9, 33, 12]])


def table() -> list[str]:
    """The lines of the table."""
    return [HEAD, "|---" * HEAD.count(" | ") + "|---|", *grouped(_rows())]


def grouped(rows: Iterable[tuple[str, ...]]) -> list[str]:
    """One line for all model types with the same scoring and modes."""
    names = dict[tuple[str, ...], list[str]]()
    for model, loads_from, *found in rows:
        names.setdefault(tuple(found), []).append(model if model == loads_from else f"{model} ({loads_from})")
    return [f"| {', '.join(models)} | {' | '.join(found)} |" for found, models in names.items()]


def _rows() -> Iterator[tuple[str, ...]]:
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = toy_tokenizer()
        for row in sorted(FAMILIES.values(), key=lambda row: (row.model, row.router)):
            composites = [name for name, (text, _) in COMPOSITES.items() if text == row.model]
            loaded: dict[str, tuple[Any, Tensor]] = {}
            reason = ""
            for name in (row.model, *composites):
                lm = composite(name) if name in COMPOSITES else family(name)
                place = Path(folder) / name
                if not place.exists():
                    lm.save_pretrained(place)
                    tokenizer.save_pretrained(place)
                try:
                    again = moextend.load(str(place)).lm
                except InputError as error:
                    reason = reason or f"no: {error.what.rstrip('.')}"
                    continue
                found = outputs(again, IDS)
                if torch.allclose(found, outputs(lm, IDS), atol=1e-4):
                    loaded[name] = (again, found)
                else:
                    reason = "no: what is loaded is not what was saved"
            models = list(loaded.values()) or [(family(row.model), outputs(family(row.model), IDS))]
            says = [_joined([_extended(*model, row, mode) for model in models]) for mode in MODES]
            yield row.model, ", ".join(loaded) or reason, row.says, *says


def _joined(answers: list[str]) -> str:
    """What holds for all models of a row: the first that is not a plain yes."""
    return next((answer for answer in answers if answer != "yes"), "yes")


def _extended(lm: Any, base: Tensor, row: Family, mode: Mode) -> str:
    """Whether the blocks with this router can be extended, by doing it."""
    plan = {site.layer: [0, 1] for site in find_sites(lm) if type(site.router).__name__ == row.router}
    try:
        moextend.attach(lm, "new", plan, mode=mode)
    except InputError as error:
        return f"no: {row.refused if mode == 'paper' else error.what.partition(': ')[2].rstrip('.')}"
    start = outputs(lm, IDS)
    moextend.detach(lm, "new")
    if not torch.equal(outputs(lm, IDS), base):
        return "no: its base does not come back"
    if not _starts_right(start, base, mode):
        return "no: it does not start as its base"
    return "yes"


def _starts_right(start: Tensor, base: Tensor, mode: Mode) -> bool:
    if mode == "paper":  # new experts compete from the start, by their own logits
        return bool(start.isfinite().all())
    return torch.equal(start, base) if mode == "exact" else torch.allclose(start, base, atol=1e-4)


def main() -> None:
    """Prints the table, or puts it into the page."""
    transformers.logging.set_verbosity_error()
    lines = table()
    if "--write" not in sys.argv:
        print("\n".join(lines))
        return
    page = DOC.read_text(encoding="utf-8").split("\n")
    start = next(place for place, line in enumerate(page) if line.startswith("| model types"))
    end = next(place for place in range(start, len(page)) if not page[place].startswith("|"))
    DOC.write_text("\n".join([*page[:start], *lines, *page[end:]]), encoding="utf-8")


if __name__ == "__main__":
    main()
