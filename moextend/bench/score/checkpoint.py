"""A model that was trained elsewhere, as a backend: its own processor and chat template make the prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, cast

import torch
from jinja2 import TemplateError
from torch import Tensor

from moextend.bench.score.served.answers import ServedModel
from moextend.data.media import MediaRef
from moextend.errors import InputError, short
from moextend.model import lm_head
from moextend.model.generation import Prompt, common, own_stops, plain_decoding
from moextend.model.messages import Message, folded
from moextend.util import memory

IGNORED = ("token_type_ids",)
"""What tokenizers give and language models do not take."""


@dataclass
class LoadedCheckpoint:
    """A model of transformers with its processor, in place of a base of this package where only answers are wanted.

    Prompts are made by `apply_chat_template` of the processor; without a template they are the plain text with the
    processor's own mark of an image. Greedy answers and log-likelihoods are those of one prompt at a time.
    """

    lm: Any
    processor: Any
    """A processor of transformers; of a text model its tokenizer."""
    batch_size: int
    choose = None
    chat = None
    name = None
    served: ClassVar[Any] = None
    modalities: Mapping[str, Any] = field(default_factory=dict)

    @property
    def tokenizer(self) -> Any:
        """The tokenizer of the processor."""
        return getattr(self.processor, "tokenizer", self.processor)

    @property
    def device(self) -> torch.device:
        """Device of the model."""
        return cast(torch.device, self.lm.device)

    def generate(self, prompts: Sequence[Prompt], max_new_tokens: int) -> list[str]:
        """See Backend."""
        found = dict[int, str]()
        for places in self._batches(prompts):
            with memory.enough(len(places), "generate"):
                texts = self._answers([prompts[place] for place in places], max_new_tokens)
            found |= zip(places, texts, strict=True)
        return [found[place] for place in range(len(prompts))]

    def rate(self, prompts: Sequence[Prompt], choices: Sequence[Sequence[str]]) -> list[tuple[float, ...]]:
        """See Backend. Scored from the first token in which any of the choices differs from the prompt alone."""
        rows = [(place, choice) for place, own in enumerate(choices) for choice in own]
        rated = self._rated([prompts[place] for place, _ in rows], [choice for _, choice in rows])
        alone, starts = self._ids(prompts), dict[int, int]()
        for (place, _), (ids, _) in zip(rows, rated, strict=True):
            starts[place] = min(starts.get(place, len(ids)), common(alone[place], ids))
        found: dict[int, tuple[float, ...]] = {}
        for (place, _), (_, steps) in zip(rows, rated, strict=True):
            found[place] = (*found.get(place, ()), float(steps[max(1, starts[place]) - 1 :].sum()))
        return [found.get(place, ()) for place in range(len(prompts))]

    def _batches(self, prompts: Sequence[Prompt]) -> list[list[int]]:
        """Places of the prompts of each batch: those without media apart, as some processors take no mixture."""
        found = []
        size = memory.fitted(self.batch_size)
        for wanted in (True, False):
            places = [place for place, prompt in enumerate(prompts) if bool(prompt.media) == wanted]
            found += [places[start : start + size] for start in range(0, len(places), size)]
        return found

    @torch.no_grad()
    def _answers(self, prompts: Sequence[Prompt], max_new_tokens: int) -> list[str]:
        inputs = self._inputs(prompts, left=True)
        asked = inputs["input_ids"].shape[1]
        self._refuse_longer(prompts, asked + max_new_tokens)
        stop = sorted({*own_stops(self.lm), *filter(None, [self.tokenizer.eos_token_id])})
        with plain_decoding(self.lm, self.tokenizer, stop, max_new_tokens) as how:
            out = self.lm.generate(**inputs, generation_config=how)
        texts = self.tokenizer.batch_decode(out[:, asked:], skip_special_tokens=True)
        return [str(text).strip() for text in texts]

    @torch.no_grad()
    def _rated(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> list[tuple[list[int], Tensor]]:
        """Ids of each prompt with its answer, and log-likelihoods [tokens - 1] of those after the first."""
        found = dict[int, tuple[list[int], Tensor]]()
        for batch in self._batches(prompts):
            asked = [prompts[place] for place in batch]
            inputs = self._inputs(asked, [answers[place] for place in batch], left=False)
            ids, mask = inputs["input_ids"], inputs["attention_mask"].bool()
            self._refuse_longer(asked, ids.shape[1])
            with memory.enough(len(batch), "log-likelihoods of choices"):
                logits = self.lm(**inputs).logits[:, :-1].float()
            steps = logits.log_softmax(-1).gather(-1, ids[:, 1:, None]).squeeze(-1)
            for place, row, shown, own in zip(batch, ids, mask, steps, strict=True):
                found[place] = row[shown].tolist(), own[shown[1:]].cpu()
        return [found[place] for place in range(len(prompts))]

    def _ids(self, prompts: Sequence[Prompt]) -> list[list[int]]:
        """Ids of each prompt."""
        found = dict[int, list[int]]()
        for places in self._batches(prompts):
            inputs = self._inputs([prompts[place] for place in places], left=False)
            for place, ids, mask in zip(places, inputs["input_ids"], inputs["attention_mask"], strict=True):
                found[place] = ids[mask.bool()].tolist()
        return [found[place] for place in range(len(prompts))]

    def _inputs(
        self, prompts: Sequence[Prompt], answers: Sequence[str] | None = None, *, left: bool
    ) -> dict[str, Any]:
        """Arguments of the model for prompts with media, or for prompts without."""
        texts = [
            self._text(prompt, None if answers is None else answers[place])
            for place, prompt in enumerate(prompts)
        ]
        media: dict[str, Any] = {}
        for modality in dict.fromkeys(medium.modality for prompt in prompts for medium in prompt.media):
            own = [[one for one in prompt.media if one.modality == modality] for prompt in prompts]
            media |= self._media(modality, own)
        bos = self.tokenizer.bos_token
        # As in `apply_chat_template`: of tokenizers, and where the template wrote the first token.
        written = self._template and (self.processor is self.tokenizer or (bos and texts[0].startswith(bos)))
        made = self.processor(
            text=texts, **media, padding=True, padding_side="left" if left else "right", return_tensors="pt",
            **({"add_special_tokens": False} if written else {}),
        )  # fmt: skip
        return {
            key: value.to(self.device, self.lm.dtype if value.is_floating_point() else None)
            for key, value in made.items()
            if not (key in IGNORED and self.processor is self.tokenizer)
        }

    def _media(self, modality: str, media: Sequence[Sequence[MediaRef]]) -> dict[str, Any]:
        """Arguments of the processor for the media of each prompt."""
        needed = {"image": "image_processor", "audio": "feature_extractor"}.get(modality, "")
        reader = getattr(self.processor, needed, None) if needed else None
        if reader is None:
            first = next(one for own in media for one in own)
            raise InputError(
                f"the prompt has {first.one()}, which the processor of the model does not take "
                f"({type(self.processor).__name__}).",
                where=first.place,
                hint="Score a model of this modality, or leave the task out of the sequence.",
            )
        if modality == "image":
            return {"images": [[one.open() for one in own] for own in media]}
        rate = reader.sampling_rate
        return {
            "audio": [one.open().resampled(rate).samples for own in media for one in own],
            "sampling_rate": rate,
        }

    @property
    def _template(self) -> Any:
        """The chat template that makes the prompts; None without one."""
        return getattr(self.processor, "chat_template", None) or self.tokenizer.chat_template

    def _text(self, prompt: Prompt, answer: str | None) -> str:
        """Text of a prompt, ready for the processor; with an answer up to its end."""
        if not self._template:
            text = "".join(self._written(part) for message in prompt.messages() for part in message.parts)
            return text if answer is None else f"{text} {answer}"
        messages = prompt.messages(answer)
        more = {"add_generation_prompt": True} if answer is None else {"continue_final_message": True}
        try:
            return self._rendered(messages, **more)
        except TemplateError:  # of a template without a system role
            return self._rendered(folded(messages), **more)

    def _rendered(self, messages: Sequence[Message], **more: Any) -> str:
        alone = self.processor is self.tokenizer
        shown = [
            {"role": message.role, "content": message.text if alone else _content(message.parts)}
            for message in messages
        ]
        if getattr(self.processor, "chat_template", None) is None:
            more["chat_template"] = self._template
        return str(self.processor.apply_chat_template(shown, tokenize=False, **more))

    def _written(self, part: str | MediaRef) -> str:
        """A part of a prompt without a template."""
        if isinstance(part, str):
            return part
        mark = getattr(self.processor, f"{part.modality}_token", None)
        if mark is None:
            raise InputError(
                f"the processor has neither a chat template nor a token for {part.one()}.",
                where=part.place,
                hint="Name the processor of the model that was trained: processor of the stage.",
            )
        return str(mark)

    def _refuse_longer(self, prompts: Sequence[Prompt], tokens: int) -> None:
        """Raises InputError for a batch that exceeds the model's context."""
        context = getattr(lm_head.text_config(self.lm.config), "max_position_embeddings", None)
        if context is not None and tokens > context:
            longest = max(prompts, key=lambda prompt: len(prompt.text))
            raise InputError(
                f"takes {tokens} tokens with its answer, and the model's context length is {context}.",
                where=repr(short(longest.text, 80)),
                hint="Shorten the prompt of the task, or its max_new_tokens.",
            )


