"""Memory and operations of training and answering by a closed formula of the shapes of a model on device meta.

Operations: a token costs two for each number of a matrix it is multiplied with, and attention grows with the length.
A backward pass costs as much again for the gradients of inputs, above the lowest trained layer, and for those of
trained weights. That is within 5% of what `flops.Counter` counts. Memory is the sum of weights, gradients, AdamW's
moments and activations per token, within 15% of the peak of torch's allocator (a quarter for models of a megabyte);
kernels' buffers and fragmentation come on top.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import nn

from moextend.model import encoders, quantising, vision
from moextend.model.lm_head import text_config
from moextend.moe.families import rows_of
from moextend.moe.low_bits import Method
from moextend.moe.sites import count_chosen, count_experts, find_sites
from moextend.training import flops
from moextend.training.prepare import layers_of
from moextend.util.quiet import quiet_loggers

ASSUMED_TOKENS = 576
"""Tokens of an image where the encoder is not known: those of a ViT-L/14 at 336 pixels."""
ASSUMED_WIDTH = 1024
"""Width of a feature there."""
STATE = 16
"""Bytes for each parameter that learns: its float32 weight, its gradient, and AdamW's two moments."""
OVERHEAD = 2e9
"""Bytes that a CUDA context, its libraries and the allocator's fragmentation are assumed to take."""
UTILISATION = 0.2
"""Share of a device's peak that is assumed to be reached where nothing was measured."""
THROUGHPUT = {"cuda": ("an H100 in bfloat16", 989.0), "cpu": ("a CPU of few cores in float32", 0.5)}
"""Kind of device -> its name, and the operations a second, in units of 1e12, that its data sheet states."""
NORMS, OUTPUTS, BACKWARD, LOGITS = 24.0, 1.2, 0.5, 12.0
"""Activations of a layer that its backward pass needs, per token: bytes for each number of a hidden state (norms,
rotations, residuals), and copies of the outputs of its matrices; share of them that gradients take in turn; bytes of a
logit and its gradients. Fitted to what torch's allocator holds."""
ATTENTION_BACKWARD = 2.5
"""Operations of attention's backward pass as a multiple of those of its forward pass; its scores are computed again."""
NARROW = 2
"""Bytes of a number in bfloat16."""
GRADIENT = 4
"""Bytes of the gradient of a parameter that learns."""
ADAPTER = "lora"
"""Part of the names of adapters, whose outputs are not kept."""


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


@dataclass(frozen=True)
class Training:
    """Bytes and operations of one forward and backward pass."""

    frozen: float
    """Bytes of the weights that do not learn."""
    learns: int
    """Parameters that learn."""
    working: float
    """Most bytes besides weights, gradients and optimizer: activations, copies, logits."""
    operations: float
    """Floating-point operations, recomputation included."""

    @property
    def states(self) -> float:
        """Bytes of what learns, with gradients and optimizer."""
        return float(STATE * self.learns)


@dataclass(frozen=True)
class Answering:
    """Bytes and operations of answers to a batch of prompts: one cached forward pass, then one token at a time."""

    weights: float
    """Bytes of all weights."""
    working: float
    """Most bytes besides weights: activations, and keys and values of the prompts and answers."""
    cache_a_token: float
    """Bytes of keys and values per token."""
    a_token: float
    """Operations a token, attention included and the head left out."""
    head: float
    """Operations of the logits of one token."""

    def operations(self, rows: float, length: float, new: float) -> float:
        """Operations of `rows` answers of `new` tokens to prompts of `length` tokens."""
        return rows * ((length + new - 1) * self.a_token + new * self.head)

    def forward(self, rows: float, length: float, logits: float = 0) -> float:
        """Operations of forward passes of `rows` conversations, with logits of some tokens of each."""
        return rows * (length * self.a_token + logits * self.head)


@dataclass
class _Layer:
    """Sums over the matrices of a decoder layer, for one token unless stated otherwise."""

    forward: float = 0.0
    """Operations."""
    weights: float = 0.0
    """Operations of the gradients of what learns."""
    above: float = 0.0
    """Operations of the modules after the first one that learns."""
    outputs: float = 0.0
    """Numbers that matrices return."""
    inputs: float = 0.0
    """Numbers that are kept for the gradients of what learns."""
    step: float = 0.0
    """Operations of a backward pass whatever its number of tokens: gradients that OSF projects."""
    cast: int = 0
    """Bytes of the bfloat16 copies of float32 weights."""
    first: str | None = None
    """The first module that learns."""


