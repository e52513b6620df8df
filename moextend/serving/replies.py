"""Answers of the engine in OpenAI's shapes."""

from __future__ import annotations

import secrets
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from moextend.serving.jobs import Delta, Done, Job, Token

CHAT, TEXT = "chat.completion", "text_completion"


@dataclass
class Choice:
    """The answer to one prompt, as far as it has come."""

    index: int
    echo: str = ""
    text: str = ""
    tokens: list[Token] = field(default_factory=list)
    done: Done | None = None

    def add(self, event: Delta | Done) -> None:
        """Adds an event."""
        if isinstance(event, Done):
            self.done = event
        else:
            self.text += event.text
            self.tokens += event.tokens


@dataclass(frozen=True)
class Reply:
    """The envelope of all answers to one request."""

    kind: str
    """chat.completion or text_completion."""
    model: str
    """Name in the request."""
    tokenizer: Any
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

    def chunk(self, job: Job, choice: Choice, event: Delta | Done, *, first: bool) -> dict[str, Any]:
        """A piece of a streamed answer, which `choice` has already."""
        delta = event if isinstance(event, Delta) else Delta("")
        found: dict[str, Any] = {
            "index": choice.index,
            "finish_reason": event.reason if isinstance(event, Done) else None,
            "logprobs": self._logprobs(delta.tokens) if delta.tokens else None,
        }
        if self.kind == CHAT:
            content = {"content": delta.text} if event is delta else {}
            found["delta"] = {**({"role": "assistant"} if first else {}), **content}
        else:
            found["text"] = delta.text
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
        found: dict[str, Any] = {"index": choice.index, "finish_reason": done.reason, "logprobs": None}
        if self.logprobs is not None:
            found["logprobs"] = self._logprobs([*done.prompt, *choice.tokens])
        if self.kind == CHAT:
            found["message"] = {"role": "assistant", "content": choice.text, "refusal": None}
        else:
            found["text"] = choice.echo + choice.text
        return found

    def _logprobs(self, tokens: Sequence[Token]) -> dict[str, Any]:
        named = [self._names(token) for token in tokens]
        return {
            "tokens": [names[token.id] for names, token in zip(named, tokens, strict=True)],
            "token_logprobs": [token.logprob for token in tokens],
            "top_logprobs": [
                None if token.logprob is None else {names[each]: value for each, value in token.top}
                for names, token in zip(named, tokens, strict=True)
            ],
        }

    def _names(self, token: Token) -> dict[int, str]:
        """Token, and the most likely ones in its place -> text; the number of those with the same text."""
        texts = {each: self.tokenizer.decode([each]) for each in (token.id, *(each for each, _ in token.top))}
        count = Counter(texts.values())
        return {each: text if count[text] == 1 else f"token:{each}" for each, text in texts.items()}


def usage(jobs: Sequence[Job], choices: Sequence[Choice]) -> dict[str, int]:
    """Numbers of tokens."""
    asked = sum(len(job.ids) for job in jobs)
    made = sum(choice.done.generated for choice in choices if choice.done)
    return {"prompt_tokens": asked, "completion_tokens": made, "total_tokens": asked + made}
