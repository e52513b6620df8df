"""Runs passes of a language model on tensors without data, and counts operations and the bytes that are alive.

The model's own code runs in torch's FakeTensorMode on a "CPU", with the grouped experts and the fused attention of a
GPU, and with real number types. Layers of one kind cost the same, so a few of each kind are run, then one more, and the
rest is extrapolated: a model of 94 layers takes as long as one of five. Not counted: buffers inside of kernels, and the
allocator's fragmentation.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from inspect import signature
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional
from transformers import DynamicCache

from moextend.errors import InputError
from moextend.model import lm_head
from moextend.moe import routing
from moextend.moe.constants import none_held
from moextend.moe.kernels import experts_follow_autocast
from moextend.training import flops
from moextend.training.alive import Alive, Counts, EveryType
from moextend.training.prepare import checkpointing, layers_of

OPERATIONS = "operations"
"""Key of a pass's operations among the bytes of its sections."""
CACHE = "cache"
"""Key of the bytes of keys and values that a pass leaves."""
LOWEST, FEWEST = 2, 1
"""Layers of a kind in the first trace: of that of the lowest layer, whose inputs may need no gradient; of others."""
FIRST, LAST = "first", "last"
"""Places of a layer among those of its kind; memory grows or falls steadily between the two."""


@dataclass(frozen=True)
class Step:
    """One forward and backward pass."""

    rows: int
    """Conversations."""
    length: int
    """Tokens of a conversation, visual ones included."""
    labelled: int
    """Tokens of a conversation that are learned."""
    bf16: bool = True
    checkpointing: bool = False
    accumulated: bool = False
    """Whether earlier passes of the same optimizer step left gradients."""

    @property
    def tokens(self) -> int:
        """Tokens of the pass."""
        return self.rows * self.length


@dataclass
class _Kinds:
    """The decoder's layers by kind: layers of one kind have the same modules, shapes and trained parameters."""

    of: list[int]
    """Kind of each layer, lowest first."""
    container: nn.ModuleList | None
    """Holds exactly these layers; None: they cannot be left out."""

    def first(self, counts: Mapping[int, int]) -> list[int]:
        """Indices of the first layers of each kind."""
        left, kept = dict(counts), []
        for i, kind in enumerate(self.of):
            if left[kind]:
                left[kind] -= 1
                kept.append(i)
        return kept


def train_pass(lm: Any, step: Step, *, inputs: bool = False) -> Counts:
    """Counts of a forward and backward pass, with gradients of all parameters of `lm` that require them.

    `lm` is on device meta and does not change. inputs: whether the decoder's inputs get gradients, too (a projector
    learns).

    Raises:
        InputError: the model's forward pass depends on data, or is otherwise not traceable.
    """
    return _scaled(lm, lambda small: _trained(small, step, inputs))


def answer_pass(lm: Any, rows: int, length: int) -> Counts:
    """Counts of a forward pass without gradients that fills a cache, with logits of each row's last token."""
    return _scaled(lm, lambda small: _answered(small, rows, length))


def _scaled(lm: Any, run: Any) -> Counts:
    """Counts of the whole model, from runs with few layers of each kind."""
    kinds = _kinds_of(lm)
    total = {kind: kinds.of.count(kind) for kind in dict.fromkeys(kinds.of)}
    few = {kind: min(FEWEST if kind else LOWEST, count) for kind, count in total.items()}
    with _named_errors(lm):
        if kinds.container is None or few == total:
            return dict(run(_cut(lm, kinds, list(range(len(kinds.of))))))
        try:
            base = run(_cut(lm, kinds, kinds.first(few)))
            found = Counts(base)
            for kind, count in total.items():
                if count > few[kind]:
                    more = run(_cut(lm, kinds, kinds.first({**few, kind: few[kind] + 1})))
                    for key, value in base.items():
                        found[key] += (count - few[kind]) * (more.get(key, value) - value)
            return found
        except Exception:  # a family whose layers know of each other
            return dict(run(_cut(lm, kinds, list(range(len(kinds.of))))))


def _kinds_of(lm: Any) -> _Kinds:
    layers = layers_of(lm)
    config = lm_head.text_config(lm.config)
    lists = [
        value for value in vars(config).values() if isinstance(value, list) and len(value) == len(layers)
    ]
    seen: dict[Any, int] = {}
    of = []
    for i, layer in enumerate(layers):
        shapes = tuple((name, tuple(p.shape), p.requires_grad) for name, p in layer.named_parameters())
        classes = tuple(type(module).__name__ for module in layer.modules())
        sign = (shapes, classes, *(str(values[i]) for values in lists))
        of.append(seen.setdefault(sign, len(seen)))
    holders = [m for m in lm.modules() if isinstance(m, nn.ModuleList) and list(m) == layers]
    return _Kinds(of, holders[0] if len(holders) == 1 and layers else None)


def _cut(lm: Any, kinds: _Kinds, kept: Sequence[int]) -> Any:
    """A copy of the model with some of its layers, which are marked with their kind and place."""
    place = kinds.container
    if place is None:
        return copy.deepcopy(lm)
    before = place._modules
    place._modules = {str(i): before[str(old)] for i, old in enumerate(kept)}
    try:
        small = copy.deepcopy(lm)
    finally:
        place._modules = before
    config, count = lm_head.text_config(small.config), len(before)
    for key, value in list(vars(config).items()):
        if isinstance(value, list) and len(value) == count:
            setattr(config, key, [value[i] for i in kept])
    config.num_hidden_layers = len(kept)
    own = [kinds.of[i] for i in kept]
    for i, layer in enumerate(layers_of(small)):
        edges = [FIRST] * (own[i] not in own[:i]) + [LAST] * (own[i] not in own[i + 1 :])
        layer.traced_as = [f"{own[i]} {edge}" for edge in edges]  # type: ignore[assignment]
        for module in layer.modules():
            if isinstance(getattr(module, "layer_idx", None), int):
                module.layer_idx = i  # type: ignore[assignment]
    return small


