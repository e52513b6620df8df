"""Ray on this machine, for tests. Importable without the package, so that a file of tests can skip itself."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")
STORE = 80 * 2**20
"""Bytes of a node's object store."""


def patiently(start: Callable[[], T]) -> T:
    """What `start` returns; it is called again if the machine is so busy that Ray gives up after 30 seconds."""
    import ray

    for _ in range(2):
        with suppress(Exception):
            return start()
        ray.shutdown()
    return start()


def start_ray(folder: str) -> None:
    """Starts one node with two CPUs."""
    import ray

    patiently(
        lambda: ray.init(
            "local", num_cpus=2, include_dashboard=False, object_store_memory=STORE, _temp_dir=folder,
            log_to_driver=False,
        )
    )  # fmt: skip
