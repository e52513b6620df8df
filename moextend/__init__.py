"""Extend a pretrained Mixture-of-Experts language model, again and again, without touching it.

    import moextend
    model = moextend.load("tiny", vision="tiny")
    moextend.align(model, captions, settings, folder="projector")
    moextend.extend(model, "my-skill", conversations, folder="my-skill")
    moextend.generate(model, [moextend.Prompt("<image> What is this?", (image,))], max_new_tokens=8, batch_size=1)

docs/library.md is the tour. Names are loaded on first use, so that importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from moextend import extending as extending
    from moextend import extension as extension
    from moextend import memory as memory
    from moextend import recognise as recognise
    from moextend.activating import activate as activate
    from moextend.activating import unload as unload
    from moextend.aligning import align as align
    from moextend.aligning import load_projector as load_projector
    from moextend.batches import Conversation as Conversation
    from moextend.expand import attach as attach
    from moextend.expand import detach as detach
    from moextend.expand import new_parameters as new_parameters
    from moextend.extending import extend as extend
    from moextend.extending import preview as preview
    from moextend.extension import Extension as Extension
    from moextend.extension import active_fingerprint as active_fingerprint
    from moextend.extension import extensions as extensions
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
    from moextend.recipe import Recipe as Recipe
    from moextend.settings import Settings as Settings
    from moextend.specialising import specialise as specialise
    from moextend.training import train as train
    from moextend.upcycling import upcycle as upcycle

try:
    __version__ = version("moextend")
except PackageNotFoundError:
    __version__ = "0.0.0"

_HOME = {  # name -> module
    "Conversation": "batches",
    "Extension": "extension",
    "ImageRef": "images",
    "MultimodalLM": "multimodal",
    "Probe": "probe",
    "Prompt": "generation",
    "Recipe": "recipe",
    "Settings": "settings",
    "activate": "activating",
    "active_fingerprint": "extension",
    "align": "aligning",
    "attach": "expand",
    "choose_layers": "probe",
    "detach": "expand",
    "extend": "extending",
    "extensions": "extension",
    "generate": "generation",
    "keep_closed": "memory",
    "load": "loading",
    "load_extension": "extension",
    "load_projector": "aligning",
    "new_parameters": "expand",
    "parents": "probe",
    "preview": "extending",
    "probe_layers": "probe",
    "save_base": "loading",
    "save_extension": "extension",
    "selection_shares": "probe",
    "specialise": "specialising",
    "train": "training",
    "unload": "activating",
    "upcycle": "upcycling",
}
_ROOMS = ("extending", "extension", "memory", "recognise")

__all__ = sorted([*_HOME, *_ROOMS])


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return import_module(f"moextend.{name}")
    if name in _HOME:
        return getattr(import_module(f"moextend.{_HOME[name]}"), name)
    raise AttributeError(f"module 'moextend' has no attribute '{name}'")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
