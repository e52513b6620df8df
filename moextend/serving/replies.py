"""Answers of the engine in OpenAI's shapes."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from moextend.serving.answers import OPEN, Grown
from moextend.serving.catalogue import Known
from moextend.serving.jobs import Delta, Done, Job, Token

CHAT, TEXT = "chat.completion", "text_completion"


class Tokens:
    """Names of tokens in answers: their text, or that of the vocabulary where several tokens have the same text."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def grown(self, before: Sequence[int] = ()) -> Grown:
        """Measures the text of tokens after those of `before`."""
        return Grown(self._tokenizer, before)

    def name(self, token: int) -> str:
        """A name that no other token has."""
        return self.all[token] if token < len(self.all) else f"token:{token}"

    @cached_property
    def all(self) -> list[str]:
        """Names of all tokens; made with the first use, which takes seconds for a large vocabulary."""
        size = len(self._tokenizer)
        texts = [self._tokenizer.decode([token]) for token in range(size)]
        seen: dict[str, int] = {}
        for text in texts:
            seen[text] = seen.get(text, 0) + 1
        words = self._tokenizer.convert_ids_to_tokens(list(range(size)))
        return [
            text if seen[text] == 1 and OPEN not in text else f"token:{number}:{word}"
            for number, (text, word) in enumerate(zip(texts, words, strict=True))
        ]


@dataclass
class Choice:
    """The answer to one prompt, as far as it has come."""

    index: int
    echo: str = ""
    text: str = ""
    tokens: list[Token] = field(default_factory=list)
    done: Done | None = None
    grown: Grown | None = None
    """For the offsets of tokens; None: they are not asked for."""
    offsets: list[int] = field(default_factory=list)
    """Token -> number of characters of the answer before it."""

    def add(self, event: Delta | Done) -> None:
        """Adds an event."""
        if isinstance(event, Done):
            self.done = event
        else:
            self.text += event.text
            self.tokens += event.tokens
            if self.grown is not None:
                self.offsets += [self.grown.add(token.id) for token in event.tokens]


@dataclass(frozen=True)
class Reply:
    """The envelope of all answers to one request."""

    kind: str
    """chat.completion or text_completion."""
    model: str
    """Name in the request."""
    names: Tokens
    logprobs: int | None
    id: str = field(default_factory=lambda: secrets.token_hex(12))
    created: int = field(default_factory=lambda: int(time.time()))

    def complete(self, jobs: Sequence[Job], choices: Sequence[Choice]) -> dict[str, Any]:
        """The answer without streaming."""
        return {
            **self._head(self.kind, jobs[0]),
            "choices": [self._choice(choice) for choice in choices],
            "usage": usage(jobs, choices),
        }

    def chunk(self, job: Job, choice: Choice, event: Delta | Done, *, first: bool = False) -> dict[str, Any]:
        """A piece of a streamed answer, which `choice` has already."""
        done = event if isinstance(event, Done) else None
        tokens = () if isinstance(event, Done) else event.tokens
        text = "" if isinstance(event, Done) else event.text
        found: dict[str, Any] = {"index": choice.index, "finish_reason": done.reason if done else None}
        offsets = choice.offsets[-len(tokens) :]
        found["logprobs"] = self._logprobs(tokens, offsets) if tokens else None
        if self.kind == CHAT:
            role = {"role": "assistant"} if first else {}
            found["delta"] = {**role, **({} if done else {"content": text})}
        else:
            found["text"] = text
        return {**self._head(self._piece, job), "choices": [found]}

    def last(self, jobs: Sequence[Job], choices: Sequence[Choice]) -> dict[str, Any]:
        """The chunk with the number of tokens."""
        return {**self._head(self._piece, jobs[0]), "choices": [], "usage": usage(jobs, choices)}

    @property
    def _piece(self) -> str:
        return "chat.completion.chunk" if self.kind == CHAT else self.kind

    def _head(self, kind: str, job: Job) -> dict[str, Any]:
        return {
            "id": f"{'chatcmpl' if self.kind == CHAT else 'cmpl'}-{self.id}",
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": job.fingerprint,
            "extensions": list(job.shown),
        }

    def _choice(self, choice: Choice) -> dict[str, Any]:
        done = choice.done
        assert done is not None
        tokens = [*done.prompt, *choice.tokens]
        found: dict[str, Any] = {"index": choice.index, "finish_reason": done.reason}
        text = choice.echo + choice.text
        found["logprobs"] = None
        if self.logprobs is not None:
            found["logprobs"] = self._logprobs(tokens, self._offsets(choice, done, len(text)))
        if self.kind == CHAT:
            found["message"] = {"role": "assistant", "content": choice.text, "refusal": None}
        else:
            found["text"] = text
        return found

    def _offsets(self, choice: Choice, done: Done, length: int) -> list[int]:
        """Places of all tokens in a text of `length` characters, which may end before the last tokens."""
        grown, echoed = self.names.grown(), len(choice.echo)
        prompt = [min(echoed, grown.add(token.id)) for token in done.prompt]
        return [*prompt, *(min(length, echoed + offset) for offset in choice.offsets)]

    def _logprobs(self, tokens: Sequence[Token], offsets: Sequence[int]) -> dict[str, Any]:
        return self._of_chat(tokens) if self.kind == CHAT else self._of_text(tokens, offsets)

    def _of_chat(self, tokens: Sequence[Token]) -> dict[str, Any]:
        def named(token: int, value: float | None) -> dict[str, Any]:
            name = self.names.name(token)
            return {"token": name, "logprob": value, "bytes": list(name.encode())}

        return {
            "content": [
                {
                    **named(token.id, token.logprob),
                    "top_logprobs": [named(*each) for each in token.top[: self.logprobs or 0]],
                }
                for token in tokens
            ],
            "refusal": None,
        }

    def _of_text(self, tokens: Sequence[Token], offsets: Sequence[int]) -> dict[str, Any]:
        names = [self.names.name(token.id) for token in tokens]
        tops = [
            None if token.logprob is None else {self.names.name(each): value for each, value in token.top}
            for token in tokens
        ]
        return {
            "tokens": names,
            "token_logprobs": [token.logprob for token in tokens],
            "top_logprobs": tops,
            "text_offset": list(offsets),
        }


def usage(jobs: Sequence[Job], choices: Sequence[Choice]) -> dict[str, int]:
    """Numbers of tokens."""
    asked = sum(len(job.ids) for job in jobs)
    made = sum(choice.done.generated for choice in choices if choice.done)
    return {"prompt_tokens": asked, "completion_tokens": made, "total_tokens": asked + made}


def model_entry(known: Known, name: str, names: tuple[str, ...] | None) -> Mapping[str, Any]:
    """Entry of /v1/models for a model with these extensions."""
    return {
        "id": name,
        "object": "model",
        "created": known.created.get(name, 0),
        "owned_by": "moextend",
        "system_fingerprint": known.fingerprint(names),
        "extensions": None if names is None else [known.shown(each) for each in names],
    }
