"""What figures draw are the numbers of the tables."""

import csv
import io
from collections.abc import Callable
from dataclasses import replace
from statistics import fmean, stdev
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import Collection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from moextend.bench import figures
from moextend.bench.figures import Source
from moextend.bench.figures.bands import mean_shares
from moextend.bench.figures.layers import by_layer
from moextend.bench.figures.pareto import pareto
from moextend.bench.figures.source import groups
from moextend.bench.report import How, View, render, tables
from moextend.bench.report.fate import fate_shares
from moextend.bench.report.frame import frame
from moextend.bench.run.records import RoutingReport, TaskRouting
from moextend.bench.run.rundir import RunDir
from moextend.errors import UnknownName

METHODS = ["full-ft", "lora", "moextend"]

Printed = Callable[..., list[dict[str, str]]]
"""Prints a view of the tables, the forgetting table by default, as CSV has it: a dict a row."""
Values = dict[tuple[str, int, str], list[float]]
"""(method, stage, task) -> scores of the seeds."""


@pytest.fixture(scope="module")
def printed(source: Source) -> Printed:
    """The tables that the report prints of the source."""

    def of(view: View = "forgetting", **more: Any) -> list[dict[str, str]]:
        text = render(tables([source.experiment], view, How(**more)), "csv")
        rows = list(csv.DictReader(io.StringIO(text)))
        return [row for row in rows if row["table"] == rows[0]["table"]]

    return of


@pytest.fixture(scope="module")
def values(source: Source) -> Values:
    """(method, stage, task) -> scores of the seeds."""
    found: Values = {}
    for result in source.experiment.results:
        for (stage, task), cell in result.cells.items():
            found.setdefault((result.config.method, stage, task), []).append(cell.value)
    return found


def line(ax: Axes, label: str) -> Line2D:
    (found,) = [one for one in ax.lines if one.get_label() == label]
    return found


def xs(drawn: Line2D) -> list[float]:
    return [float(x) for x in np.asarray(drawn.get_xdata())]


def ys(drawn: Line2D) -> list[float]:
    return [float(y) for y in np.asarray(drawn.get_ydata())]


def height(band: Collection, x: float | None = None) -> float:
    """The height of a filled band at `x`, or at its right end."""
    corners = np.asarray(band.get_paths()[0].vertices)
    at = corners[corners[:, 0] == (corners[:, 0].max() if x is None else x)][:, 1]
    return float(at.max() - at.min())


def test_accuracy_over_stages(source: Source, values: Values, ax: Axes) -> None:
    assert figures.accuracy(source.experiment, "task2", ax) is ax
    for method in METHODS:
        drawn = line(ax, method)
        assert xs(drawn) == [0, 1, 2, 3]
        means = [fmean(values[method, stage, "task2"]) for stage in range(4)]
        assert ys(drawn) == pytest.approx(means)
    known = values["full-ft", 3, "task2"]
    assert height(ax.collections[0], 3) == pytest.approx(2 * stdev(known))
    (learned,) = [one for one in ax.lines if one.get_linestyle() == ":"]
    assert xs(learned) == [2, 2]


def test_the_heat_map(source: Source, values: Values, ax: Axes) -> None:
    assert figures.matrix(source.experiment, "lora", ax) is ax
    drawn = np.asarray(ax.images[0].get_array())
    tasks = ["task1", "task2", "task3"]
    for stage in range(4):
        for place, task in enumerate(tasks):
            change = fmean(values["lora", stage, task]) - fmean(values["lora", 0, task])
            assert drawn[stage, place] == pytest.approx(change)
        text = fmean(fmean(values["lora", stage, task]) for task in ("text1", "text2"))
        base = fmean(fmean(values["lora", 0, task]) for task in ("text1", "text2"))
        assert drawn[stage, 3] == pytest.approx(text - base)
    low, high = ax.images[0].get_clim()
    assert low == -high, "no change is the middle of the scale"
    hatched = {
        (p.get_y() + 0.5, p.get_x() + 0.5) for p in ax.patches if isinstance(p, Rectangle) and p.get_hatch()
    }
    assert hatched == {(1, 1), (1, 2), (2, 2)}, "tasks that are learned later"
    texts = {(t.get_position()[1], t.get_position()[0]): t for t in ax.texts}
    assert texts[0, 0].get_text() == f"{fmean(values['lora', 0, 'task1']):.0f}", (
        "the base's row is its accuracy"
    )
    assert texts[2, 1].get_text() == f"{drawn[2, 1]:+.0f}".replace("-", "−")
    bold = {place for place, text in texts.items() if text.get_fontweight() == "bold"}
    assert bold == {(1, 0), (2, 1), (3, 2)}


