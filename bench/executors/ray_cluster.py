"""A Ray cluster: the one with an address, or one of this machine that ends with the process."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moextend.bench.executors.executor import Resources
from moextend.bench.run.launch import cores
from moextend.errors import InputError, RunFailed

ADDRESS = "RAY_ADDRESS"
"""Environment variable of Ray with the address of a cluster."""
STORE = 100 * 2**20
"""Bytes of the object store of an own cluster: tasks exchange a few lines."""

ANSWER = 10.0
"""Seconds in which the head of a cluster must answer. Ray itself tries for a quarter of an hour."""

Needs = Mapping[str, float]
"""What a run needs in Ray's names: CPU, GPU, and memory in bytes."""


@dataclass(frozen=True)
class Cluster:
    """A connection to a cluster."""

    address: str
    """"": one that this process started."""
    joined: bool
    """Whether this process made the connection, and ends it."""

    def close(self) -> None:
        """Ends the connection, and a cluster that this process started."""
        import ray

        if self.joined:
            ray.shutdown()


def connect(address: str, temporary: str | None = None) -> Cluster:
    """Joins the cluster at `address`, or at RAY_ADDRESS, or starts one with the cores and GPUs of this machine.

    Args:
        address: `HOST:PORT` of the head, or `auto` for the cluster that runs on this machine; "": see above.
        temporary: folder for the files of an own cluster, with a short name; None: Ray's default.

    Raises:
        InputError: the cluster cannot be joined.
        RunFailed: one could not be started.
    """
    import ray

    if ray.is_initialized():
        return Cluster(str(ray.get_runtime_context().gcs_address), joined=False)
    address = _address(address)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # reports nothing to others without being asked
    _silence()
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if not address:
        return _start(temporary, quiet)
    _reach(address)
    try:
        ray.init(address, **quiet)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise InputError(
            f"cannot be joined: {_first_line(error)}",
            where=f"address {address}",
            hint="Start it with `ray start --head` and join it with its versions of Python and Ray.",
        ) from error
    return Cluster(address, joined=True)


def _reach(address: str) -> None:
    """Raises InputError if nothing answers at HOST:PORT."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():  # auto, or a form that Ray knows
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER).close()
    except (OSError, OverflowError) as error:
        raise InputError(
            f"cannot be joined: {_first_line(error)}",
            where=f"address {address}",
            hint="Start it with `ray start --head`, and name HOST:PORT of its head (6379 by default).",
        ) from error


def _start(temporary: str | None, quiet: dict[str, Any]) -> Cluster:
    """A cluster of this machine."""
    import ray

    folder = {"_temp_dir": str(Path(temporary).resolve())} if temporary else {}
    try:
        ray.init(
            "local", num_cpus=cores(), include_dashboard=False, object_store_memory=STORE, **folder, **quiet
        )
    except Exception as error:  # also a plain one, if its processes have not started after 30 seconds
        ray.shutdown()
        raise RunFailed(
            f"Ray could not start a cluster on this machine: {_first_line(error)}",
            where="--executor ray",
            hint="Try again if the machine is busy. Paths of temp_dir must be short (sockets: 107 characters).",
        ) from error
    return Cluster("", joined=True)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def refuse_missing() -> None:
    """Raises InputError if Ray is not installed."""
    try:
        import ray  # noqa: F401
    except ImportError as error:
        raise InputError(
            "the package 'ray' is not installed.", where="--executor ray", hint="pip install 'moextend[ray]'"
        ) from error


def refuse_client(address: str) -> None:
    """Raises InputError for an address of Ray Client."""
    if _address(address).startswith("ray://"):
        raise InputError(
            "is an address of Ray Client, whose driver may have no access to the folders of the runs.",
            where=f"address {_address(address)}",
            hint="Run the command on a machine of the cluster, with HOST:PORT of its head or auto.",
        )


def _address(given: str) -> str:
    """Address of the cluster; "": none, so that one is started."""
    found = given or os.environ.get(ADDRESS, "")
    return "" if found == "local" else found


def _silence() -> None:
    """Has Ray write nothing to this process's output; its own logs have it all."""
    from ray._private import worker

    logging.getLogger("ray").setLevel(logging.ERROR)
    # Ray prints what raylets report to stdout, where the results are, whatever its options say. Tested with 2.60.0.
    setattr(worker, "print_to_stdstream", lambda data, ignore_prefix: None)  # noqa: B010


def needs_of(resources: Resources) -> Needs:
    """Resources of a run in Ray's names. A GPU is the default where the cluster has GPUs, and one CPU."""
    import ray

    gpus = resources.gpus
    if gpus is None:
        gpus = 1 if ray.cluster_resources().get("GPU") else 0
    needs = {"CPU": float(1 if resources.cpus is None else resources.cpus), "GPU": float(gpus)}
    if resources.memory_gb is not None:
        needs["memory"] = resources.memory_gb * 1e9
    return needs


def refuse_impossible(runs: Iterable[Needs]) -> None:
    """Raises InputError if no node has what a run needs: it would wait for ever."""
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    for needs in runs:
        if not any(all(node.get(name, 0) >= wanted for name, wanted in needs.items()) for node in nodes):
            raise _impossible(needs, nodes)


def _impossible(needs: Needs, nodes: Sequence[Needs]) -> InputError:
    wanted = ", ".join(_amount(name, amount) for name, amount in needs.items() if amount)
    most = {name: max((node.get(name, 0) for node in nodes), default=0) for name in needs}
    largest = ", ".join(_amount(name, amount) for name, amount in most.items())
    return InputError(
        f"no node of the Ray cluster has what a run needs: {wanted}. The largest node has {largest}.",
        where="--executor ray",
        hint="Ask for less (--executor-option cpus=1, gpus=0, memory_gb=4), or pass nodes=later if the cluster grows.",
    )


def _amount(name: str, number: float) -> str:
    return f"{number / 1e9:,.1f} GB of memory" if name == "memory" else f"{number:,.0f} {name}"
