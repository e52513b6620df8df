"""A model of this project in lmms-eval, by the name `moextend` (entry point of the group `lmms_eval.models`).

``lmms-eval --model moextend --model_args run=runs/tiny/lora-s0,task=tiny-counting --tasks ...`` runs its image tasks.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from lmms_eval.api.model import lmms
from tqdm import tqdm

from moextend.bench.bridges.opened import opened
from moextend.data.conversations import Conversation
from moextend.data.images import MARK, ImageRef
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
            text, images = self._asked(context, where)
            answer = target if isinstance(target, str) else target(self._doc(where))
            batch = collate([Conversation(((text, str(answer).strip()),), images)])
            labels = batch["labels"][:, 1:]
            wanted = labels[labels != IGNORE].to(model.device)
            logits = model(**on_device(batch, model.device))["logits"].float()
            chosen = logits.log_softmax(-1).gather(1, wanted[:, None])
            found.append((float(chosen.sum()), bool((logits.argmax(-1) == wanted).all())))
        return found

    def generate_until_multi_round(self, requests: Sequence[Instance]) -> list[str]:
        """Not offered: conversations of several rounds need a state that the tasks here do not have."""
        raise NotImplementedError("moextend answers single rounds; choose another task.")

    def _doc(self, where: Sequence[Any]) -> Any:
        _, doc_id, task, split = where
        return self.task_dict[task][split][doc_id]

    def _asked(self, context: str, where: Sequence[Any]) -> tuple[str, tuple[ImageRef, ...]]:
        """The prompt with a mark for each image, and the images; those without a mark come first."""
        pictures = where[0](self._doc(where)) if where[0] is not None else None
        images = tuple(_encoded(picture) for picture in pictures or [])
        missing = max(0, len(images) - context.count(MARK))
        return f"{MARK * missing}\n{context}" if missing else context, images


def _encoded(picture: Image) -> ImageRef:
    buffer = io.BytesIO()
    picture.convert("RGB").save(buffer, "PNG")
    return ImageRef(data=buffer.getvalue(), where="lmms-eval")


def _cut(text: str, until: str | Sequence[str]) -> str:
    for stop in [until] if isinstance(until, str) else until:
        text = text.split(stop, 1)[0] if stop else text
    return text.strip()