class Estimator:
    """A language model on device meta; made before a method adds parameters to it, which then count too."""

    def __init__(self, lm: Any, dtype: torch.dtype | None = None, quantize: Method | None = None) -> None:
        """Estimates of a model.

        Args:
            dtype: number type of the weights; None: as they are.
            quantize: how the base is quantised, which counts nf4 and int8 as they are stored.

        Raises:
            InputError: the model has no MoE block that can be extended.
        """
        self.lm, self.sites, self.config = lm, find_sites(lm), text_config(lm.config)
        for parameter in lm.parameters():
            if dtype is not None and parameter.is_floating_point():
                parameter.data = parameter.data.to(dtype)
        self.saved, self.dense = 0.0, 0.0
        if quantize is not None:
            self._quantise(quantize)
        self.learn_only([])

    def _quantise(self, method: Method) -> None:
        """Notes how many bytes are saved, and those of the largest matrix, which products dequantise."""
        self.saved = bytes_of(self.lm.parameters()) - quantising.size(self.lm, method, self.lm.dtype)
        weights = [getattr(module, key) for module, key in quantising.places(self.lm).values()]
        self.dense = max(math.prod(weight.shape[-2:]) for weight in weights) * float(self.lm.dtype.itemsize)

    def learn_only(self, learning: Iterable[nn.Parameter]) -> None:
        """Makes exactly these parameters require gradients."""
        wanted = {id(parameter) for parameter in learning}
        for parameter in self.lm.parameters():
            parameter.requires_grad_(id(parameter) in wanted)

    def share(self, name: str) -> float:
        """Share of a parameter, by its name, that a token uses. Of new experts all, in paper routing as of the base."""
        for site in self.sites:
            if name.startswith(f"{site.name}.experts."):
                base = 1.0 if site.dense else count_chosen(site) / count_experts(site)
                if not name.startswith(f"{site.name}.experts.ext_groups."):
                    return base
                return base if site.experts.ext_scope.mode == "paper" else 1.0
        return 1.0

    def training(self, step: Step, *, inputs: bool = False) -> Training:
        """A pass in which those parameters learn that require gradients; `inputs`: a projector below them learns."""
        learning = [p for p in self.lm.parameters() if p.requires_grad]
        frozen = bytes_of(p for p in self.lm.parameters() if not p.requires_grad) - self.saved
        learns = numel_of(learning)
        layers, head = self._layers(), self._head
        early = inputs or any(p.requires_grad for p in self.lm.get_input_embeddings().parameters())
        lowest = -1 if early else next((i for i, layer in enumerate(layers) if layer.first), len(layers))
        attention = self._attention * step.length
        operations = 2.0 * head.numel() * step.rows * step.labelled * (2 + head.requires_grad)
        for i, layer in enumerate(layers):
            forward = (layer.forward + attention) * step.tokens
            operations += forward + layer.weights * step.tokens + layer.step
            if i >= lowest and step.checkpointing:
                operations += forward
            if i > lowest:
                operations += (layer.forward + ATTENTION_BACKWARD * attention) * step.tokens
            elif i == lowest:
                operations += layer.above * step.tokens
        working = self._working(layers[max(lowest, 0) :], step) + self.dense
        if not step.accumulated:  # gradients grow while activations go
            working = max(0.0, working - GRADIENT * learns)
        return Training(frozen, learns, working, operations)

    def probe(self, step: Step) -> Training:
        """A pass that tunes all routers, whose parameters require gradients afterwards."""
        rows = [rows_of(site.router) for site in self.sites]
        self.learn_only([weight for weight in rows if weight is not None])  # type: ignore[misc]
        return self.training(step)

    def answering(self, rows: int, length: int, new: int) -> Answering:
        """Answers of `new` tokens to `rows` prompts of `length` tokens."""
        layers, config, wide = self._layers(), self.config, self.lm.dtype.itemsize
        keys = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        cache = float(len(layers) * keys * self._head_width * wide)
        largest = max((layer.outputs + layer.inputs for layer in layers), default=0.0)
        working = rows * (length + 2 * new) * cache
        working += rows * length * (NORMS / 2 * config.hidden_size + wide * largest)
        return Answering(
            weights=bytes_of(self.lm.parameters()) - self.saved,
            working=working + self.dense + 4.0 * rows * config.vocab_size,
            cache_a_token=cache,
            a_token=sum(layer.forward + self._attention * length for layer in layers),
            head=2.0 * self._head.numel(),
        )

    @property
    def _head(self) -> Any:
        table = self.lm.get_output_embeddings()
        return table.weight if table is not None else torch.empty(0)

    @property
    def _head_width(self) -> int:
        """Width of a query or key plus that of a value, of one head."""
        config = self.config
        wide = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        split = getattr(config, "qk_nope_head_dim", 0) + getattr(config, "qk_rope_head_dim", 0)
        return int((split or wide) + (getattr(config, "v_head_dim", None) or wide))

    @property
    def _attention(self) -> float:
        """Operations of attention in a layer, for a pair of tokens."""
        heads: int = self.config.num_attention_heads
        return 2.0 * heads * self._head_width

    def _layers(self) -> list[_Layer]:
        """Sums over the matrices of each decoder layer, lowest first."""
        places = {id(layer): i for i, layer in enumerate(layers_of(self.lm))}
        found = [_Layer() for _ in places]
        for name, module in self.lm.named_modules():
            if id(module) in places:
                self._add(found[places[id(module)]], name, module)
        return found

    def _add(self, layer: _Layer, name: str, module: nn.Module) -> None:
        for part, parameter in module.named_parameters():
            child, share = part.partition(".")[0], self.share(f"{name}.{part}")
            layer.cast += (
                NARROW * parameter.numel() * (parameter.requires_grad or parameter.dtype == torch.float32)
            )
            if parameter.requires_grad:
                layer.first = layer.first or child
            if parameter.dim() < 2:
                continue
            operations, times = 2 * parameter.numel() * share, 1.0
            if ADAPTER not in part:
                times = share * math.prod(parameter.shape[:-2])
                layer.outputs += times * parameter.shape[-2]
            layer.forward += operations
            layer.above += operations * (layer.first not in (None, child))
            if parameter.requires_grad:
                layer.weights += operations
                layer.inputs += times * parameter.shape[-1]
        wrapper: Any
        for part, wrapper in module.named_modules():
            if hasattr(wrapper, "parameter_name"):  # of stacked experts: a row is kept for each chosen one
                rows = self.share(f"{name}.{part}.") * wrapper.num_experts
                learning = [down.weight for down in wrapper.lora_A.values() if down.weight.requires_grad]
                layer.inputs += sum((rows - 1) * down.shape[1] for down in learning)
            osf = getattr(wrapper, "osf_svd_params", {})
            for factors in osf.values():  # those before training compute, too
                (outs, rank), ins = factors["U_low"].shape, factors["V_low"].shape[1]
                kept = min(outs, ins) - rank
                layer.forward += 2 * rank * (outs + ins)
                layer.weights += 2 * rank * (outs + ins)
                layer.above += 2 * rank * (outs + ins)
                sizes = outs * (rank if outs <= ins else kept), ins * (rank if outs >= ins else kept)
                layer.step += 4 * rank * sum(sizes)

    def _working(self, layers: list[_Layer], step: Step) -> float:
        """Most bytes of activations, copies of weights and logits, with `layers` in the backward pass."""
        wide = NARROW if step.bf16 else self.lm.dtype.itemsize
        hidden: int = self.config.hidden_size
        kept = [
            step.tokens * (NORMS * hidden + wide * (OUTPUTS * layer.outputs + layer.inputs))
            for layer in layers
        ]
        copies = [layer.cast * step.bf16 for layer in layers]
        logits: float = LOGITS * step.rows * step.labelled * self.config.vocab_size
        if not step.checkpointing or not layers:
            return sum(kept) + sum(copies) + logits
        largest = max((1 + BACKWARD) * one + copy for one, copy in zip(kept, copies, strict=True))
        inputs: int = self.lm.dtype.itemsize * step.tokens * hidden * len(layers)
        return inputs + max(largest, logits)


