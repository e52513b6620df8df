"""New experts that read what the base alone computes, so that kept router inputs stay exact in every layer."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from transformers import Cache

from moextend.extension.retention import output_loss
from moextend.model.lm_head import decoder
from moextend.moe.families import features
from moextend.moe.routing import only, reachable
from moextend.moe.sites import Site, find_sites

from ._base import OpenProblem
from ._gates import Gates


class BaseStream(OpenProblem):
    """Every pass is computed twice: without extensions, and with new experts that read the first pass."""

    def gates(self, model: Any, name: str) -> Gates:
        """Adds the hooks of an extension."""
        Stream.of(model).follow(name)
        return super().gates(model, name)

    def collected(self, model: Any, stage: Any, data: Any, **given: Any) -> Any:
        """Memory of `data`: router inputs of the base."""
        with without_extensions(model):
            return super().collected(model, stage, data, **given)

    def retention(self, model: Any, stage: Any, kept: Any) -> Any:
        """The package's penalty on outputs."""
        config = self.config
        return output_loss(
            model, stage.task, kept, weight=config.memory_weight, sample=config.memory_sample, seed=stage.seed
        )


@contextmanager
def without_extensions(model: Any) -> Iterator[None]:
    """Context in which the base alone computes."""
    with ExitStack() as stack:
        for site in find_sites(model.lm):
            if hasattr(site.router, "ext_scope"):
                stack.enter_context(only(site.router.ext_scope, ()))
        yield


class Stream:
    """The base's pass before that of an extended decoder: what its MoE blocks read, and its own cache."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.caches: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()
        self.read: dict[int, torch.Tensor] = {}
        """MoE block -> inputs [tokens, H] in the base's pass; empty outside a pass of an extended decoder."""
        self.first = False
        """Whether the base's pass is computed now."""
        self.gates: dict[int, torch.Tensor] = {}
        module = decoder(model.lm)
        module.register_forward_pre_hook(self._compute_base, with_kwargs=True)
        module.register_forward_hook(lambda *unused: None if self.first else self.read.clear())
        for site in find_sites(model.lm):
            site.experts.register_forward_pre_hook(lambda module, args, site=site: self._look(site, args))

    @classmethod
    def of(cls, model: Any) -> "Stream":
        """The stream of a model, made once."""
        if not hasattr(model.lm, "base_stream"):
            object.__setattr__(model.lm, "base_stream", cls(model))
        found: Stream = model.lm.base_stream
        return found

    def follow(self, name: str) -> None:
        """From now on the gates and the new experts of an extension read the base's pass."""
        for site in find_sites(self.model.lm):
            if name not in getattr(site.router, "ext_parts", {}):
                continue
            part, group = site.router.ext_parts[name], site.experts.ext_groups[name]
            part.register_forward_pre_hook(lambda module, args, site=site: self._gate_input(site))
            group.register_forward_pre_hook(
                lambda module, args, site=site, group=group: self._expert_input(site, group, args)
            )

    def _compute_base(self, module: Any, args: Any, given: dict[str, Any]) -> None:
        if self.first or not any(reachable(site.router) for site in self._extended()):
            return
        given = {
            key: self._own_cache(value) if isinstance(value, Cache) else value for key, value in given.items()
        }
        self.first = True
        try:
            with torch.no_grad(), without_extensions(self.model):
                module(*args, **given)
        finally:
            self.first = False

    def _own_cache(self, cache: Any) -> Any:
        """The base's cache for that of the extended decoder; it keeps the same rows."""
        if cache not in self.caches:
            own = self.caches[cache] = type(cache)(config=self.model.lm.config)
            select = cache.batch_select_indices

            def both(rows: torch.Tensor) -> None:
                select(rows)
                own.batch_select_indices(rows)

            cache.batch_select_indices = both
        return self.caches[cache]

    def _extended(self) -> list[Site]:
        return [site for site in find_sites(self.model.lm) if hasattr(site.router, "ext_scope")]

    def _look(self, site: Site, args: Any) -> None:
        """Keeps the input of a block in the first pass, and its gates in the second."""
        x, _, weights = args
        if self.first:
            self.read[site.layer] = x
        elif site.layer in self.read:
            self.gates[site.layer] = weights

    def _gate_input(self, site: Site) -> Any:
        inside = not self.first and site.layer in self.read
        return (features(site.router, self.read[site.layer]),) if inside else None

    def _expert_input(self, site: Site, group: Any, args: Any) -> Any:
        """The base's inputs of the tokens with an open gate, as in `moextend.moe.routing`."""
        if site.layer not in self.read:
            return None
        groups = reachable(site.experts)
        after = sum(other.num_experts for other in groups[groups.index(group) :])
        weights = self.gates[site.layer]
        start = weights.shape[1] - after
        own = weights[:, start : start + group.num_experts]
        x = self.read[site.layer]
        if len(args[0]) < len(x):
            x = x[torch.where((own > 0).any(-1))[0]]
        return (x, *args[1:])
