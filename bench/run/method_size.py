"""Size of a method on a base: parameters, memory and operations of its passes, bytes of a stage. From shapes alone."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from moextend.bench.methods import MethodSpec, Shapes
from moextend.bench.methods.extra import Extra
from moextend.bench.methods.method import Parameters
from moextend.training.splits import held_out

if TYPE_CHECKING:
    import torch

    from moextend.training.estimate import Answering, Training
    from moextend.training.tracing import Step


@dataclass(frozen=True)
class MethodSize:
    """What a method trains, stores and computes."""

    trained: int
    """Parameters that a stage trains."""
    added: float
    """Bytes that a stage adds to the model's weights; 0 where it trains weights that are there already."""
    stored: int
    """Bytes of a stage's files, without its records."""
    training: Training | None
    """A step; None: the method trains nothing."""
    single: Training | None
    """A step of one conversation; None: no pass of the method takes gradients of single ones."""
    answering: Answering
    """After one stage."""
    skipped: float
    """Operations a token of a step that are counted, and that tokens skip which do not choose the new experts."""
    sampled: float
    """Operations of a step on the tokens of a memory (`Extra.sampled`)."""
    probe_steps: int
    """Steps of a probe before a stage."""
    extra: Extra


@dataclass
class Sizes:
    """Sizes of methods on one base; equal traces are made once."""

    make: Callable[[], Any]
    """Returns a new language model on device meta."""
    dtype: torch.dtype
    step: Step
    rows: int
    """Prompts of a batch in scoring."""
    length: int
    """Tokens of a prompt."""
    new: int
    """Tokens of an answer."""
    features: int
    """Numbers of a feature of task inference."""
    items: int
    """Training items of a stage, held-out ones included."""
    answered: dict[str, Answering] = field(default_factory=dict)
    """Trained parameters -> answers with them; of any step."""
    _trained: dict[tuple[str, Step], Training] = field(default_factory=dict, init=False)
    """Trained parameters and a step -> what it takes."""

    def base(self) -> Any:
        """A new base in its number type; nothing learns."""
        from moextend.training.estimate import cast, learn_only

        lm = cast(self.make(), self.dtype)
        learn_only(lm, [])
        return lm

    def of(self, spec: MethodSpec) -> MethodSize:
        """Size of a method.

        Raises:
            InputError: the base's forward pass cannot be traced.
        """
        import torch

        from moextend.training.estimate import bytes_of, learn_only

        lm, method = self.base(), spec.make()
        shapes = Shapes(lm, self.features, self.items, held_out(self.items) * self.step.length)
        before = bytes_of(lm.parameters())
        extra = method.extra(shapes)
        with torch.device("meta"):
            learning = method.trainable(shapes)
        learn_only(lm, learning.values())
        stacks = sum(p.numel() for p in learning.values() if p.dim() == 3)
        last = sum(p.numel() for name, p in learning.items() if p.dim() == 3 and name.endswith("down_proj"))
        again = 8 if self.step.checkpointing else 6
        singly = any(each.backward for each in extra.passes)
        return MethodSize(
            trained=sum(p.numel() for p in learning.values()),
            added=bytes_of(lm.parameters()) - before,
            stored=extra.stored_copies * stored_bytes(learning) + extra.stored,
            training=self._step(lm, learning, self.step) if learning else None,
            single=self._step(lm, learning, replace(self.step, rows=1, checkpointing=False))
            if singly
            else None,
            answering=self._answers(lm, learning),
            skipped=(1 - extra.share) * again * stacks,
            # Forward, gradients of the weights, and those of the inner neurons: kept inputs have no gradient.
            sampled=extra.sampled * (4 * stacks + 2 * last),
            probe_steps=method.probe_steps,
            extra=extra,
        )

    def answers(self) -> Answering:
        """Of the base."""
        return self._answers(self.base(), {})

    def _answers(self, lm: Any, learning: Parameters) -> Answering:
        from moextend.training.estimate import answering

        key = _key(learning)
        if key not in self.answered:
            self.answered[key] = answering(lm, self.rows, self.length, self.new)
        return self.answered[key]

    def _step(self, lm: Any, learning: Parameters, step: Step) -> Training:
        from moextend.training.estimate import training

        key = (_key(learning), step)
        if key not in self._trained:
            self._trained[key] = training(lm, step)
        return self._trained[key]

    def probe(self) -> Training:
        """A step that tunes all routers."""
        from moextend.training.estimate import probe

        return probe(self.base(), self.step)

    def alignment(self, step: Step) -> Training:
        """A step that trains a projector, whose tokens are inputs of the frozen base."""
        from moextend.training.estimate import training

        return training(self.base(), step, inputs=True)


def _key(learning: Parameters) -> str:
    """Equal for methods whose trained parameters have the same names, shapes and number types."""
    return json.dumps([(name, list(p.shape), str(p.dtype)) for name, p in learning.items()])


KINDS = {"float32": "F32", "bfloat16": "BF16", "float16": "F16", "float64": "F64"}
"""Number types of torch -> their names in safetensors."""


def stored_bytes(tensors: Mapping[str, Any]) -> int:
    """Size of a safetensors file with these tensors; 0 bytes of data are a file of a header alone."""
    header: dict[str, Any] = {}
    end = 0
    for name in sorted(tensors, key=lambda name: (-tensors[name].element_size(), name)):
        begin, end = end, end + tensors[name].numel() * tensors[name].element_size()
        kind = KINDS[str(tensors[name].dtype).removeprefix("torch.")]
        header[name] = {"dtype": kind, "shape": list(tensors[name].shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":"))
    return 8 + 8 * math.ceil(len(text) / 8) + end
