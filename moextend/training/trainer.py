"""transformers' Trainer with equal weights of labelled tokens and extra losses; saves trained parameters only."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import Trainer

from moextend.errors import RunFailed
from moextend.model.batches import labelled
from moextend.training import checkpoint, flops
from moextend.training.flops import CountedSteps
from moextend.training.prefix_cache import PrefixCache
from moextend.training.prepare import Unsharded
from moextend.training.settings import Settings
from moextend.util import files

WEIGHTS = "trained.safetensors"
DRAWN, HOOK = "extra_loss.safetensors", "step_hook.safetensors"
"""Files of a checkpoint with the states of the extra loss and of the step hook."""
COUNTED = "flops.json"
"""File of a checkpoint with the operations and positions of the training so far."""
UNLOGGED = "loss.json"
"""File of a checkpoint with the sum of the losses since they were last logged, and the step of that."""
WATCHED = ("loss", "gradient")
"""What is watched in every step."""
ITEMS = "items"
"""Key of a batch with the indices of its rows in the data; not an input of the model."""
ExtraLoss = Callable[[Mapping[str, Tensor], Mapping[str, Tensor]], Tensor]
"""(batch, model output) -> a loss that is added to the model's own."""


@runtime_checkable
class Stateful(Protocol):
    """An extra loss or a step hook with a state, such as random numbers: it is part of a checkpoint."""

    def state_dict(self) -> dict[str, Tensor]:
        """Current state."""
        ...

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restores a state."""
        ...


@runtime_checkable
class BeforeStep(Protocol):
    """A step hook that sees and changes gradients."""

    def before_step(self) -> None:
        """Called once for each optimizer step, after accumulation and reduction over processes, before clipping.

        A trained parameter has the same `.grad` in all processes; None: it got no gradient. The clipped norm, and the
        test for gradients that are not finite, are those of the changed gradients.
        """
        ...


@runtime_checkable
class AfterStep(Protocol):
    """A step hook that sees and changes weights."""

    def after_step(self) -> None:
        """Called after each optimizer step, before a checkpoint is written."""
        ...


StepHook = BeforeStep | AfterStep
"""An object with one of these methods, or both; if it is `Stateful`, its state is part of a checkpoint."""


@runtime_checkable
class OwnBatches(Protocol):
    """An extra loss of batches of its own, such as answers that the model samples: it is the whole loss."""

    def batch(self, items: Sequence[int]) -> dict[str, Any]:
        """Inputs of the forward pass in the place of those of these items of the data, on the model's device."""
        ...

    def __call__(self, batch: Mapping[str, Tensor], out: Mapping[str, Tensor]) -> Tensor:
        """The loss; its operations, those of `batch` included, are counted like those of a step."""
        ...


def diverged(what: str, step: int) -> RunFailed:
    """Error for a training with a number that is not finite."""
    return RunFailed(
        f"the training diverged: {what} (NaN or infinite).",
        where=f"step {step}",
        hint="Use a lower learning rate; a longer warm-up or a smaller max_grad_norm may help, too.",
    )


