"""Variants of training: their trained parameters, and a step of the training loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from moextend.bench.methods import MethodSpec, adapters
from moextend.bench.perf import lower_bound
from moextend.bench.perf.measure import Times
from moextend.bench.perf.sizes import Size, batch, conversations, twin
from moextend.bench.perf.specs import MODES, key, measured_specs
from moextend.moe.recipe import Recipe, fixed_layers

if TYPE_CHECKING:
    from torch import Tensor, nn

    from moextend import Conversation, MultimodalLM

NAME = "new"
QUARTER = 0.25
STEPS = 1000
"""Steps in the settings of a measured training: too many for the few measured ones to log or write checkpoints."""
LowerBound = Callable[[lower_bound.Model], int]


class _Measured(Exception):
    """Ends a training after its measured step."""


@dataclass
class Variant:
    """A variant of training, ready to run."""

    name: str
    """The method, and how its step differs from the plain one."""
    spec: str
    """The method as `bench run` names it."""
    key: str
    """See `specs.key`."""
    model: MultimodalLM
    data: Sequence[Conversation]
    """One batch."""
    least: int
    """Lower bound of the operations of a step."""
    new_share: float
    """Share of tokens with a computed new expert, over the extended layers."""
    added: int
    """Bytes of weights added to the base."""
    folder: Path
    cached: bool = False
    """Whether the step belongs to a later epoch, above a cached prefix."""
    times: Times = field(default_factory=Times)
    """Times of steps, for each repeat."""

    def step(self, around: AbstractContextManager[object]) -> None:
        """Starts a training and ends it after a few steps; the complete last step runs inside `around`.

        The first step creates the optimizer's state and fills the cache, and the loop counts operations in the first
        step of each kind. The parameters do not change, so that all calls are equal.
        """
        import moextend

        settings = moextend.Settings(
            steps=STEPS, batch_size=len(self.data), learning_rate=1.0, schedule="constant", warmup=0.0,
            checkpoint_steps=STEPS, cache_prefix=self.cached, bf16=str(self.model.lm.dtype) != "torch.float32",
        )  # fmt: skip
        before = 2 if self.cached else 1
        with ExitStack() as stack:

            def on_step(done: int, total: int) -> None:
                if done == before:
                    stack.enter_context(around)
                elif done > before:
                    stack.close()
                    raise _Measured

            with suppress(_Measured):
                moextend.train(
                    self.model, self.data, settings, folder=self.folder, rates={"": 0.0}, on_step=on_step
                )

    def timed(self) -> None:
        """Measures a repeat of a step."""
        self.step(self.times.taken(self.model.device.type))


def all_variants(
    base: MultimodalLM, size: Size, folder: Path, more: Sequence[str] = ()
) -> Iterator[Callable[[], Variant]]:
    """Functions that create the variants on the weights of `base`; full fine-tuning first.

    Args:
        folder: for trainings.
        more: methods that are measured besides those of `measured_specs`.
    """
    for spec in measured_specs(size.sequence, more):
        make = partial(_variant, base, size, folder, spec)
        yield make
        if spec.text in MODES:
            yield partial(make, cached=True)
            yield partial(make, cached=True, labelled=QUARTER)


def _variant(
    base: MultimodalLM, size: Size, folder: Path, spec: MethodSpec, *, cached: bool = False, labelled: float = 1.0
) -> Variant:  # fmt: skip
    if isinstance(spec.config, Recipe):
        return _extension(base, size, folder, spec, spec.config, cached=cached, labelled=labelled)
    if isinstance(spec.config, adapters.Adapter):
        return _lora(base, size, folder, spec, spec.config)
    return _full(base, size, folder, spec)


def _full(base: MultimodalLM, size: Size, folder: Path, spec: MethodSpec) -> Variant:
    model = twin(base)
    _implementation(model, stacks_learn=True)
    model.learn_only([name for name, _ in model.named_parameters() if name.startswith("lm.")])
    return _ready(spec, base, model, size, folder, lower_bound.full)


def _lora(
    base: MultimodalLM, size: Size, folder: Path, spec: MethodSpec, config: adapters.Adapter
) -> Variant:
    model = twin(base)
    adapters.inject(model, config, 0)
    _implementation(model, stacks_learn=config.experts)
    model.learn_only([name for name, _ in model.named_parameters() if adapters.LORA in name])
    # An adapter on experts hides them. It has no effect yet, so the usage equals that of the base.
    return _ready(
        spec, base, model, size, folder,
        lambda shape: lower_bound.lora(shape, config.rank, experts=config.experts), seen=base,
    )  # fmt: skip


def _extension(
    base: MultimodalLM, size: Size, folder: Path, spec: MethodSpec, recipe: Recipe, *, cached: bool, labelled: float
) -> Variant:  # fmt: skip
    import moextend

    model = extended(base, recipe)
    (own,) = (each for each in moextend.extensions(model) if each.name == NAME)
    first = min(own.plan)
    model.learn_only([f"lm.{name}" for name in moextend.new_parameters(model.lm, NAME)])
    return _ready(
        spec, base, model, size, folder, lambda shape: lower_bound.extension(shape, first, cached=cached),
        labelled=labelled, cached=cached,
    )  # fmt: skip


def extended(base: MultimodalLM, recipe: Recipe, *, closed: bool = False) -> MultimodalLM:
    """A twin with new experts as a recipe says; their parents are the first experts of a layer.

    Args:
        recipe: with layers that need no probe.
        closed: no token uses the new experts (exact routing).
    """
    import torch

    import moextend
    from moextend.moe.sites import find_sites

    model = twin(base)
    layers = fixed_layers(recipe.layers, recipe.share, len(find_sites(model.lm)))
    assert layers is not None, "the recipe names them"
    plan = {layer: list(range(recipe.experts)) for layer in layers}
    moextend.attach(
        model.lm, NAME, plan, mode=recipe.routing, calibrate=recipe.calibration, width=recipe.width
    )
    generator = torch.Generator().manual_seed(0)
    for name, parameter in moextend.new_parameters(model.lm, NAME).items():
        if (
            name.endswith(".rows") and recipe.routing != "exact"
        ):  # scores of copied rows would equal those of their parents
            parameter.data += 0.02 * torch.randn(parameter.shape, generator=generator).to(parameter.device)
        if name.endswith(".bias") and closed:
            parameter.data.fill_(-1.0)
    _implementation(model, stacks_learn=False)
    return model


def _implementation(model: MultimodalLM, *, stacks_learn: bool) -> None:
    """The fastest kernels for a variant. HF's loop over experts fills the full gradient with zeros for every expert."""
    on_cpu = model.device.type == "cpu"
    model.lm.set_experts_implementation("eager" if on_cpu and not stacks_learn else "grouped_mm")


