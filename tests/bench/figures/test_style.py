"""Figures are one column wide, readable, the same on every day, and methods differ in them."""

import re
import warnings
from contextlib import suppress
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text

from moextend.bench import methods
from moextend.bench.figures import FIGURES, NothingToDraw, Source, draw, save
from moextend.bench.figures.style import SMALL, WIDTH, row_lines, rows, style
from moextend.bench.methods import KNOWN
from moextend.bench.report.collect import collect
from moextend.bench.report.looks import FOREIGN, PALETTE, look, looks
from tests.bench import ledger
from tests.bench.conftest import MakeRun
from tests.bench.figures.conftest import MakeSource

Array = np.ndarray[Any, Any]
LONG = "my-very-long-plugin-method-name:first_setting=0.001,second_setting=a-long-value"


@pytest.fixture(scope="session")
def shapes(make_source: MakeSource, source: Source) -> dict[str, Source]:
    """Name -> source of an unusual size."""
    kind = ledger.Kind
    many = {
        name: kind(keeps=0.08 * i)
        for i, name in enumerate([*list(KNOWN.names(None))[:9], "lora:rank=2", LONG])
    }
    return {
        "usual": source,
        "one stage": make_source({"lora": kind()}, [0], stages=1, texts=1, items=12),
        "orders": make_source({"lora": kind()}, (0, 1), ("given", "reverse"), stages=2, texts=0, items=12),
        "many": make_source(many, [0], stages=7, texts=1, items=6),
    }


@pytest.mark.parametrize(
    "shape",
    ["usual", "one stage", *(pytest.param(name, marks=pytest.mark.long) for name in ("orders", "many"))],
)
@pytest.mark.parametrize("name", FIGURES)
def test_figures_of_every_size_are_readable(shapes: dict[str, Source], name: str, shape: str) -> None:
    """All is inside the column, no text is small, no label lies on another one, and no legend on a panel."""
    try:
        drawn = draw(name, shapes[shape])
    except NothingToDraw as error:
        assert (name, shape) == ("plasticity", "one stage"), error
        return
    with style():
        drawn.draw_without_rendering()
        width, height = drawn.get_size_inches()
        assert width == WIDTH
        inside = drawn.get_tightbbox()
        assert inside.x0 >= -0.02 and inside.x1 <= WIDTH + 0.02 and inside.y0 >= -0.02
        assert inside.y1 <= height + 0.02
        for text in drawn.findobj(Text):
            assert float(text.get_fontsize()) >= SMALL or not text.get_text(), text
        around = [box for box in (ax.get_tightbbox() for ax in drawn.axes) if box]
        for legend in drawn.legends:
            assert not any(legend.get_window_extent().overlaps(box) for box in around)
        for ax in drawn.axes:
            boxes = [(t.get_text(), t.get_window_extent().shrunk(0.9, 0.8)) for t in labels(ax)]
            clash = [(a, b) for (a, one), (b, two) in combinations(boxes, 2) if one.overlaps(two)]
            assert not clash, clash