def test_plasticity_and_stability(source: Source, printed: Printed, ax: Axes) -> None:
    assert figures.plasticity(source.experiment, ax) is ax
    drawn = {box.get_label(): box for box in ax.containers}
    for row in printed():
        if row["method"] in METHODS:
            point, _, bars = drawn[row["method"]]
            assert point.get_xydata()[0] == pytest.approx([float(row["la"]), float(row["bwt"])])
            (low, _), (high, _) = bars[0].get_segments()[0]
            assert (high - low) / 2 == pytest.approx(float(row["la_sd"]))
    named = {t.get_position(): float(t.get_text().split()[1]) for t in ax.texts}
    assert len(named) >= 3, "lines of one ACC = LA + BWT (T - 1) / T"
    for (x, y), acc in named.items():
        assert x + y * 2 / 3 == pytest.approx(acc)


@pytest.mark.parametrize(("place", "metric"), [(0, "ACC"), (1, "Δ text")])
def test_the_forest_plot_is_the_comparison(source: Source, printed: Printed, place: int, metric: str) -> None:
    axes = figures.draw("forest", replace(source, baseline="lora")).axes
    ax, names = axes[place], [tick.get_text() for tick in axes[0].get_yticklabels()]
    rows = {row["method"]: row for row in printed("comparison", baseline="lora") if row["metric"] == metric}
    assert names == list(rows)
    spans = [one for one in ax.lines if len(xs(one)) == 2 and xs(one)[0] != xs(one)[1]]
    dots = [one for one in ax.lines if len(xs(one)) == 1]
    for row, span, dot in zip(rows.values(), spans, dots, strict=True):
        assert xs(span) == pytest.approx([float(row["low"]), float(row["high"])])
        assert xs(dot)[0] == pytest.approx(float(row["difference"]))
        sure = row["verdict"] in ("better", "worse")
        assert (dot.get_markerfacecolor() != "white") == sure


def test_the_forest_plot_of_an_experiment(source: Source, ax: Axes) -> None:
    assert figures.forest(source.experiment, "lora", ax) is ax and ax.get_xlabel() == "ACC (points)"
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["full-ft", "moextend"]


def test_item_flows(source: Source, ax: Axes) -> None:
    shares = fate_shares(frame([source.experiment]))
    own = shares[shares["method"] == "full-ft"]
    assert figures.flows(own, ax) is ax
    heights = [bar.get_height() for bar in ax.containers[0]]
    runs = [result for result in source.experiment.results if result.config.method == "full-ft"]
    means = [
        fmean(result.cells[stage, task].value for result in runs for task in result.tasks)
        for stage in range(4)
    ]
    assert heights == pytest.approx(means), "the dark part is the mean accuracy of the learned tasks"
    sizes = mean_shares(own)[["wrong", "kept", "learned", "regained", "lost"]].to_numpy().ravel()
    assert [height(band) for band in ax.collections] == pytest.approx(sizes[sizes > 0])
    one = mean_shares(own[own["task"] == "task1"]).loc[1]
    value = fmean(result.cells[1, "task1"].value for result in runs)
    assert one[["kept", "learned", "regained"]].sum() == pytest.approx(value)


def test_routing_by_layer(source: Source, ax: Axes, monkeypatch: pytest.MonkeyPatch) -> None:
    assert figures.routing(source.experiment, "drift", ax) is ax
    # 0.01 nats a stage in every layer, as the ledger writes it
    assert ys(line(ax, "lora")) == pytest.approx([30.0] * 4)
    assert by_layer(source.experiment, "share") == {}

    def routing(_: RunDir) -> dict[int, RoutingReport]:
        reached = [{"task1": 0.5, "task2": 0.1}, {"task2": 0.3}, {}]
        own = TaskRouting(tokens=10, experts=[{}] * 3, reached=reached, drift=None)
        return {3: RoutingReport(tasks={"task1": own, "task2": own, "(text)": own})}

    monkeypatch.setattr("moextend.bench.run.rundir.RunDir.routing", routing)
    share = Figure().add_subplot()
    figures.routing(source.experiment, "share", share)
    assert ys(line(share, "lora")) == pytest.approx([30.0, 30.0, np.nan], nan_ok=True)


def test_accuracy_against_cost(source: Source, printed: Printed, ax: Axes) -> None:
    assert figures.cost(source.experiment, "kept_mb", ax) is ax
    costs = {row["method"]: float(row["kept_mb"]) for row in printed("costs")}
    for row in printed():
        if row["method"] in METHODS:
            point = line(ax, row["method"])
            assert [*xs(point), *ys(point)] == pytest.approx([costs[row["method"]], float(row["acc"])])


def test_pareto() -> None:
    found = pareto([(3, 5), (1, 1), (2, 4), (2, 3), (4, 4), (5, 6), (1, 0)])
    assert found == [(1, 1), (2, 4), (3, 5), (5, 6)] and pareto([]) == []


def test_methods_are_chosen_and_ordered(source: Source) -> None:
    chosen = Source.of(source.experiment, ["moextend", "lora"])
    assert list(groups(chosen.experiment)) == ["moextend", "lora"]
    assert chosen.compared_with == "moextend"
    with_baseline = Source.of(source.experiment, ["lora"], "full-ft")
    assert list(groups(with_baseline.experiment)) == ["lora", "full-ft"]
    with pytest.raises(UnknownName, match="--method"):
        Source.of(source.experiment, ["lroa"])