def _ready(
    spec: MethodSpec,
    base: MultimodalLM,
    model: MultimodalLM,
    size: Size,
    folder: Path,
    least: LowerBound,
    *,
    labelled: float = 1.0,
    cached: bool = False,
    seen: MultimodalLM | None = None,
) -> Variant:
    """The variant, with its lower bound for the experts that the model `seen` uses (None: the model itself)."""
    data = conversations(model, size, labelled)
    inputs = batch(model, data)
    layers = used(seen or model, inputs, learning=True)
    shape = lower_bound.Model.of(
        model.lm.config,
        tokens=size.tokens,
        length=size.length,
        labelled=int((inputs["labels"][:, 1:] >= 0).sum()),
        layers=layers,
    )
    known = {p.data_ptr() for p in base.parameters()}
    added = sum(p.nbytes for p in model.parameters() if p.data_ptr() not in known)
    name = spec.text + (", cached prefix" if cached else "") + (", 1/4 labelled" if labelled < 1 else "")
    return Variant(
        name, spec.text, key(spec), model, data, least(shape), new_share(layers, size), added, folder / "in-flight",
        cached,
    )  # fmt: skip


def used(model: MultimodalLM, inputs: dict[str, Tensor], *, learning: bool) -> list[lower_bound.Layer]:
    """Computed pairs of a token and an expert for a batch, for each layer.

    During training these are all pairs that the routers choose, including pairs with weight zero, which need a
    gradient.
    """
    import torch

    from moextend.moe.expert_width import inner_size
    from moextend.moe.sites import count_experts, find_sites

    sites = find_sites(model.lm)
    with ExitStack() as stack, torch.set_grad_enabled(learning):
        seen = [stack.enter_context(_choices(site.router)) for site in sites]
        model.hidden(inputs["input_ids"], inputs["attention_mask"])
    found = []
    for site, ((weights, index),) in zip(sites, seen, strict=True):
        parts = getattr(site.router, "ext_parts", None)
        rows, old = (parts[NAME].count if parts else 0), count_experts(site)
        asked = index[(weights > 0) | learning]
        new = (asked >= old) & (asked < old + rows)  # larger ids mean no expert
        group = cast(Any, site.experts).ext_groups[NAME] if parts else site.experts
        width = inner_size(group) / inner_size(site.experts)
        found.append(lower_bound.Layer(int((asked < old).sum()), int(new.sum()), rows, width))
    return found


def new_share(layers: list[lower_bound.Layer], size: Size) -> float:
    """Share of a batch's tokens with a computed new expert, over the extended layers."""
    whose = [layer.new for layer in layers if layer.rows]
    return sum(whose) / len(whose) / size.tokens if whose else 0.0


@contextmanager
def _choices(router: nn.Module) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """Weights and experts [T, slots] of each router call inside the context."""
    seen: list[tuple[Tensor, Tensor]] = []

    def note(module: nn.Module, args: Any, out: Any) -> None:
        seen.append((out[1].detach(), out[2]))

    hook = router.register_forward_hook(note)
    try:
        yield seen
    finally:
        hook.remove()
