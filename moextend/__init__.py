"""Extend a pretrained Mixture-of-Experts language model, again and again, without touching it.

    import moextend
    model = moextend.load("tiny", vision="tiny")

Names are loaded on first use, so that importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from moextend import extension as extension
    from moextend import memory as memory
    from moextend import recognise as recognise
    from moextend.batches import Conversation as Conversation
    from moextend.expand import activate as activate
    from moextend.expand import attach as attach
    from moextend.expand import detach as detach
    from moextend.expand import new_parameters as new_parameters
    from moextend.extension import active_fingerprint as active_fingerprint
    from moextend.extension import load_extension as load_extension
    from moextend.extension import save_extension as save_extension
    from moextend.generation import Prompt as Prompt
    from moextend.generation import generate as generate
    from moextend.images import ImageRef as ImageRef
    from moextend.loading import load as load
    from moextend.loading import save_base as save_base
    from moextend.memory import keep_closed as keep_closed
    from moextend.multimodal import MultimodalLM as MultimodalLM
    from moextend.probe import Probe as Probe
    from moextend.probe import choose_layers as choose_layers
    from moextend.probe import parents as parents
    from moextend.probe import probe_layers as probe_layers
    from moextend.probe import selection_shares as selection_shares
    from moextend.specialising import specialise as specialise
    from moextend.training import Settings as Settings
    from moextend.training import train as train
    from moextend.upcycling import upcycle as upcycle

try:
    __version__ = version("moextend")
except PackageNotFoundError:
    __version__ = "0.0.0"

_HOME = {  # name -> module
    "Conversation": "batches",
    "ImageRef": "images",
    "MultimodalLM": "multimodal",
    "Probe": "probe",
    "Prompt": "generation",
    "Settings": "training",
    "activate": "expand",
    "active_fingerprint": "extension",
    "attach": "expand",
    "choose_layers": "probe",
    "detach": "expand",
    "generate": "generation",
    "keep_closed": "memory",
    "load": "loading",
    "load_extension": "extension",
    "new_parameters": "expand",
    "parents": "probe",
    "probe_layers": "probe",
    "save_base": "loading",
    "save_extension": "extension",
    "selection_shares": "probe",
    "specialise": "specialising",
    "train": "training",
    "upcycle": "upcycling",
}
_ROOMS = ("extension", "memory", "recognise")

__all__ = sorted([*_HOME, *_ROOMS])


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return import_module(f"moextend.{name}")
    if name in _HOME:
        return getattr(import_module(f"moextend.{_HOME[name]}"), name)
    raise AttributeError(f"module 'moextend' has no attribute '{name}'")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
