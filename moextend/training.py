"""The one training loop: transformers' Trainer on a fixed order of conversations, resumable at any step."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import islice
from math import inf
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

import torch
from accelerate.utils import broadcast_object_list
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.integrations import get_available_reporting_integrations
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK
from transformers.trainer_callback import PrinterCallback

from moextend import files, flops
from moextend.balance import watch_balance
from moextend.batches import Collator, Conversation
from moextend.errors import InputError, UnknownName
from moextend.multimodal import IGNORE, MultimodalLM
from moextend.prefix import PrefixCache
from moextend.prepare import Whole, asks_to_shard, checkpointing, compiled, in_float32, sharded

WEIGHTS = "trained.safetensors"
DRAWN = "extra_loss.safetensors"
STATE = "trainer_state.json"
ITEMS = "items"
"""Where a batch keeps the places of its rows in the data; not for the model."""
SCHEDULES = {"cosine": "cosine", "linear": "linear", "constant": "constant_with_warmup"}
"""Name -> transformers' name; all of them begin with the warm-up."""

ExtraLoss = Callable[[Mapping[str, Tensor], Mapping[str, Tensor]], Tensor]
"""(batch, what the model returned for it) -> a loss that is added to the model's own."""


@runtime_checkable
class Stateful(Protocol):
    """An extra loss that draws at random: its state is part of a checkpoint."""

    def state_dict(self) -> dict[str, Tensor]:
        """The state as it is now."""
        ...

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Goes on from a state."""
        ...


@dataclass(frozen=True)
class Settings:
    """How long and how fast to train.

    Raises:
        InputError: a value that no training can have.
    """

    steps: int
    """Optimizer steps."""
    batch_size: int
    """Conversations a forward pass, over all processes together."""
    learning_rate: float
    """Highest learning rate."""
    schedule: str = "cosine"
    """How the learning rate goes on after the warm-up: cosine or linear to zero, or constant."""
    warmup: float = 0.03
    """Share of the steps in which the learning rate rises from zero."""
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    """The gradient is cut to this norm; 0 leaves it as it is."""
    gradient_accumulation: int = 1
    """Forward passes an optimizer step. Every labelled token of a step weighs the same."""
    checkpoint_steps: int = 100
    """Steps between two checkpoints that an interrupted training goes on from."""
    seed: int = 0
    bf16: bool = False
    """Compute in bfloat16 (autocast); what learns is held in float32 all the same."""
    gradient_checkpointing: bool = False
    """Compute activations again in the backward pass instead of keeping them: less memory, more time."""
    compile: bool = False
    """Compile the decoder's layers (torch.compile): pays where layers are large and the training is long."""
    balance: float = 0.0
    """Factor on the load-balance loss among the new experts that learn (see balance.balance_loss; paper: 0.001)."""
    cache_prefix: bool = False
    """Keep what enters the lowest layer that learns, item by item, and begin there from the second epoch on.

    What is learnt is the same up to rounding. Only where all below is frozen and nothing there is random; not with
    `compile`, and not under FSDP.
    """
    report_to: str = "none"
    """A tracker that transformers knows and that is installed, "all" of them, or "none"."""

    def __post_init__(self) -> None:
        """Refuses values out of range."""
        ranges = {
            "steps": (1, inf), "batch_size": (1, inf), "learning_rate": (0, inf), "warmup": (0, 1),
            "weight_decay": (0, inf), "max_grad_norm": (0, inf), "gradient_accumulation": (1, inf),
            "checkpoint_steps": (1, inf), "balance": (0, inf),
        }  # fmt: skip
        for name, (low, high) in ranges.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise InputError(
                    f"{name} is {value}.", where="training settings", mend=f"From {low} to {high}."
                )
        if self.cache_prefix and self.compile:
            raise InputError(
                "cache_prefix does not go with compile.", where="training settings", mend="Use one of them."
            )
        if self.schedule not in SCHEDULES:
            raise UnknownName("schedule", self.schedule, SCHEDULES, where="training settings")


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
    flops: float | None
    """Of all steps, forward and backward: those of one step a token, times the tokens. None of a compiled model.

    With `cache_prefix`, tokens of the first epoch count as one whole step's, later ones as one short step's.
    """


