"""The training loop: transformers' Trainer on a fixed order of conversations, resumable at any step."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset
from transformers import TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from moextend.data.conversations import Conversation
from moextend.errors import InputError
from moextend.model.batches import Collator, on_device
from moextend.model.feature_cache import expecting, kept_features
from moextend.model.multimodal import MultimodalLM
from moextend.moe import quantised, reach
from moextend.moe.balance import watch_balance
from moextend.moe.kernels import experts_follow_autocast
from moextend.moe.supported import check_setup
from moextend.training import checkpoint
from moextend.training.flops import CountedSteps
from moextend.training.prefix_cache import PrefixCache
from moextend.training.prepare import (
    asks_to_shard,
    checkpointing,
    compiled,
    in_float32,
    sharded,
    warn_of_precision,
)
from moextend.training.settings import SCHEDULES, Settings, check_tracker
from moextend.training.trainer import ITEMS, AfterStep, ExtraLoss, OwnBatches, StepHook, TokenTrainer
from moextend.util import files, memory, processes

LOGGED = ("loss", "grad_norm", "learning_rate")
"""Keys of the argument of `on_log`."""


@dataclass(frozen=True)
class Report:
    """Losses, counts and times of a training."""

    steps: int
    loss_first: float
    loss_last: float
    """Mean loss (nats a labelled token) over the first and the last tenth of the steps."""
    trained_parameters: int
    tokens: int
    """Number of tokens, with repetition and without padding."""
    flops: float | None
    """Operations of all steps, forward and backward: those per position of one batch, times the positions of all.

    With `cache_prefix`, steps that start above the cached prefix count as such. None for a compiled model.
    """


def draw_order(count: int, wanted: int, seed: int) -> list[int]:
    """Order of the items: permutations of all items, one after the other, cut to `wanted`.

    It depends only on the seed and the data, so that all methods see the same batches.
    """
    generator = torch.Generator().manual_seed(seed)
    order: list[int] = []
    while len(order) < wanted:
        order += torch.randperm(count, generator=generator).tolist()
    return order[:wanted]


class InOrder(Dataset[tuple[int, Conversation]]):
    """Conversations in a random order, each with its index in `data`."""

    def __init__(self, data: Sequence[Conversation], order: Sequence[int]) -> None:
        self.data, self.order = data, order

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, place: int) -> tuple[int, Conversation]:
        return self.order[place], self.data[self.order[place]]


def train(
    model: MultimodalLM,
    data: Sequence[Conversation],
    settings: Settings,
    *,
    folder: Path,
    extra_loss: ExtraLoss | None = None,
    step_hook: StepHook | None = None,
    rates: Mapping[str, float] | None = None,
    on_step: Callable[[int, int], None] | None = None,
    on_log: Callable[[Mapping[str, float]], None] | None = None,
) -> Report:
    """Trains the parameters of `model` that require gradients on `data`; the model is left in eval mode.

    Under `accelerate launch` or `torchrun` every process calls it with the same arguments and gets its share of each
    batch. The result equals that of one process, up to rounding. FSDP shards frozen weights, but not trained ones. Only
    the first process writes weights and calls `on_step`. With MOEXTEND_MICRO_BATCH a batch is computed in parts of at
    most so many conversations, like accumulated batches.

    Args:
        folder: for the trainer's state during the training, and for features of modalities without their own source. An
            interrupted training continues from its last checkpoint there. Removed at the end.
        extra_loss: called after each forward pass with its batch and the model's output; added to the loss.
        step_hook: its `before_step` may change gradients before each optimizer step, its `after_step` weights after it.
        rates: suffix of parameter names -> factor on the learning rate.
        on_step: called with (steps done, total steps).
        on_log: called with step, loss, learning rate and gradient norm, ten times per training.

    Raises:
        InputError: the settings do not fit the model, the number of processes or the installed packages; a forward
            method was replaced so that extensions have no effect; or memory is too short for a batch (the same call
            continues with a smaller MOEXTEND_MICRO_BATCH).
        RunFailed: the loss, a gradient or a weight is not finite: the CPU raises it at once; other devices raise it
            when losses are logged, when a checkpoint is written, or at the end. The message names the first such step.
    """
    _check(model, settings, folder)
    _check_hooks(settings, extra_loss, step_hook)
    args = _arguments(settings, folder, model.device)
    each = settings.batch_size * settings.gradient_accumulation
    order = draw_order(len(data), settings.steps * each, settings.seed)
    torch.manual_seed(settings.seed)
    with _prepared(model, InOrder(data, order), args, settings, folder) as trainer:
        trainer.extra_loss, trainer.step_hook, trainer.rates = extra_loss, step_hook, rates or {}
        trainer.add_callback(_Follow(on_step, on_log, step_hook))
        try:
            short = memory.enough(args.per_device_train_batch_size, "training")
            with expecting(model, data, dict.fromkeys(order)), short:
                trainer.train(resume_from_checkpoint=processes.first_says(lambda: checkpoint.last(folder)))
            trainer.check_finite()
            trainer.accelerator.wait_for_everyone()
        finally:
            model.eval()
    if args.should_save:
        files.may_change(folder)
        shutil.rmtree(folder, ignore_errors=True)
    return _report(trainer, model)


def _check(model: MultimodalLM, settings: Settings, folder: Path) -> None:
    """Raises InputError if the model cannot be trained with these settings in this environment."""
    check_setup(model.lm, where="train")
    reach.check(model.lm)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise InputError(
            "no parameter requires gradients.",
            where="train",
            hint="Attach an extension first, or name the parameters to train: model.learn_only([...]).",
        )
    check_tracker(settings.report_to)
    if Path(folder).exists() and not Path(folder).is_dir():
        raise InputError("is not a folder.", where=str(folder), hint="Name a new folder.")
    for key, is_on in {"compile": settings.compile, "FSDP": asks_to_shard()}.items():
        if is_on:
            quantised.refuse(model.lm, key, where="training settings")
    together = [key for key in ("compile", "cache_prefix") if asks_to_shard() and getattr(settings, key)]
    if together:
        what = f"{together[0]} cannot be combined with FSDP."
        raise InputError(what, where="training settings", hint=f"Use {together[0]}: false.")


def _check_hooks(settings: Settings, extra_loss: ExtraLoss | None, step_hook: StepHook | None) -> None:
    """Raises InputError for an extra loss that does not go with the settings, and for what is no step hook."""
    refused = {"cache_prefix": settings.cache_prefix, "FSDP": asks_to_shard()}
    for key in [key for key, is_on in refused.items() if is_on and isinstance(extra_loss, OwnBatches)]:
        what = f"{key} cannot be combined with a method that samples its own batches."
        raise InputError(what, where="training settings", hint=f"Train without {key}.")
    if step_hook is not None and not isinstance(step_hook, StepHook):
        raise InputError(
            f"{type(step_hook).__name__} has neither before_step() nor after_step().",
            where="step_hook",
            hint="Return an object with one of these methods, or None.",
        )


@contextmanager
def _prepared(
    model: MultimodalLM, rows: InOrder, args: TrainingArguments, settings: Settings, folder: Path
) -> Iterator[TokenTrainer]:
    """Context with the trainer of a model that is prepared for training; afterwards the model is as before."""
    shard = asks_to_shard() and torch.distributed.is_initialized()
    with ExitStack() as stack:
        stack.enter_context(kept_features(model, folder))
        stack.enter_context(in_float32(model, settings.bf16))
        warn_of_precision(model, settings)
        stack.enter_context(experts_follow_autocast())
        learner = stack.enter_context(sharded(model, args.device)) if shard else model
        collate = Collator.of(model)

        def collated(items: Sequence[tuple[int, Conversation]]) -> dict[str, Any]:
            batch = collate([conversation for _, conversation in items])
            return {**batch, ITEMS: torch.tensor([item for item, _ in items])}

        trainer = TokenTrainer(model=learner, args=args, train_dataset=rows, data_collator=collated)
        trainer.remove_callback(PrinterCallback)
        trainer.settings = settings
        trainer.sharded, trainer.counted = shard, CountedSteps()
        trainer.model_accepts_loss_kwargs = True  # compute_loss scales by the tokens of the step
        if settings.gradient_checkpointing:
            stack.enter_context(checkpointing(learner))
        if settings.compile:
            stack.enter_context(compiled(learner))
        if settings.balance:
            trainer.balance = stack.enter_context(watch_balance(learner.lm))
        if settings.cache_prefix:
            trainer.prefix = _prefix(learner, trainer, folder)
        for (
            callback
        ) in trainer.callback_handler.callbacks:  # trackers write next to `folder`, which is removed
            if getattr(callback, "logging_dir", "") is None:
                callback.logging_dir = str(folder.parent / "logs")
        yield trainer


def _report(trainer: TokenTrainer, model: MultimodalLM) -> Report:
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return Report(
        steps=trainer.state.global_step,
        loss_first=next(iter(losses), float("nan")),
        loss_last=next(reversed(losses), float("nan")),
        trained_parameters=sum(p.numel() for p in model.trainable().values()),
        tokens=trainer.state.num_input_tokens_seen,
        flops=trainer.counted.gather(trainer.accelerator).total,
    )


def _prefix(model: MultimodalLM, trainer: TokenTrainer, folder: Path) -> PrefixCache:
    """Prefix cache of a training, after a test with one batch."""
    cache = PrefixCache(model, folder)
    rows: Any = trainer.train_dataset
    batch = trainer.data_collator(
        [rows[i] for i in range(min(len(rows), trainer.args.per_device_train_batch_size))]
    )
    batch.pop(ITEMS)
    cache.check(on_device(batch, model.device))
    return cache


def _arguments(settings: Settings, folder: Path, device: torch.device) -> TrainingArguments:
    # A model in host memory that will be sharded is trained on the accelerators of its processes.
    together = processes.launched() > 1
    args = TrainingArguments(
        output_dir=str(folder),
        max_steps=settings.steps,
        gradient_accumulation_steps=settings.gradient_accumulation,
        learning_rate=settings.learning_rate,
        lr_scheduler_type=SCHEDULES[settings.schedule],
        warmup_steps=round(settings.warmup * settings.steps),
        adam_beta1=settings.betas[0],
        adam_beta2=settings.betas[1],
        adam_epsilon=settings.epsilon,
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
        logging_nan_inf_filter=False,  # the filter would hide a divergence, and it waits for the device in every step
        include_num_input_tokens_seen="non_padding",
    )
    count = args.world_size
    if settings.batch_size % count:
        raise InputError(
            f"a batch of {settings.batch_size} conversations cannot be divided among {count} processes.",
            where="training settings",
            hint=f"Make batch_size a multiple of {count}, or start fewer processes.",
        )
    own = settings.batch_size // count
    most = memory.fitted(own)
    parts = next(n for n in range(1, own + 1) if own % n == 0 and own // n <= most)
    args.per_device_train_batch_size = own // parts
    args.gradient_accumulation_steps *= parts
    args.dataloader_pin_memory = args.device.type == "cuda"  # batches of a Collator are in host memory
    args._n_gpu = min(1, args.n_gpu)  # one process uses one accelerator: no nn.DataParallel
    args.mixed_precision = "no"  # the settings decide, not the launcher; see TokenTrainer.compute_loss
    return args


class _Follow(TrainerCallback):
    """Reports the progress of the training, and calls the step hook after a step."""

    def __init__(
        self,
        on_step: Callable[[int, int], None] | None,
        on_log: Callable[[Mapping[str, float]], None] | None,
        step_hook: StepHook | None,
    ) -> None:
        self.on_step, self.log, self.step_hook = on_step, on_log, step_hook

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Called after the optimizer changed the weights."""
        if isinstance(self.step_hook, AfterStep):
            self.step_hook.after_step()

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Called when the trainer logs losses."""
        if self.log and state.is_world_process_zero and "loss" in (logs or {}):
            self.log({"step": state.global_step, **{key: logs[key] for key in LOGGED if key in logs}})

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Called after every optimizer step."""
        if self.on_step and state.is_world_process_zero:
            self.on_step(state.global_step, state.max_steps)
