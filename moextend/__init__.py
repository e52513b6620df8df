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
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from moextend.data.conversations import Conversation as Conversation
    from moextend.data.images import ImageRef as ImageRef
    from moextend.data.media import MediaRef as MediaRef
    from moextend.data.modalities import ModalityType as ModalityType
    from moextend.data.modalities import register_modality as register_modality
    from moextend.data.sounds import AudioRef as AudioRef
    from moextend.export.auto import register_auto_classes as register_auto_classes
    from moextend.export.opening import load_model as load_model
    from moextend.export.saving import save_model as save_model
    from moextend.export.writing import save_stock as save_stock
    from moextend.extension.activate import activate as activate
    from moextend.extension.activate import unload as unload
    from moextend.extension.align import align as align
    from moextend.extension.align import load_projector as load_projector
    from moextend.extension.extend import extend as extend
    from moextend.extension.modalities import add_modality as add_modality
    from moextend.extension.probe import Probe as Probe
    from moextend.extension.probe import choose_layers as choose_layers
    from moextend.extension.probe import parents as parents
    from moextend.extension.probe import probe_layers as probe_layers
    from moextend.extension.probe import selection_shares as selection_shares
    from moextend.extension.retention import retention_loss as retention_loss
    from moextend.extension.store import Extension as Extension
    from moextend.extension.store import active_fingerprint as active_fingerprint
    from moextend.extension.store import extensions as extensions
    from moextend.extension.store import load_extension as load_extension
    from moextend.extension.store import save_extension as save_extension
    from moextend.model.generation import Prompt as Prompt
    from moextend.model.generation import generate as generate
    from moextend.model.loading import load as load
    from moextend.model.loading import save_base as save_base
    from moextend.model.multimodal import MultimodalLM as MultimodalLM
    from moextend.model.upcycling import upcycle as upcycle
    from moextend.moe.attach import attach as attach
    from moextend.moe.attach import detach as detach
    from moextend.moe.attach import new_parameters as new_parameters
    from moextend.moe.recipe import Recipe as Recipe
    from moextend.training.loop import train as train
    from moextend.training.settings import Settings as Settings
    from moextend.util.environment import __version__ as __version__

_HOME = {  # name -> module
    "__version__": "util.environment",
    "AudioRef": "data.sounds",
    "Conversation": "data.conversations",
    "Extension": "extension.store",
    "ImageRef": "data.images",
    "MediaRef": "data.media",
    "ModalityType": "data.modalities",
    "MultimodalLM": "model.multimodal",
    "Probe": "extension.probe",
    "Prompt": "model.generation",
    "Recipe": "moe.recipe",
    "Settings": "training.settings",
    "add_modality": "extension.modalities",
    "activate": "extension.activate",
    "active_fingerprint": "extension.store",
    "align": "extension.align",
    "attach": "moe.attach",
    "choose_layers": "extension.probe",
    "detach": "moe.attach",
    "extend": "extension.extend",
    "extensions": "extension.store",
    "generate": "model.generation",
    "retention_loss": "extension.retention",
    "load": "model.loading",
    "load_extension": "extension.store",
    "load_model": "export.opening",
    "load_projector": "extension.align",
    "new_parameters": "moe.attach",
    "parents": "extension.probe",
    "probe_layers": "extension.probe",
    "register_auto_classes": "export.auto",
    "register_modality": "data.modalities",
    "save_base": "model.loading",
    "save_extension": "extension.store",
    "save_model": "export.saving",
    "save_stock": "export.writing",
    "selection_shares": "extension.probe",
    "train": "training.loop",
    "unload": "extension.activate",
    "upcycle": "model.upcycling",
}
__all__ = sorted(_HOME.keys() - {"__version__"})


if not TYPE_CHECKING:  # a type checker knows the names above, and finds a misspelt one

    def __getattr__(name: str) -> Any:
        if name in _HOME:
            return getattr(import_module(f"moextend.{_HOME[name]}"), name)
        raise AttributeError(f"module 'moextend' has no attribute '{name}'")


def __dir__() -> list[str]:
    return list(_HOME)
