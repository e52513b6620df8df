"""A model of this project in lmms-eval, by the name `moextend` (entry point of the group `lmms_eval.models`).

``lmms-eval --model moextend --model_args run=runs/tiny/lora-s0,task=tiny-counting --tasks ...`` runs its tasks of
images and sounds.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lmms_eval.api.model import lmms
from tqdm import tqdm

from moextend.bench.bridges.opened import opened
from moextend.data import cells
from moextend.data.conversations import Conversation
from moextend.data.examples import in_order
from moextend.data.images import ImageRef
from moextend.data.media import MediaRef
from moextend.data.modalities import marks_in
from moextend.data.sounds import AudioRef
from moextend.errors import InputError
from moextend.model.batches import Collator, on_device
from moextend.model.generation import Prompt, generate
from moextend.model.multimodal import IGNORE

if TYPE_CHECKING:
    from lmms_eval.api.instance import Instance
    from PIL.Image import Image

NEW_TOKENS = 64
"""Maximum number of new tokens if a task does not set it."""


class MoextendLMM(lmms):  # type: ignore[misc]
    """lmms-eval's interface over a model of this project; `model_args` are those of `opened`."""

    is_simple = True

    def __init__(self, batch_size: int | str = 1, device: str | None = None, **arguments: Any) -> None:
        super().__init__()
        self.batch_size = int(batch_size)
        self.model = opened(device=device, **arguments)

    def generate_until(self, requests: Sequence[Instance]) -> list[str]:
        """Greedy answers, cut at the task's stop strings."""
        answers: list[str] = []
        for start in tqdm(range(0, len(requests), self.batch_size), desc="answers", disable=self.rank != 0):
            batch = [request.args for request in requests[start : start + self.batch_size]]
            most = max(int(args[1].get("max_new_tokens") or NEW_TOKENS) for args in batch)
            prompts = [Prompt(*self._asked(args[0], args[2:])) for args in batch]
            generated = generate(self.model, prompts, max_new_tokens=most, batch_size=len(prompts))
            answers += [
                _cut(text, args[1].get("until") or []) for text, args in zip(generated, batch, strict=True)
            ]
        return answers

    @torch.no_grad()
    def loglikelihood(self, requests: Sequence[Instance]) -> list[tuple[float, bool]]:
        """Of each whole answer, its end included: log-likelihood (nats), and whether it is the greedy one."""
        model = self.model
        collate = Collator.of(model)
        found = []
        for request in tqdm(requests, desc="choices", disable=self.rank != 0):
            context, target, *where = request.args
            text, media = self._asked(context, where)
            answer = target if isinstance(target, str) else target(self._doc(where))
            batch = collate([Conversation(((text, str(answer).strip()),), media)])
            labels = batch["labels"][:, 1:]
            wanted = labels[labels != IGNORE].to(model.device)
            logits = model(**on_device(batch, model.device))["logits"].float()
            chosen = logits.log_softmax(-1).gather(1, wanted[:, None])
            found.append((float(chosen.sum()), bool((logits.argmax(-1) == wanted).all())))
        return found

    def generate_until_multi_round(self, requests: Sequence[Instance]) -> list[str]:
        """Not offered: conversations of several rounds need a state that the tasks here do not have."""
        raise NotImplementedError("moextend answers only single-turn requests; choose another task.")

    def _doc(self, where: Sequence[Any]) -> Any:
        _, doc_id, task, split = where
        return self.task_dict[task][split][doc_id]

    def _asked(self, context: str, where: Sequence[Any]) -> tuple[str, tuple[MediaRef, ...]]:
        """The prompt with a mark for each medium, and the media; those without a mark come first."""
        shown = where[0](self._doc(where)) if where[0] is not None else None
        media = [_medium(one) for one in shown or []]
        # Of each modality the last media have the marks of the text.
        left = Counter(medium.modality for medium in media) - Counter(marks_in(context))
        lacking = ""
        for medium in media:
            if left[medium.modality] > 0:
                left[medium.modality] -= 1
                lacking += f"<{medium.modality}>"
        text = f"{lacking}\n{context}" if lacking else context
        return text, in_order(text, media)


def _medium(found: Any) -> MediaRef:
    """A medium as lmms-eval gives it: a picture, or a sound decoded by `datasets` or as a file."""
    if hasattr(found, "convert"):
        return _encoded(found)
    if hasattr(found, "get_all_samples"):  # a decoder of torchcodec, mono or [channels, samples]
        samples = found.get_all_samples()
        return AudioRef.of(samples.data.numpy(), int(samples.sample_rate), "lmms-eval")
    if isinstance(found, Mapping | bytes | str):
        folders = (Path(found).parent,) if isinstance(found, str) else ()
        (sound,) = cells.media(AudioRef, found, where="lmms-eval", folders=folders)
        return sound
    raise InputError(
        f"the task has {type(found).__name__} media, and only images and sounds are supported.",
        where="lmms-eval",
        hint="Choose an image or sound task.",
    )


def _encoded(picture: Image) -> ImageRef:
    buffer = io.BytesIO()
    picture.convert("RGB").save(buffer, "PNG")
    return ImageRef(data=buffer.getvalue(), where="lmms-eval")


def _cut(text: str, until: str | Sequence[str]) -> str:
    for stop in [until] if isinstance(until, str) else until:
        text = text.split(stop, 1)[0] if stop else text
    return text.strip()