def labels(ax: Axes) -> list[Text]:
    """The texts of an Axes that are seen; of a heat map without its cells."""
    ticks = []
    for axis in (ax.xaxis, ax.yaxis):
        low, high = sorted(axis.get_view_interval())
        ticks += [tick.label1 for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
    shown = [*ticks, *([] if ax.images else ax.texts), ax.title, ax.xaxis.label, ax.yaxis.label]
    return [text for text in shown if text.get_visible() and text.get_text().strip() not in ("", "†")]


@pytest.mark.parametrize("form", ["pdf", "png", "svg"])
def test_the_same_figure_gives_the_same_bytes(source: Source, tmp_path: Path, form: str) -> None:
    before = dict(matplotlib.rcParams)
    for place in "ab":
        save(draw("plasticity", source), tmp_path / f"{place}.{form}")
    made = (tmp_path / f"a.{form}").read_bytes()
    assert made == (tmp_path / f"b.{form}").read_bytes()
    assert b"CreationDate" not in made and b"<dc:date>" not in made
    assert dict(matplotlib.rcParams) == before, "settings of matplotlib stay as they are"
    if form == "pdf":
        assert b"/FontFile2" in made and b"/Type3" not in made, "fonts are embedded as Type 42"


def test_every_method_of_the_package_has_its_look() -> None:
    own = {name: look(name) for name in KNOWN.names(None)}
    assert all(methods.look_of(name) for name in own)
    assert len({each.color for each in own.values()}) == len(own), "by colour alone, too"


def test_a_look_depends_on_the_name_alone() -> None:
    names = ["lora", "replay:rank=8", "my-method", "moextend:scope=auto"]
    assert {name: looks([(name, "given")])[name, "given"] for name in names} == {
        name: look(name) for name in names
    }
    together = looks([(name, "given") for name in reversed(names)])
    assert {name: own.color for (name, _), own in together.items()} == {
        name: look(name).color for name in names
    }
    assert look("my-method").color in FOREIGN
    assert look("lora:rank=8").color == look("lora").color, "settings keep the colour"
    assert look("lora:rank=8") != look("lora") != look("lora", "reverse")


def test_looks_of_one_figure_differ_in_marker_and_dash() -> None:
    names = [f"{name}:rank=8" for name in KNOWN.names(None)]
    found = [own.line() for own in looks([(name, "given") for name in names]).values()]
    assert (
        len({own["marker"] for own in found}) == len({str(own["linestyle"]) for own in found}) == len(names)
    )
    assert len(looks([(f"moextend:k={i}", "given") for i in range(40)])) == 40, "more than there are markers"
    foreign = looks(
        [(f"mine{i}{settings}", "given") for i in range(len(FOREIGN)) for settings in ("", ":a=1")]
    )
    assert {own.color for own in foreign.values()} == {*FOREIGN}
    assert len({foreign[name, "given"].color for name in ("mine0", "mine0:a=1")}) == 1


# Viénot, Brettel and Mollon (1999) for protanopia and deuteranopia, Brettel's first plane for tritanopia; linear RGB
SIMULATED = {
    "normal": np.eye(3),
    "protanopia": [[0.11238, 0.88762, 0.0], [0.11238, 0.88762, 0.0], [0.00401, -0.00401, 1.0]],
    "deuteranopia": [[0.29275, 0.70725, 0.0], [0.29275, 0.70725, 0.0], [-0.02234, 0.02234, 1.0]],
    "tritanopia": [[1.01277, 0.13548, -0.14826], [-0.01243, 0.86812, 0.14431], [0.07589, 0.805, 0.11911]],
}


@pytest.mark.parametrize("sight", SIMULATED)
def test_colours_differ_for_all_eyes(sight: str) -> None:
    """The least distance in CIE Lab; 2 is just visible, 10 is clear at a glance."""
    known = {**PALETTE, **{color: color for color in FOREIGN}}
    labs = {name: lab(np.array(SIMULATED[sight]) @ linear(color)) for name, color in known.items()}
    near = {pair: float(np.linalg.norm(labs[pair[0]] - labs[pair[1]])) for pair in combinations(labs, 2)}
    assert min(near.values()) > 10, sorted(near.items(), key=lambda one: one[1])[:3]


def linear(color: str) -> Array:
    rgb = np.array(to_rgb(color))
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def lab(rgb: Array) -> Array:
    matrix = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    f = np.cbrt(matrix @ np.clip(rgb, 0, 1) / [0.9505, 1.0, 1.089])
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def test_rows_leave_room_for_long_names() -> None:
    places = rows(["a", LONG, "b"])
    assert places["a"] == 0.5 and places["b"] - places["a"] > 3
    assert row_lines(places) == places["b"] + 0.5


@pytest.mark.parametrize("kept", [0, 1, 7])
def test_a_run_that_is_not_done_is_drawn_as_far_as_it_is(tmp_path: Path, kept: int) -> None:
    """Its name is no formula, either."""
    shape = ledger.Shape(stages=2, texts=1, items=6)
    run = ledger.write_run(tmp_path / "runs", shape, "lora:tag=$x_1$", 0, ledger.Kind())
    path = run.folder / "scores.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:kept]))
    own = Source.of(collect([run], unfinished=True)[0])
    drawn = set()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in FIGURES:
            with suppress(NothingToDraw):
                save(draw(name, own), tmp_path / f"{name}.png")
                drawn.add(name)
    assert ("accuracy" in drawn) == (kept > 0) and ("flows" in drawn) == (kept > 3)


def test_joint_runs_alone_have_no_figures(make_run: MakeRun) -> None:
    run = make_run("full-ft", 0, [[20.0, 30.0], [60.0, 70.0]], (90.0, 85.0), mode="joint")
    own = Source.of(collect([run], unfinished=True)[0])
    for name in FIGURES:
        with pytest.raises(NothingToDraw):
            draw(name, own)


@pytest.mark.parametrize("name", ["accuracy", "matrix", "forest"])
def test_methods_and_tasks_have_the_names_of_the_style(source: Source, name: str) -> None:
    """In the colours of the methods themselves."""
    names = {"lora": "LoRA adapter", "task1": "Colours", "full-ft": "Full", "moextend": "Ours"}
    plain, named = draw(name, source), draw(name, replace(source, names=names))
    before, words = ("\n".join(texts(one)) for one in (plain, named))
    assert "LoRA adapter" in words or (name == "forest" and "Full" in words)
    for own, other in names.items():
        known = re.search(rf"(?<![\w-]){own}(?![\w-])", before) is not None
        assert not re.search(rf"(?<![\w-]){own}(?![\w-])", words) and (other in words) == known
    colors = [[line.get_color() for ax in one.axes for line in ax.lines] for one in (plain, named)]
    assert colors[0] == colors[1]


def texts(figure: Figure) -> set[str]:
    """All that is written in a figure."""
    figure.draw_without_rendering()
    return {found.get_text() for found in figure.findobj(Text) if found.get_text()}
