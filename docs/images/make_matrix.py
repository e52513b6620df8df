"""Draws accuracy matrices of several methods side by side, from the cells that a report prints.

moextend bench report tiny --workspace demo --matrix --format csv | python docs/images/make_matrix.py
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

OUT = Path(__file__).parent / "matrix.svg"
METHODS = {"full-ft": "Full fine-tuning", "moextend:scope=auto": "MoExtend (task id inferred)"}
STAGES = ["attributes", "counting", "reading"]
TEXT = ["tiny-agreement", "tiny-facts", "tiny-arithmetic", "tiny-copying", "tiny-textqa"]
STYLE = {"svg.fonttype": "none", "svg.hashsalt": "moextend", "font.family": "sans-serif", "font.size": 11}


def matrix(cells: pd.DataFrame, method: str) -> np.ndarray:
    """Rows: the base and each stage; columns: the image tasks in order, then the mean of the text tasks."""
    own = cells[(cells["method"] == method) & (cells["mode"] == "sequence")]
    seeds = own.pivot_table(index="stage", columns="task", values="value")  # mean over seeds
    images = seeds[[f"tiny-{task}" for task in STAGES]]
    return np.column_stack([images.to_numpy(), seeds[TEXT].mean(axis=1).to_numpy()])


def draw(cells: pd.DataFrame, out: Path) -> None:
    """Writes the figure."""
    plt.rcParams.update(STYLE)
    figure, axes = plt.subplots(1, len(METHODS), figsize=(8.4, 3.1), layout="constrained")
    for axis, (method, title) in zip(axes, METHODS.items(), strict=True):
        values = matrix(cells, method)
        axis.imshow(values, cmap="YlGnBu", vmin=0, vmax=115, aspect="auto")
        for (row, column), value in np.ndenumerate(values):
            learned_now = row == column + 1
            axis.text(
                column, row, f"{value:.0f}", ha="center", va="center", color="white" if value > 60 else "black",
                fontweight="bold" if learned_now else "normal",
            )  # fmt: skip
        axis.set_title(title, fontsize=12, fontweight="bold")
        axis.set_xticks(range(4), [*STAGES, "text"], fontsize=10)
        axis.set_yticks(range(4), ["base", *(f"{n}. {task}" for n, task in enumerate(STAGES, 1))])
        axis.axvline(2.5, color="white", linewidth=4)
        axis.tick_params(length=0)
        for side in axis.spines.values():
            side.set_visible(False)
    axes[0].set_ylabel("after stage")
    figure.savefig(out, metadata={"Date": None}, facecolor="white")


if __name__ == "__main__":
    draw(pd.read_csv(sys.stdin), OUT)
