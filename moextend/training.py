"""The one training loop: transformers' Trainer on a fixed order of conversations, resumable at any step."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from moextend import files, flops
from moextend.batches import Collator, Conversation
from moextend.multimodal import MultimodalLM

WEIGHTS = "trained.safetensors"
STATE = "trainer_state.json"

ExtraLoss = Callable[[Mapping[str, Tensor], Mapping[str, Tensor]], Tensor]
"""Takes a batch and what the model gave for it, both by name; gives a term of the loss (a scalar)."""


@dataclass(frozen=True)
class Settings:
    """How long and how fast to train."""

    steps: int
    batch_size: int
    learning_rate: float
    warmup: float = 0.03
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    gradient_accumulation: int = 1
    checkpoint_steps: int = 100
    seed: int = 0
    bf16: bool = False
    report_to: str = "none"


@dataclass(frozen=True)
class Report:
    """What a training did."""

    steps: int
    loss_first: float
    loss_last: float
    """Mean loss (nats a labelled token) over the first and the last tenth of the steps."""
    trained_parameters: int
    tokens: int
    """Seen, with repetition and without padding."""
    flops: float
    """Of all steps, forward and backward: those of one step a token, times the tokens."""


def draw_order(count: int, wanted: int, seed: int) -> list[int]:
    """The order in which items are seen: permutations of all items, one after the other, cut to `wanted`.

    It depends on the seed and the data alone, so that every method sees the same batches.
    """
    generator = torch.Generator().manual_seed(seed)
    order: list[int] = []
    while len(order) < wanted:
        order += torch.randperm(count, generator=generator).tolist()
    return order[:wanted]


class InOrder(Dataset[Conversation]):
    """Conversations in a drawn order."""

    def __init__(self, data: Sequence[Conversation], order: Sequence[int]) -> None:
        self.data, self.order = data, order

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, place: int) -> Conversation:
        return self.data[self.order[place]]


def train(
    model: MultimodalLM,
    data: Sequence[Conversation],
    settings: Settings,
    *,
    folder: Path,
    extra_loss: ExtraLoss | None = None,
    rates: Mapping[str, float] | None = None,
    on_step: Callable[[int, int], None] | None = None,
) -> Report:
    """Trains the parameters of `model` that require gradients on `data`; the model is left in eval mode.

    Args:
        folder: holds the trainer's state while in flight; a training that was interrupted goes on from its last
            checkpoint there. Removed at the end.
        extra_loss: called after each forward pass with its batch and what the model gave; added to the loss.
        rates: ending of a parameter's name -> factor on the learning rate.
        on_step: called with (steps done, steps in all).
    """
    each = settings.batch_size * settings.gradient_accumulation
    order = draw_order(len(data), settings.steps * each, settings.seed)
    torch.manual_seed(settings.seed)
    trainer = _Trainer(
        model=model,
        args=_arguments(settings, folder, model.device),
        train_dataset=InOrder(data, order),
        data_collator=Collator.of(model),
        callbacks=[_Follow(on_step)],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.extra_loss, trainer.rates = extra_loss, rates or {}
    trainer.train(resume_from_checkpoint=_last_checkpoint(folder))
    model.eval()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    shutil.rmtree(folder, ignore_errors=True)
    return Report(
        steps=trainer.state.global_step,
        loss_first=losses[0] if losses else float("nan"),
        loss_last=losses[-1] if losses else float("nan"),
        trained_parameters=sum(p.numel() for p in model.trainable().values()),
        tokens=trainer.state.num_input_tokens_seen,
        flops=trainer.flops_a_token * trainer.state.num_input_tokens_seen,
    )


def _arguments(settings: Settings, folder: Path, device: torch.device) -> TrainingArguments:
    return TrainingArguments(
        output_dir=str(folder),
        max_steps=settings.steps,
        per_device_train_batch_size=settings.batch_size,
        gradient_accumulation_steps=settings.gradient_accumulation,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=round(settings.warmup * settings.steps),
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        save_steps=settings.checkpoint_steps,
        save_total_limit=2,
        logging_steps=max(1, settings.steps // 10),
        train_sampling_strategy="sequential",
        remove_unused_columns=False,
        disable_tqdm=True,
        dataloader_pin_memory=device.type == "cuda",
        use_cpu=device.type == "cpu",
        bf16=settings.bf16,
        seed=settings.seed,
        report_to=settings.report_to,
        include_num_input_tokens_seen="non_padding",
    )


class _Trainer(Trainer):  # type: ignore[misc]
    """Trainer that saves and restores only what learns, and takes an extra loss."""

    extra_loss: ExtraLoss | None = None
    rates: Mapping[str, float]
    flops_a_token: float = 0.0

    def training_step(self, model: nn.Module, inputs: Any, *args: Any, **kwargs: Any) -> Tensor:
        """One forward and backward pass; what the first one costs is counted."""
        if self.flops_a_token:
            return cast(Tensor, super().training_step(model, inputs, *args, **kwargs))
        with flops.counter() as count:
            loss = cast(Tensor, super().training_step(model, inputs, *args, **kwargs))
        self.flops_a_token = count.get_total_flops() / int(inputs["attention_mask"].sum())
        return loss

    def compute_loss(self, model: nn.Module, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """The model's loss plus the extra one."""
        out = model(**inputs)
        return out["loss"] + self.extra_loss(inputs, out) if self.extra_loss else out["loss"]

    def create_optimizer(self, model: Any = None) -> Any:
        """AdamW over what learns, grouped by learning rate."""
        self.optimizer: torch.optim.Optimizer | None
        if self.optimizer is None:
            groups: dict[float, list[nn.Parameter]] = {}
            for name, parameter in self.model.trainable().items():
                factor = next((f for end, f in self.rates.items() if name.endswith(end)), 1.0)
                groups.setdefault(factor, []).append(parameter)
            self.optimizer = torch.optim.AdamW(
                [{"params": ps, "lr": self.args.learning_rate * f} for f, ps in groups.items()],
                weight_decay=self.args.weight_decay,
                betas=(0.9, 0.98),
                fused=True,
            )
        return self.optimizer

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        folder = Path(output_dir or self.args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        trained = {name: p.detach().contiguous() for name, p in self.model.trainable().items()}
        with files.disk_errors(folder):
            save_file(trained, folder / WEIGHTS)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        saved = load_file(Path(resume_from_checkpoint) / WEIGHTS)
        with torch.no_grad():
            for name, parameter in self.model.trainable().items():
                parameter.copy_(saved[name])


class _Follow(TrainerCallback):  # type: ignore[misc]
    """Tells how far the training is."""

    def __init__(self, on_step: Callable[[int, int], None] | None) -> None:
        self.on_step = on_step

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Called after every optimizer step."""
        if self.on_step:
            self.on_step(state.global_step, state.max_steps)


def _last_checkpoint(folder: Path) -> str | None:
    """The newest checkpoint that is whole; the trainer's state is the last file that is written to one."""
    whole = []
    for checkpoint in folder.glob("checkpoint-*"):
        try:
            whole.append((json.loads((checkpoint / STATE).read_text())["global_step"], checkpoint))
        except (OSError, ValueError, KeyError):
            shutil.rmtree(checkpoint, ignore_errors=True)
    return str(max(whole)[1]) if whole else None
