"""Checks that an extension is called: no other forward may replace that of an extended module.

Kernels from the hub, device maps and patches set `forward` on an instance, or give a block a class that reads the
router's weights without calling the router. Such a model would silently compute only its base. Visible replacements
are refused when an extension is attached, activated or used. The others are found in the first forward pass after
an extension was attached.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from types import MethodType
from typing import Any

import torch
from torch import nn

from moextend.errors import InputError
from moextend.moe.routing import ExtendedExperts, ExtendedRouter
from moextend.moe.sites import Site, find_sites, parts_of

_WAY_OUT = (
    "Extend the model before device maps, kernels (use_kernels) or patches are set up, or undo them first."
)


def check_free(model: nn.Module, site: Site) -> None:
    """Raises InputError if a forward on an instance would hide the new class of the site's modules.

    A forward on the block, or on a module around it up to the decoder layer, may wrap that of the class.
    """
    for module in (site.router, site.experts, *([site.block] if site.dense else [])):
        if not _is_own(module.__dict__.get("forward"), module):
            raise _hidden(site.name, module)
    _check_around(model, site)


def check(model: nn.Module) -> None:
    """Raises InputError if a forward that was set later hides an extended module of `model`."""
    if any(isinstance(module, ExtendedRouter) for module in model.modules()):
        for site in find_sites(model):
            if isinstance(site.router, ExtendedRouter):
                _check_around(model, site, site.router, site.experts)


def _check_around(model: nn.Module, site: Site, *inside: nn.Module) -> None:
    """Raises InputError if a forward hides that of a class around the block, of the block, or of modules `inside`."""
    for name, module in (*_around(model, site), *((site.name, module) for module in (site.block, *inside))):
        forward = module.__dict__.get("forward")
        while forward is not None and not _is_own(forward, module):
            forward = getattr(forward, "__wrapped__", None)
        if forward is None and "forward" in module.__dict__:
            raise _hidden(name, module)


def check_restorable(module: nn.Module) -> None:
    """Raises InputError if a forward on the instance would still call that of the extended class."""
    own = module.__dict__
    wrapped = "_old_forward" in own and _is_own(own["_old_forward"], module)
    if not wrapped and not _is_own(own.get("forward"), module):
        raise InputError(
            f"the forward of a {type(module).__name__} was replaced after the extension was attached, so its "
            "class cannot be restored.",
            hint="Restore its own forward first (del module.forward).",
        )


def rebind(module: nn.Module, forward: Any) -> None:
    """Replaces references to `forward`, a method of the module's former class, by that of its current class.

    accelerate's hooks (device maps) store the original forward as `_old_forward`.
    """
    own = module.__dict__
    if getattr(own.get("forward"), "__func__", None) is forward:
        del own["forward"]
    if getattr(own.get("_old_forward"), "__func__", None) is forward:
        bound = MethodType(type(module).forward, module)
        own["_old_forward"] = bound
        with suppress(AttributeError, KeyError):
            own["forward"].__wrapped__ = bound


def arm(site: Site) -> None:
    """Installs a check for the next forward pass of the site's block: router and experts must be called."""
    disarm(site.block, site.router, site.experts)
    for module in (site.router, site.experts):
        module.register_forward_hook(_note)
    site.block.register_forward_hook(_verify)


def disarm(*modules: nn.Module) -> None:
    """Removes the check of `arm`."""
    for module in modules:
        module.__dict__.pop("ext_called", None)
        for key in [key for key, hook in module._forward_hooks.items() if hook in (_note, _verify)]:
            del module._forward_hooks[key]


def _note(module: nn.Module, args: Any, out: Any) -> None:
    if not torch.compiler.is_compiling():
        module.__dict__["ext_called"] = True


def _verify(block: nn.Module, args: Any, out: Any) -> None:
    parts = None if torch.compiler.is_compiling() else parts_of(block)
    if parts is None:
        return
    for part, kind in zip(parts, (ExtendedRouter, ExtendedExperts), strict=True):
        if not (isinstance(part, kind) and part.__dict__.get("ext_called")):
            raise InputError(
                f"{type(block).__name__} computes without calling its {kind.__name__[8:].lower()}: "
                "the extension would not be reached.",
                hint=_WAY_OUT,
            )
    disarm(block, *parts)


def _around(model: nn.Module, site: Site) -> Iterator[tuple[str, nn.Module]]:
    """Modules around the block, up to the decoder layer, outermost last."""
    name = site.name
    while "." in name:
        name = name.rpartition(".")[0]
        module = model.get_submodule(name)
        if isinstance(module, nn.ModuleList):
            return
        yield name, module


def _is_own(forward: Any, module: nn.Module) -> bool:
    """Whether `forward` is unset or is the forward of the module's class."""
    return forward is None or getattr(forward, "__func__", None) is type(module).forward


def _hidden(name: str, module: nn.Module) -> InputError:
    return InputError(
        f"{name}: {type(module).__name__} has its forward replaced on the instance, which would hide the extension.",
        hint=_WAY_OUT,
    )
