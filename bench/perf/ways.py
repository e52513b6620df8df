"""The ways of training that are compared: what learns, and what one step does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_args

from moextend.bench import methods
from moextend.bench.methods import adapters
from moextend.bench.perf import floor
from moextend.bench.perf.sizes import Size, batch, twin

if TYPE_CHECKING:
    from torch import Tensor, nn

    from moextend import MultimodalLM
    from moextend.moe.recipe import Mode
    from moextend.training.prefix_cache import PrefixCache

RANK = 8
NAME = "new"
QUARTER = 0.25
Floor = Callable[[floor.Model], int]


@dataclass
class Way:
    """One way of training, ready for its steps."""

    name: str
    model: MultimodalLM
    inputs: dict[str, Tensor]
    least: int
    """Operations of a step that cannot be left out."""
    new_share: float
    """Share of tokens that a new expert is computed for, over the extended layers."""
    added: int
    """Bytes of the weights that were added to the base."""
    bf16: bool
    cache: PrefixCache | None = None
    optimizer: Any = None

    def step(self) -> None:
        """One step of the training loop: forward and backward pass, the gradient's norm, AdamW."""
        import torch

        from moextend.moe.kernels import experts_follow_autocast

        learning = list(self.model.trainable().values())
        if self.optimizer is None:  # nothing is learned, so that every repeat does the same
            self.optimizer = torch.optim.AdamW(learning, lr=0.0, weight_decay=0.0, fused=True)
        bf16 = torch.autocast(self.model.device.type, torch.bfloat16, enabled=self.bf16)
        with experts_follow_autocast(), bf16:
            loss = self.forward()["loss"]
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(learning, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def forward(self) -> dict[str, Tensor]:
        """The forward pass, with the prefix that is kept where one is."""
        with ExitStack() as stack:
            if self.cache is not None:
                items = list(range(len(self.inputs["input_ids"])))
                stack.enter_context(self.cache.around(items, self.inputs["attention_mask"]))
            return self.model(**self.inputs)  # type: ignore[no-any-return]


def modes() -> tuple[Mode, ...]:
    """All routing modes."""
    from moextend.moe.recipe import Mode

    return get_args(Mode)


def all_ways(base: MultimodalLM, size: Size, folder: Path) -> Iterator[Callable[[], Way]]:
    """What makes each way over the weights of `base`; full fine-tuning first."""
    yield partial(_full, base, size)
    yield partial(_lora, base, size, experts=False)
    yield partial(_lora, base, size, experts=True)
    for mode in modes():
        yield partial(_extension, base, size, mode)
        yield partial(_extension, base, size, mode, folder)
        yield partial(_extension, base, size, mode, folder, QUARTER)
    yield partial(_extension, base, size, "exact", width=1.0)


def _full(base: MultimodalLM, size: Size) -> Way:
    model = twin(base)
    _implementation(model, stacks_learn=True)
    model.learn_only([name for name, _ in model.named_parameters() if name.startswith("lm.")])
    return _ready(methods.named("bound"), base, model, size, floor.full)


def _lora(base: MultimodalLM, size: Size, *, experts: bool) -> Way:
    model = twin(base)
    adapters.inject(model, adapters.Adapter(rank=RANK, experts=experts), 0)
    _implementation(model, stacks_learn=experts)
    model.learn_only([name for name, _ in model.named_parameters() if adapters.LORA in name])
    name = f"lora r{RANK}, attention" + (" and experts" if experts else "")
    # An adapter on experts hides them, and changes nothing yet: what is used is what the base uses.
    return _ready(name, base, model, size, lambda shape: floor.lora(shape, RANK, experts=experts), seen=base)


def _extension(
    base: MultimodalLM,
    size: Size,
    mode: Mode,
    folder: Path | None = None,
    labelled: float = 1.0,
    width: float | None = None,
) -> Way:
    import moextend
    from moextend.extension import store
    from moextend.training.prefix_cache import PrefixCache

    model = extended(base, mode, width)
    first = min(store.plan_of(model, NAME))
    model.learn_only([f"lm.{name}" for name in moextend.new_parameters(model.lm, NAME)])
    name = f"moextend {mode}" + (", whole experts" if width else "") + (", cached prefix" if folder else "")
    name += ", 1/4 labelled" if labelled < 1 else ""
    cached = folder is not None
    way = _ready(
        name, base, model, size, lambda shape: floor.extension(shape, first, cached=cached), labelled
    )
    if folder is not None:
        way.cache = PrefixCache(model, folder)
        way.forward()  # fills it
    return way


def extended(
    base: MultimodalLM, mode: Mode, width: float | None = None, *, closed: bool = False
) -> MultimodalLM:
    """A twin with one new expert in each layer of the top half.

    Args:
        width: of the new experts in that of the base's; None: the default of the mode.
        closed: no token uses them (exact routing).
    """
    import torch

    import moextend
    from moextend.moe.recipe import Recipe

    width = width or Recipe(routing=mode).width
    model = twin(base)
    layers = range(model.lm.config.num_hidden_layers // 2, model.lm.config.num_hidden_layers)
    moextend.attach(model.lm, NAME, {layer: [0] for layer in layers}, mode=mode, width=width)
    generator = torch.Generator().manual_seed(0)
    for name, parameter in moextend.new_parameters(model.lm, NAME).items():
        if name.endswith(".rows") and mode != "exact":  # copied rows would tie with their parents'
            parameter.data += 0.02 * torch.randn(parameter.shape, generator=generator).to(parameter.device)
        if name.endswith(".bias") and closed:
            parameter.data.fill_(-1.0)
    _implementation(model, stacks_learn=False)
    return model


def _implementation(model: MultimodalLM, *, stacks_learn: bool) -> None:
    """The quickest kernels for each way: HF's loop over experts fills whole gradients with zeros, expert by expert."""
    on_cpu = model.device.type == "cpu"
    model.lm.set_experts_implementation("eager" if on_cpu and not stacks_learn else "grouped_mm")


def _ready(
    name: str, base: MultimodalLM, model: MultimodalLM, size: Size, least: Floor, labelled: float = 1.0,
    seen: MultimodalLM | None = None,
) -> Way:  # fmt: skip
    """The way, its floor counted on the experts that `seen` uses (None: the model itself)."""
    import torch

    inputs = batch(model, size, labelled)
    layers = used(seen or model, inputs, learning=True)
    shape = floor.Model.of(
        model.lm.config,
        tokens=size.tokens,
        length=size.length,
        labelled=int((inputs["labels"][:, 1:] >= 0).sum()),
        layers=layers,
    )
    known = {p.data_ptr() for p in base.parameters()}
    bf16 = base.lm.dtype == torch.bfloat16
    model.train()
    added = sum(p.nbytes for p in model.parameters() if p.data_ptr() not in known)
    if bf16:
        for parameter in model.trainable().values():
            parameter.data = parameter.data.float()
    return Way(name, model, inputs, least(shape), new_share(layers, size), added, bf16)


def used(model: MultimodalLM, inputs: dict[str, Tensor], *, learning: bool) -> list[floor.Layer]:
    """The pairs of a token and an expert that are computed for a batch, layer by layer.

    While experts learn that is all that the routers ask for, weighted with zero or not: what does not count yet needs
    its gradient.
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
        new = (asked >= old) & (asked < old + rows)  # ids beyond stand for no expert
        group = cast(Any, site.experts).ext_groups[NAME] if parts else site.experts
        width = inner_size(group) / inner_size(site.experts)
        found.append(floor.Layer(int((asked < old).sum()), int(new.sum()), rows, width))
    return found


def new_share(layers: list[floor.Layer], size: Size) -> float:
    """Share of a batch's tokens that a new expert is computed for, over the extended layers."""
    whose = [layer.new for layer in layers if layer.rows]
    return sum(whose) / len(whose) / size.tokens if whose else 0.0


@contextmanager
def _choices(router: nn.Module) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """Weights and experts [T, slots] of each call of a router within."""
    seen: list[tuple[Tensor, Tensor]] = []

    def note(module: nn.Module, args: Any, out: Any) -> None:
        seen.append((out[1].detach(), out[2]))

    hook = router.register_forward_hook(note)
    try:
        yield seen
    finally:
        hook.remove()
