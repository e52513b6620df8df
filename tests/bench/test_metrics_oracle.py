"""Forgetting and backward transfer against those of avalanche, on random matrices.

The package is no dependency: what it wants beside it (wandb, tensorboard, gdown, pytorchcv, ...) is heavy, and these
functions want numpy alone. `pip install --no-deps avalanche-lib` brings it; its file is read, the rest not imported.
"""

import importlib.util
import random
from pathlib import Path
from types import ModuleType

import pytest

from moextend.bench import metrics

MATRICES = [(seed, tasks) for seed in range(3) for tasks in (2, 3, 10)]


@pytest.fixture(scope="module")
def avalanche() -> ModuleType:
    """avalanche/evaluation/functional.py, alone."""
    package = importlib.util.find_spec("avalanche")
    if package is None or not package.submodule_search_locations:
        pytest.skip("needs avalanche: pip install --no-deps avalanche-lib")
    path = Path(package.submodule_search_locations[0]) / "evaluation" / "functional.py"
    spec = importlib.util.spec_from_file_location("avalanche_functional", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def matrix(seed: int, tasks: int) -> list[list[float]]:
    drawn = random.Random(seed)
    return [[drawn.uniform(0, 100) for _ in range(tasks)] for _ in range(tasks + 1)]


@pytest.mark.parametrize(("seed", "tasks"), MATRICES)
def test_forgetting_and_backward_transfer_are_avalanches(
    avalanche: ModuleType, seed: int, tasks: int
) -> None:
    a = matrix(seed, tasks)
    # theirs has no row for the base: row k is the one after experience k was learned
    theirs = avalanche.forgetting(a[1:])[-1]
    assert theirs[-1] == 0, "the last task is not forgotten yet"
    mean = theirs[:-1].mean()
    assert metrics.forgetting(a, variant="first") == pytest.approx(mean)
    assert metrics.bwt(a) == pytest.approx(-mean)
    assert metrics.bwt(a, divisor="T") == pytest.approx(-theirs.mean())


@pytest.mark.parametrize(("seed", "tasks"), MATRICES)
def test_the_maximum_is_never_below_the_first(seed: int, tasks: int) -> None:
    """max takes the best of more rows than first, max-all of one more."""
    a = matrix(seed, tasks)
    first, most, all_rows = (metrics.forgetting(a, variant=v) for v in ("first", "max", "max-all"))
    assert first is not None and most is not None and all_rows is not None
    assert first <= most <= all_rows
    assert all_rows >= 0