class TokenTrainer(Trainer):
    """Trainer with equal weights of labelled tokens and extra losses, which saves trained parameters only."""

    model: Any
    """A MultimodalLM, which the type of Trainer does not include."""
    settings: Settings
    extra_loss: ExtraLoss | None = None
    step_hook: StepHook | None = None
    balance: Callable[[Tensor], Tensor] | None = None
    rates: Mapping[str, float]
    prefix: PrefixCache | None = None
    counted: CountedSteps
    """Operations of the training so far."""
    sharded = False
    """Whether the model is sharded: then trained parameters are unsharded in every process, and averaged here."""

    read_at_once: tuple[str, ...] = ("cpu",)
    """Device types with values that can be read in every step without waiting."""
    _bad: Tensor | None = None
    """[2], on the device: first step with a loss, and with a gradient, that is not finite; -1: none."""
    _unlogged: Tensor | float = 0.0
    """Sum of the losses since the last log, in this process."""
    _logged = 0
    """Step of the last log."""
    _carried: tuple[float, int] | None = None
    """Of a training that was resumed since the last log: sum of the losses before the checkpoint, and its step."""

    def _watch(self, what: int, value: Any) -> None:
        """Records a value of this step that is not finite, without waiting for the device; on the CPU raises."""
        value = torch.as_tensor(value).detach()
        if self._bad is None:
            self._bad = torch.full((len(WATCHED),), -1, dtype=torch.long, device=value.device)
        first = (self._bad[what] < 0) & ~value.isfinite()
        self._bad[what] = torch.where(first, self.state.global_step + 1, self._bad[what])
        if value.device.type in self.read_at_once:
            self.check_finite(weights=False)

    def check_finite(self, *, weights: bool = True) -> None:
        """Raises RunFailed if an earlier loss or gradient, or a current weight, is not finite; waits for the device."""
        for what, step in zip(WATCHED, [] if self._bad is None else self._bad.tolist(), strict=False):
            if step >= 0:
                raise diverged(f"the {what} is not finite", step)
        learning = self.model.trainable() if weights else {}
        finite = (
            torch.stack([p.detach().isfinite().all() for p in learning.values()]).tolist() if learning else []
        )
        for name in (name for name, is_finite in zip(learning, finite, strict=True) if not is_finite):
            raise diverged(f"the weight {name} is not finite", self.state.global_step)

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)  # type: ignore[no-untyped-call]
        self._watch(1, norm)
        return norm

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Logs to the trackers; a diverged training fails here at the latest.

        The first loss after a checkpoint is the mean of all steps since the last log, as without an interruption.
        """
        if "loss" in logs:
            self.check_finite(weights=False)
            now = self.state.global_step
            if self._carried:
                total, begun = self._carried
                logs["loss"] = (total + logs["loss"] * (now - begun)) / (now - self._logged)
            self._unlogged, self._logged, self._carried = 0.0, now, None
        super().log(logs, *args, **kwargs)

    @property
    def states(self) -> dict[str, Stateful]:
        """File of a checkpoint -> the extra loss or the step hook, if it has a state."""
        loss: object = self.extra_loss
        found: dict[str, object] = {HOOK: self.step_hook}
        if loss is not self.step_hook:
            found[DRAWN] = loss
        return {name: one for name, one in found.items() if isinstance(one, Stateful)}

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: Any) -> Any:
        """Batches of one optimizer step, and the number of their labelled tokens over all processes."""
        batches = list(islice(epoch_iterator, num_batches))
        own = sum(map(labelled, batches))
        return batches, int(self.accelerator.reduce(torch.tensor(own, device=device), "sum"))

    def compute_loss(
        self, model: nn.Module, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """This batch's part of the step's loss.

        Summed over the batches of a step and averaged over processes it is the mean over all labelled tokens of the
        step, plus the mean over batches of the other losses.
        """
        items = inputs[ITEMS].tolist()
        inputs = {name: tensor for name, tensor in inputs.items() if name != ITEMS}
        own = self.extra_loss if isinstance(self.extra_loss, OwnBatches) else None
        if own:
            with self._autocast():
                inputs = own.batch(items)
        begun = self.prefix.around(items, inputs["attention_mask"]) if self.prefix else nullcontext()
        with begun, self._autocast():
            out = model(**inputs)
        tokens = out["logits"].shape[0]
        loss: Any
        if own:
            loss = 0.0  # its own is the whole one
        elif tokens:
            loss = out["loss"] * (self.args.world_size * tokens / num_items_in_batch)
        else:
            loss = out["logits"].float().sum()  # zero, where a mean over nothing is not a number
        parts = self.current_gradient_accumulation_steps
        if self.balance:
            loss = loss + self.settings.balance * self.balance(inputs["attention_mask"]) / parts
        if self.extra_loss:
            with self._autocast():  # it may compute passes of the model
                loss = loss + self.extra_loss(inputs, out) / parts
        return (loss, out) if return_outputs else loss

    def _autocast(self) -> torch.autocast:
        """Context in which the model computes."""
        return torch.autocast(self.args.device.type, torch.bfloat16, enabled=self.settings.bf16)

    def _wrap_model(self, model: nn.Module, *args: Any, **kwargs: Any) -> nn.Module:
        return Unsharded(model) if self.sharded else super()._wrap_model(model, *args, **kwargs)

    def training_step(self, model: nn.Module, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Forward and backward pass of one batch; counts the operations of a few."""
        short = self.prefix is not None and self.prefix.knows(inputs[ITEMS].tolist())
        rows, length = inputs["attention_mask"].shape
        counted = not (self.counted.knows(short, length) or self.settings.compile)
        count: Any
        with flops.Counter() if counted else nullcontext() as count:
            loss = super().training_step(model, inputs, *args, **kwargs)
        self._watch(0, loss)
        self._unlogged = self._unlogged + loss.detach()
        self.counted.add(short, rows, length, count.total if count is not None else None)
        if self.sharded and self.accelerator.sync_gradients:
            for parameter in self.model.trainable().values():
                if parameter.grad is None:  # idle in this process, but not in all of them
                    parameter.grad = torch.zeros_like(parameter)
                parameter.grad.copy_(self.accelerator.reduce(parameter.grad, "mean"))
        if isinstance(self.step_hook, BeforeStep) and self.accelerator.sync_gradients:
            counted = not (self.counted.knows(flops.HOOK, 1) or self.settings.compile)
            with flops.Counter() if counted else nullcontext() as count, self._autocast():
                self.step_hook.before_step()
            self.counted.add(flops.HOOK, 1, 1, count.total if count is not None else None)
        return loss

    def create_optimizer(self, model: Any = None) -> Any:
        """AdamW for the trained parameters, grouped by learning rate."""
        self.optimizer: torch.optim.Optimizer | None
        if self.optimizer is None:
            groups: dict[float, list[nn.Parameter]] = {}
            for name, parameter in self.model.trainable().items():
                factor = next((f for end, f in self.rates.items() if name.endswith(end)), 1.0)
                groups.setdefault(factor, []).append(parameter)
            self.optimizer = torch.optim.AdamW(
                [{"params": ps, "lr": self.args.learning_rate * f} for f, ps in groups.items()],
                betas=self.settings.betas, eps=self.settings.epsilon, weight_decay=self.settings.weight_decay,
                fused=True,
            )  # fmt: skip
        return self.optimizer

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        if isinstance(self._unlogged, Tensor):
            self._unlogged = self.accelerator.reduce(self._unlogged, "mean")
        self.counted.gather(self.accelerator)
        files.may_change(Path(str(self.args.output_dir)))
        super()._save_checkpoint(*args, **kwargs)
        self.accelerator.wait_for_everyone()  # every process keeps the state of its random numbers
        if self.args.should_save:
            checkpoint.seal(Path(str(self.args.output_dir)) / f"checkpoint-{self.state.global_step}")

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        if not self.args.should_save:
            return
        folder = Path(str(output_dir or self.args.output_dir))
        self.check_finite()  # a checkpoint is there to be gone on from
        files.may_change(folder)
        folder.mkdir(parents=True, exist_ok=True)
        trained = {name: p.detach().contiguous() for name, p in self.model.trainable().items()}
        with files.disk_errors(folder):
            save_file(trained, folder / WEIGHTS)
            (folder / COUNTED).write_text(json.dumps(self.counted.state_dict()))
            (folder / UNLOGGED).write_text(json.dumps([float(self._unlogged), self._logged]))
            for name, one in self.states.items():
                save_file(one.state_dict(), folder / name)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        folder = Path(resume_from_checkpoint)
        saved = load_file(folder / WEIGHTS)
        with torch.no_grad():
            for name, parameter in self.model.trainable().items():
                parameter.copy_(saved[name])
        self.counted.load_state_dict(files.read_json(folder / COUNTED))
        total, self._logged = files.read_json(folder / UNLOGGED)
        begun = int(folder.name.rpartition("-")[2])
        self._unlogged, self._carried = total, (total, begun) if begun > self._logged else None
        for name, one in self.states.items():
            one.load_state_dict(load_file(folder / name))