@dataclass
class ServedCheckpoint(LoadedCheckpoint):
    """A model of a server, whose weights cannot be seen: `lm` has none (device meta), and only makes requests."""

    server: ServedModel | None = None

    def generate(self, prompts: Sequence[Prompt], max_new_tokens: int) -> list[str]:
        """See Backend. The server makes the prompts of all messages."""
        return [text.strip() for text in self.asked().chat(prompts, max_new_tokens=max_new_tokens)]

    def rate(self, prompts: Sequence[Prompt], choices: Sequence[Sequence[str]]) -> list[tuple[float, ...]]:
        """See Backend. The protocol has no log-likelihoods of answers to messages."""
        return [()] * len(prompts)

    def asked(self) -> ServedModel:
        """The model of the server."""
        assert self.server is not None
        return self.server

    served = asked


def _content(parts: Sequence[str | MediaRef]) -> list[dict[str, str]]:
    """Parts of a message, as chat templates of processors know them.

    Templates write what separates media and text: spaces after the leading media, and before those at the end, are left
    out.
    """
    found = []
    for place, part in enumerate(parts):
        if isinstance(part, str):
            text = part
            if place and not _has_words(parts[:place]):
                text = text.lstrip()
            if place < len(parts) - 1 and not _has_words(parts[place + 1 :]):
                text = text.rstrip()
            found += [{"type": "text", "text": text}] if text else []
        else:
            found.append({"type": part.modality})
    return found


def _has_words(parts: Sequence[str | MediaRef]) -> bool:
    return any(isinstance(part, str) and part.strip() for part in parts)