def draw_order(count: int, wanted: int, seed: int) -> list[int]:
    """The order in which items are seen: permutations of all items, one after the other, cut to `wanted`.

    It depends on the seed and the data alone, so that every method sees the same batches.
    """
    generator = torch.Generator().manual_seed(seed)
    order: list[int] = []
    while len(order) < wanted:
        order += torch.randperm(count, generator=generator).tolist()
    return order[:wanted]


class InOrder(Dataset[tuple[int, Conversation]]):
    """Conversations in a drawn order, each with its place in `data`."""

    def __init__(self, data: Sequence[Conversation], order: Sequence[int]) -> None:
        self.data, self.order = data, order

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, place: int) -> tuple[int, Conversation]:
        item = self.order[place]
        return item, self.data[item]


def _collated(collate: Collator, items: Sequence[tuple[int, Conversation]]) -> dict[str, Tensor]:
    """A batch, with what its rows are known by."""
    batch = collate([conversation for _, conversation in items])
    return {**batch, ITEMS: torch.tensor([item for item, _ in items])}


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

    Under `accelerate launch` or `torchrun` every process calls it with the same arguments and takes its share of each
    batch: what is learnt is that of one process, up to rounding. Under FSDP frozen weights are sharded, what learns
    is not. The first process alone writes weights and calls `on_step`.

    Args:
        folder: holds the trainer's state while in flight; a training that was interrupted goes on from its last
            checkpoint there. Removed at the end.
        extra_loss: called after each forward pass with its batch and what the model gave; added to the loss.
        rates: ending of a parameter's name -> factor on the learning rate.
        on_step: called with (steps done, steps in all).

    Raises:
        InputError: the settings do not fit the model, the number of processes, or what is installed.
    """
    check_tracker(settings.report_to)
    args = _arguments(settings, folder, model.device)
    shard = asks_to_shard() and torch.distributed.is_initialized()
    each = settings.batch_size * settings.gradient_accumulation
    order = draw_order(len(data), settings.steps * each, settings.seed)
    torch.manual_seed(settings.seed)
    with ExitStack() as stack:
        stack.enter_context(in_float32(model, settings.bf16))
        learner = stack.enter_context(sharded(model, args.device)) if shard else model
        trainer = _Trainer(
            model=learner,
            args=args,
            train_dataset=InOrder(data, order),
            data_collator=partial(_collated, Collator.of(model)),
            callbacks=[_Follow(on_step)],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.settings, trainer.extra_loss, trainer.rates = settings, extra_loss, rates or {}
        trainer.sharded, trainer.flops_a_token = shard, {}
        trainer.model_accepts_loss_kwargs = True  # compute_loss knows of the whole step: no more scaling
        if settings.gradient_checkpointing:
            stack.enter_context(checkpointing(learner))
        if settings.compile:
            stack.enter_context(compiled(learner))
        if settings.balance:
            trainer.balance = stack.enter_context(watch_balance(learner.lm))
        if settings.cache_prefix:
            trainer.prefix = _prefix(learner, trainer, folder)
        _keep_logs(trainer, folder)
        trainer.train(resume_from_checkpoint=trainer.first_says(lambda: _last_checkpoint(folder)))
        trainer.accelerator.wait_for_everyone()
    model.eval()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    if args.should_save:
        shutil.rmtree(folder, ignore_errors=True)
    return Report(
        steps=trainer.state.global_step,
        loss_first=losses[0] if losses else float("nan"),
        loss_last=losses[-1] if losses else float("nan"),
        trained_parameters=sum(p.numel() for p in model.trainable().values()),
        tokens=trainer.state.num_input_tokens_seen,
        flops=trainer.operations(first_seen=min(1.0, len(data) / len(order))),
    )


def _prefix(model: MultimodalLM, trainer: _Trainer, folder: Path) -> PrefixCache:
    """The cache of a training, once a batch has shown that the model can do with it."""
    if trainer.sharded:
        raise InputError(
            "cache_prefix does not go with FSDP.", where="training settings", mend="Use cache_prefix: false."
        )
    cache = PrefixCache(model, folder)
    rows = trainer.train_dataset
    each = min(len(rows), trainer.args.per_device_train_batch_size)
    batch = trainer.data_collator([rows[place] for place in range(each)])
    cache.check({name: tensor.to(model.device) for name, tensor in batch.items() if name != ITEMS})
    return cache


def check_tracker(name: str) -> None:
    """InputError where transformers does not know the tracker `name`, or it is not installed."""
    if name in ("none", "all"):
        return
    if name not in INTEGRATION_TO_CALLBACK:
        raise UnknownName("tracker", name, ["none", "all", *INTEGRATION_TO_CALLBACK], where="report_to")
    if name not in get_available_reporting_integrations():
        raise InputError(
            f"the tracker '{name}' is not installed.",
            where="report_to",
            mend="Install its package, or use report_to: none.",
        )


def _arguments(settings: Settings, folder: Path, device: torch.device) -> TrainingArguments:
    # A model that waits in host memory to be sharded still trains on the accelerators of its processes.
    together = int(os.environ.get("WORLD_SIZE", "1")) > 1
    args = TrainingArguments(
        output_dir=str(folder),
        max_steps=settings.steps,
        gradient_accumulation_steps=settings.gradient_accumulation,
        learning_rate=settings.learning_rate,
        lr_scheduler_type=SCHEDULES[settings.schedule],
        warmup_steps=round(settings.warmup * settings.steps),
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        save_steps=settings.checkpoint_steps,
        save_total_limit=2,
        logging_steps=max(1, settings.steps // 10),
        train_sampling_strategy="sequential",
        remove_unused_columns=False,
        disable_tqdm=True,
        use_cpu=device.type == "cpu" and not (together and torch.accelerator.is_available()),
        seed=settings.seed,
        report_to=settings.report_to,
        include_num_input_tokens_seen="non_padding",
    )
    processes = args.world_size
    if settings.batch_size % processes:
        raise InputError(
            f"a batch of {settings.batch_size} conversations cannot be shared by {processes} processes.",
            where="training settings",
            mend=f"Make batch_size a multiple of {processes}, or start fewer processes.",
        )
    args.per_device_train_batch_size = settings.batch_size // processes
    args.dataloader_pin_memory = args.device.type == "cuda"
    args._n_gpu = min(1, args.n_gpu)  # one process uses one accelerator: no nn.DataParallel
    args.mixed_precision = "no"  # the settings decide, not the launcher's config; see _Trainer.compute_loss
    return args


class _Trainer(Trainer):  # type: ignore[misc]
    """Trainer that weighs labelled tokens evenly, takes extra losses, and keeps only what learns."""

    settings: Settings
    extra_loss: ExtraLoss | None = None
    balance: Callable[[Tensor], Tensor] | None = None
    rates: Mapping[str, float]
    prefix: PrefixCache | None = None
    flops_a_token: dict[bool, float]
    """Operations a token of a step: False of a whole one, True of one that began above the frozen layers."""
    sharded = False
    """Whether the model was sharded already: then what learns is whole in every process, and averaged here."""

    @property
    def drawn(self) -> Stateful | None:
        """The extra loss, where it has a state to keep."""
        loss: object = self.extra_loss
        return loss if isinstance(loss, Stateful) else None

    def first_says(self, ask: Callable[[], str | None]) -> str | None:
        """The answer of the first process, for all of them."""
        said = [ask() if self.args.process_index == 0 else None]
        return cast("list[str | None]", broadcast_object_list(said))[0]

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: Any) -> Any:
        """The batches of one optimizer step and the number of their labelled tokens, over all processes."""
        batches = list(islice(epoch_iterator, num_batches))
        own = sum(int((batch["labels"][:, 1:] != IGNORE).sum()) for batch in batches)
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
        begun = self.prefix.around(items, inputs["attention_mask"]) if self.prefix else nullcontext()
        with begun, torch.autocast(self.args.device.type, torch.bfloat16, enabled=self.settings.bf16):
            out = model(**inputs)
        tokens = out["logits"].shape[0]
        if tokens:
            loss = out["loss"] * (self.args.world_size * tokens / num_items_in_batch)
        else:
            loss = out["logits"].float().sum()  # zero, where a mean over nothing is not a number
        parts = self.current_gradient_accumulation_steps
        if self.balance:
            loss = loss + self.settings.balance * self.balance(inputs["attention_mask"]) / parts
        if self.extra_loss:
            loss = loss + self.extra_loss(inputs, out) / parts
        return (loss, out) if return_outputs else loss

    def _wrap_model(self, model: nn.Module, *args: Any, **kwargs: Any) -> nn.Module:
        return Whole(model) if self.sharded else super()._wrap_model(model, *args, **kwargs)

    def training_step(self, model: nn.Module, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Forward and backward pass of one batch; what the first one costs is counted."""
        short = self.prefix is not None and self.prefix.knows(inputs[ITEMS].tolist())
        counted = short not in self.flops_a_token and not self.settings.compile
        with flops.Counter() if counted else nullcontext() as count:
            loss = super().training_step(model, inputs, *args, **kwargs)
        if count is not None:
            self.flops_a_token[short] = count.total / int(inputs["attention_mask"].sum())
        if self.sharded and self.accelerator.sync_gradients:
            for parameter in self.model.trainable().values():
                if parameter.grad is None:  # idle in this process, but not in all of them
                    parameter.grad = torch.zeros_like(parameter)
                parameter.grad.copy_(self.accelerator.reduce(parameter.grad, "mean"))
        return loss

    def operations(self, first_seen: float) -> float | None:
        """Operations of all steps; `first_seen`: share of the items that were not seen before."""
        if not self.flops_a_token:
            return None
        whole = self.flops_a_token.get(False, 0.0)
        short = self.flops_a_token.get(True, whole)
        return float(self.state.num_input_tokens_seen) * (first_seen * whole + (1 - first_seen) * short)

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
        if not self.args.should_save:
            return
        folder = Path(output_dir or self.args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        trained = {name: p.detach().contiguous() for name, p in self.model.trainable().items()}
        with files.disk_errors(folder):
            save_file(trained, folder / WEIGHTS)
            if self.drawn is not None:
                save_file(self.drawn.state_dict(), folder / DRAWN)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        saved = load_file(Path(resume_from_checkpoint) / WEIGHTS)
        with torch.no_grad():
            for name, parameter in self.model.trainable().items():
                parameter.copy_(saved[name])
        if self.drawn is not None:
            self.drawn.load_state_dict(load_file(Path(resume_from_checkpoint) / DRAWN))


def _keep_logs(trainer: Trainer, folder: Path) -> None:
    """Trackers that write files write beside `folder`, which is removed at the end."""
    for callback in trainer.callback_handler.callbacks:
        if getattr(callback, "logging_dir", "") is None:
            callback.logging_dir = str(folder.parent / "logs")


class _Follow(TrainerCallback):  # type: ignore[misc]
    """Tells how far the training is."""

    def __init__(self, on_step: Callable[[int, int], None] | None) -> None:
        self.on_step = on_step

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Called after every optimizer step."""
        if self.on_step and state.is_world_process_zero:
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
