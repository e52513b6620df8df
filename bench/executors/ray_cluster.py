"""A Ray cluster: the one with an address, or one of this machine that ends with the process."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from moextend.bench.executors.executor import Resources
from moextend.bench.run.launch import cores
from moextend.errors import InputError, RunFailed, short

ADDRESS = "RAY_ADDRESS"
"""Environment variable of Ray with the address of a cluster."""
STORE = 100 * 2**20
"""Bytes of the object store of an own cluster: tasks exchange a few lines."""
ANSWER = 10.0
"""Seconds in which the head of a cluster must answer. Ray itself tries for a quarter of an hour."""
Needs = Mapping[str, float]
"""What a run needs in Ray's names: CPU, GPU, and memory in bytes."""


def connect(given: str, temporary: str | None = None) -> tuple[str, bool]:
    """Joins the cluster at `given`, or at RAY_ADDRESS, or starts one with the cores and GPUs of this machine.

    Args:
        given: `HOST:PORT` of the head, or `auto` for the cluster that runs on this machine; "": see above.
        temporary: folder for the files of an own cluster, with a short name; None: Ray's default.

    Returns:
        its address, "" for an own one, and whether this process made the connection, which it then ends.

    Raises:
        InputError: the cluster cannot be joined.
        RunFailed: one could not be started.
    """
    import ray

    if ray.is_initialized():
        return str(ray.get_runtime_context().gcs_address), False
    address = address_of(given)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # reports nothing to others without being asked
    _silence()
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if not address:
        folder = {"_temp_dir": str(Path(temporary).resolve())} if temporary else {}
        try:
            ray.init(
                "local",
                num_cpus=cores(),
                include_dashboard=False,
                object_store_memory=STORE,
                **folder,
                **quiet,
            )
        except Exception as error:  # also a plain one, if its processes have not started after 30 seconds
            ray.shutdown()
            raise RunFailed(
                f"Ray could not start a cluster on this machine: {first_line(error)}",
                where="--executor ray",
                hint="Try again if the machine is busy. Paths of temp_dir must be short (sockets: 107 characters).",
            ) from error
        return "", True
    try:
        host, _, port = address.rpartition(":")
        if host and port.isdecimal():  # not auto, or another form that Ray knows
            socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER).close()
        ray.init(address, **quiet)
    except (OSError, OverflowError, RuntimeError, ValueError) as error:
        raise InputError(
            f"cannot be joined: {first_line(error)}",
            where=f"address {address}",
            hint="Start it with `ray start --head` and the versions of Python and Ray here, and name HOST:PORT of its "
            "head (6379 by default).",
        ) from error
    return address, True


def first_line(error: Exception) -> str:
    """The first line of an error of Ray."""
    return short(next(iter(str(error).strip().splitlines()), type(error).__name__), 200)


def address_of(given: str) -> str:
    """Address of the cluster, "": none, so that one is started; InputError for one of Ray Client."""
    found = given or os.environ.get(ADDRESS, "")
    if found.startswith("ray://"):
        raise InputError(
            "is an address of Ray Client, whose driver may have no access to the folders of the runs.",
            where=f"address {found}",
            hint="Run the command on a machine of the cluster, with HOST:PORT of its head or auto.",
        )
    return "" if found == "local" else found


def _silence() -> None:
    """Has Ray write nothing to this process's output; its own logs have it all."""
    from ray._private import worker

    logging.getLogger("ray").setLevel(logging.ERROR)
    # Ray prints what raylets report to stdout, where the results are, whatever its options say. Tested with 2.60.0.
    setattr(worker, "print_to_stdstream", lambda data, ignore_prefix: None)  # noqa: B010


def needs_of(resources: Resources, *, later: bool = False) -> Needs:
    """Resources of a run in Ray's names: by default one CPU, and one GPU where the cluster has GPUs.

    Raises:
        InputError: no node has that much, so that it would wait for ever; not if the cluster grows `later`.
    """
    import ray

    gpus = resources.gpus
    if gpus is None:
        gpus = 1 if ray.cluster_resources().get("GPU") else 0
    needs = {"CPU": float(1 if resources.cpus is None else resources.cpus), "GPU": float(gpus)}
    if resources.memory_gb is not None:
        needs["memory"] = resources.memory_gb * 1e9
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if later or any(all(node.get(name, 0) >= wanted for name, wanted in needs.items()) for node in nodes):
        return needs
    wanted = ", ".join(_amount(name, amount) for name, amount in needs.items() if amount)
    most = {name: max((node.get(name, 0) for node in nodes), default=0) for name in needs}
    raise InputError(
        f"no node of the Ray cluster has what a run needs: {wanted}. The largest node has "
        f"{', '.join(_amount(name, amount) for name, amount in most.items())}.",
        where="--executor ray",
        hint="Ask for less (--executor-option cpus=1, gpus=0, memory_gb=4), or pass nodes=later if the cluster grows.",
    )


def _amount(name: str, number: float) -> str:
    return f"{number / 1e9:,.1f} GB of memory" if name == "memory" else f"{number:,.0f} {name}"