@contextmanager
def _named_errors(lm: Any) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # whatever a family does that fake tensors do not know
        first = next(iter(str(error).strip().splitlines()), "")
        raise InputError(
            f"cannot be estimated: {type(error).__name__} {first}", where=f"model {type(lm).__name__}"
        ) from error


@contextmanager
def _without_data(lm: Any, *, training: bool) -> Iterator[None]:
    """Context in which every tensor of a model on meta has a shape on a pretended CPU, and no kernel asks for data.

    What learns is float32, as in the training loop.
    """
    with FakeTensorMode(), EveryType(), ExitStack() as stack:
        made: dict[int, nn.Parameter] = {}
        for module in lm.modules():
            for key, old in module._parameters.items():
                if old is not None:
                    if id(old) not in made:  # tied ones stay tied
                        wide = training and old.requires_grad
                        empty = torch.empty(old.shape, dtype=torch.float32 if wide else old.dtype)
                        made[id(old)] = nn.Parameter(empty, requires_grad=old.requires_grad)
                    module._parameters[key] = made[id(old)]
            for key, kept in module._buffers.items():
                if kept is not None:
                    module._buffers[key] = torch.empty(kept.shape, dtype=kept.dtype)
        with suppress(ValueError):  # some families have experts of one kind alone
            lm.set_experts_implementation("grouped_mm")
        asks, routing.asks_device = routing.asks_device, lambda experts, device: False
        stack.callback(setattr, routing, "asks_device", asks)
        stack.enter_context(none_held())
        stack.enter_context(experts_follow_autocast())
        yield


def _trained(lm: Any, step: Step, inputs: bool) -> Counts:
    lm.train()
    with _without_data(lm, training=True), ExitStack() as stack:
        if step.checkpointing:
            early: Any = SimpleNamespace(lm=lm, modalities={"inputs": _projector(inputs)})
            stack.enter_context(checkpointing(early))
        count, alive = stack.enter_context(flops.Counter()), stack.enter_context(Alive(lm))
        if step.accumulated:
            for parameter in lm.parameters():
                if parameter.requires_grad:
                    parameter.grad = torch.zeros_like(parameter)
        stack.enter_context(_sections(lm, alive))
        if inputs:
            stack.enter_context(_moved(layers_of(lm)[0]))
        ids = torch.zeros(step.rows, step.length, dtype=torch.long)
        with torch.autocast("cpu", torch.bfloat16, enabled=step.bf16):
            out = lm_head.decoder(lm)(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)
            alive.enter("loss")
            states = out.last_hidden_state
            chosen = states.reshape(-1, states.shape[-1])[: step.rows * step.labelled]
            del out, states
            logits = lm_head.logits(lm, chosen)
        loss = functional.cross_entropy(logits.float(), torch.zeros(len(chosen), dtype=torch.long))
        loss.backward()
        alive.enter("after")
        return {**alive.most, OPERATIONS: float(count.total)}


@torch.no_grad()
def _answered(lm: Any, rows: int, length: int) -> Counts:
    lm.eval()
    with _without_data(lm, training=False), flops.Counter() as count, Alive(lm) as alive:
        cache: Any = DynamicCache(config=lm.config)
        ids = torch.zeros(rows, length, dtype=torch.long)
        decoder = lm_head.decoder(lm)
        name = "cache" if "cache" in signature(decoder.forward).parameters else "past_key_values"
        out = decoder(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=True, **{name: cache})
        lm_head.logits(lm, out.last_hidden_state[:, -1])
        held = [x for layer in cache.layers for x in (layer.keys, layer.values) if x is not None]
        size = float(sum(x.numel() * x.element_size() for x in held))
        return {**alive.most, CACHE: size, OPERATIONS: float(count.total)}


def _projector(learns: bool) -> Any:
    """As much of a modality as tells whether it learns."""
    module = nn.Module()
    module.weight = nn.Parameter(torch.empty(1), requires_grad=learns)
    return SimpleNamespace(projector=module)


@contextmanager
def _moved(layer: nn.Module) -> Iterator[None]:
    """Context in which the inputs of a layer require gradients."""

    def moved(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return (args[0] + torch.zeros((), dtype=args[0].dtype, requires_grad=True), *args[1:])

    handle = layer.register_forward_pre_hook(moved)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def _sections(lm: Any, alive: Alive) -> Iterator[None]:
    """Context in which each layer's forward and backward pass is a section of its own."""
    handles = []

    def enter(layer: Any, args: Any) -> None:
        if alive.phase not in ("backward", "loss"):  # else a checkpointed layer is computed again
            alive.enter(*(f"forward {place}" for place in layer.traced_as))

    def leave(layer: Any, args: Any, out: Any) -> None:
        states = out[0] if isinstance(out, tuple) else out
        if states.requires_grad and alive.phase not in ("backward", "loss"):
            sections = [f"backward {place}" for place in layer.traced_as]
            states.register_hook(lambda gradient: alive.enter(*(sections or ["backward"])))

    for layer in layers_of(lm):
        if hasattr(layer, "traced_as"):
            handles += [layer.register_forward_pre_hook(enter), layer.register_forward_hook(leave)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