def numel_of(tensors: Iterable[torch.Tensor]) -> int:
    """Numbers of tensors."""
    return sum(tensor.numel() for tensor in tensors)


def bytes_of(tensors: Iterable[torch.Tensor]) -> float:
    """Bytes of tensors."""
    return float(sum(tensor.numel() * tensor.element_size() for tensor in tensors))


@dataclass(frozen=True)
class EncoderSize:
    """Size of an image encoder."""

    tokens: int
    """Of an image."""
    width: int
    """Numbers of a token."""
    parameters: int | None = None
    """None: not known."""
    operations: float | None = None
    """Of an image. None: not known."""


@cache
def image_encoder(name: str) -> EncoderSize:
    """Size of encoder `name`; of an unknown one the assumed tokens and width.

    Unknown is one whose shape only the hub or a folder to come has.
    """
    try:
        return _measured(name)
    except Exception:  # a name that only a download explains, or a tower that does not run on device meta
        return EncoderSize(ASSUMED_TOKENS, ASSUMED_WIDTH)


def _measured(name: str) -> EncoderSize:
    source = encoders.find_tower(name)
    if source.model.startswith(encoders.HUB) or "hf-hub:" in source.model:
        raise ValueError("only the hub knows its shape")
    with quiet_loggers("open_clip", "timm", "root"), torch.device("meta"):
        tower, (height, width) = _empty(source)
    tower = tower.to("meta").eval()
    pixels = torch.empty(1, 3, height, width, device="meta")
    read = vision._reader(tower, pixels)
    with torch.no_grad(), flops.Counter() as count:
        found = read(tower, pixels)
    tokens = found.shape[1] if source.grid is None else math.prod(source.grid)
    return EncoderSize(tokens, found.shape[2], sum(p.numel() for p in tower.parameters()), float(count.total))


def _empty(source: Any) -> tuple[Any, tuple[int, int]]:
    """The tower without weights, and height and width of its input."""
    if source.library == "timm":
        import timm

        trunk: Any = timm.create_model(source.model, pretrained=False)
        height, width = trunk.default_cfg["input_size"][1:]
        return trunk, (height, width)
    import open_clip

    clip = open_clip.create_model(source.model, load_weights=False, device="meta")
    size = clip.visual.image_size
    return clip.visual, (size, size) if isinstance(size, int) else tuple(size)
