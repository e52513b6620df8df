"""Checks of the trackers of transformers."""

from __future__ import annotations

from importlib.util import find_spec

from moextend.errors import InputError, UnknownName

PACKAGES = {"azure_ml": ("azureml",), "flyte": ("flytekit",), "tensorboard": ("tensorboard", "tensorboardX")}
"""Tracker -> names of its package, if it is another one."""


def check_tracker(name: str, *, where: str = "report_to") -> None:
    """Raises InputError if transformers does not know the tracker `name`, or it is not installed; `where`: its key."""
    if name in ("none", "all"):
        return
    from transformers.integrations import get_available_reporting_integrations
    from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

    if name not in INTEGRATION_TO_CALLBACK:
        raise UnknownName("tracker", name, ["none", "all", *INTEGRATION_TO_CALLBACK], where=where)
    packages = PACKAGES.get(name, (name,))
    if not any(map(find_spec, packages)) or name not in get_available_reporting_integrations():
        raise InputError(
            f"the tracker '{name}' is not installed.",
            where=where,
            hint=f"Install its package ({packages[0]}), or use report_to: none.",
        )
