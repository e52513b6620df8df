"""The two things that scoring asks of a model, asked of a server: greedy answers and log-likelihoods.

A text goes as token ids to /completions, so that no other tokenizer comes between; a prompt with media goes to
/chat/completions, whose server lays it out itself.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from moextend.bench.score.served.client import Body, Client, ServerFailed
from moextend.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from moextend.data.media import MediaRef
    from moextend.model.generation import Prompt
    from moextend.model.messages import Part


Message = dict[str, Any]
_KINDS = {b"\x89PNG": "png", b"\xff\xd8\xff": "jpeg"}
"""First bytes of an image -> its type, of those that every server reads."""


ECHO = "Use a server that gives log-probabilities of the prompt (echo with logprobs), such as vLLM or moextend serve."


def messages(prompt: Prompt) -> list[Message]:
    """The messages of a prompt; each medium is a part at the place of its mark.

    Raises:
        InputError: the protocol has no part for a modality.
    """
    return [{"role": one.role, "content": _content(one.parts)} for one in prompt.messages()]


def _content(parts: Sequence[Part]) -> str | list[Message]:
    if all(isinstance(part, str) for part in parts):
        return "".join(map(str, parts))
    texts = ({"type": "text", "text": part} if isinstance(part, str) else part_of(part) for part in parts)
    return [part for part in texts if part != {"type": "text", "text": ""}]


def part_of(medium: MediaRef) -> Message:
    """A medium as a part of a message: the bytes of its file.

    Raises:
        InputError: the protocol has no part for its modality.
    """
    if medium.modality not in ("image", "audio"):
        raise InputError(
            f"the OpenAI protocol has no part for {medium.noun.removeprefix('the ')}.",
            where=medium.place,
            hint="Score such tasks in process: set 'tasks: text' under scoring.",
        )
    data = medium.read()
    if medium.modality == "image":
        kind = next((kind for start, kind in _KINDS.items() if data.startswith(start)), None)
        if kind is None:  # another format, or a frame of a video
            kind, data = "png", _png(medium.open())
    coded = base64.b64encode(data).decode("ascii")
    if medium.modality == "image":
        return {"type": "image_url", "image_url": {"url": f"data:image/{kind};base64,{coded}"}}
    kind = "wav" if data.startswith(b"RIFF") else "flac" if data.startswith(b"fLaC") else "mp3"
    return {"type": "input_audio", "input_audio": {"data": coded, "format": kind}}


def _png(image: Any) -> bytes:
    with io.BytesIO() as file:
        image.save(file, format="PNG")
        return file.getvalue()


class OtherWeights(ServerFailed):
    """A server whose fingerprint is that of other weights."""


@dataclass(frozen=True)
class Rated:
    """Log-likelihood of the end of a row of ids."""

    value: float
    """Nats, summed over its tokens."""
    greedy: bool
    """Whether each of its tokens is the most likely one."""
    tokens: int


@dataclass(frozen=True)
class ServedModel:
    """A model of a server."""

    client: Client
    name: str
    fingerprint: str | None = None
    """`system_fingerprint` of the model; None: the server gives none that identifies weights."""
    one: bool = True
    """Whether every answer must have that fingerprint; not where the model chooses the weights for each input."""

    def complete(
        self,
        rows: Sequence[Sequence[int]],
        *,
        max_new_tokens: int,
        stop: Sequence[str] = (),
        on_answer: Callable[[], None] | None = None,
    ) -> list[str]:
        """Greedy continuations of rows of ids, as text."""
        more: Body = {"stop": list(stop)[:4]} if stop else {}
        bodies = [
            {"model": self.name, "prompt": list(row), "max_tokens": max_new_tokens, "temperature": 0, **more}
            for row in rows
        ]
        return [self._text(found) for found in self._ask("completions", bodies, on_answer)]

    def chat(self, prompts: Sequence[Prompt], *, max_new_tokens: int) -> list[str]:
        """Greedy answers to prompts with media."""
        bodies = [
            {"model": self.name, "messages": messages(prompt), "max_tokens": max_new_tokens, "temperature": 0}
            for prompt in prompts
        ]
        return [self._content(found) for found in self._ask("chat/completions", bodies)]

    def echo(self, rows: Sequence[Sequence[int]], on_answer: Callable[[], None] | None = None) -> list[Body]:
        """Answers that begin with the prompt, with the log-probabilities of its tokens (checked).

        Raises:
            ServerFailed: the server does not give them, or gives those of other tokens.
        """
        bodies = [
            # As lm-eval asks: one token is generated, because some servers refuse none, and left out.
            {"model": self.name, "prompt": list(row), "max_tokens": 1, "temperature": 0, "logprobs": 1, "echo": True}
            for row in rows
        ]  # fmt: skip
        found = self._ask("completions", bodies, on_answer)
        for answer, row in zip(found, rows, strict=True):
            self._check_echo(answer, len(row))
        return found

    def token_logprobs(self, rows: Sequence[Sequence[int]]) -> list[list[float]]:
        """Log-probability of each token of each row but its first, in nats."""
        found = self.echo(rows)
        return [
            [float(value) for value in self._logprobs(answer)["token_logprobs"][1 : len(row)]]
            for answer, row in zip(found, rows, strict=True)
        ]

    def rate(
        self, rows: Sequence[tuple[Sequence[int], int]], on_answer: Callable[[], None] | None = None
    ) -> list[Rated]:
        """Log-likelihoods of the ends of rows: (ids, where the end begins, at least 1)."""
        found = self.echo([ids for ids, _ in rows], on_answer)
        rated = []
        for answer, (ids, start) in zip(found, rows, strict=True):
            given = self._logprobs(answer)
            own = given["token_logprobs"][start : len(ids)]
            tops = given["top_logprobs"][start : len(ids)]
            greedy = all(value >= max(top.values()) for value, top in zip(own, tops, strict=True))
            rated.append(Rated(float(sum(own)), greedy, len(own)))
        return rated

    def _ask(
        self, path: str, bodies: Sequence[Body], on_answer: Callable[[], None] | None = None
    ) -> list[Body]:
        """Answers, all by the weights with the fingerprint."""
        found = self.client.post(path, bodies, on_answer)
        others = [one for answer in found if (one := answer.get("system_fingerprint")) != self.fingerprint]
        if self.fingerprint is not None and self.one and others:
            named = f"its fingerprint is {others[0]}" if others[0] else "an answer has no fingerprint"
            raise OtherWeights(
                f"the server answers with other weights: {named}, and the fingerprint of the run is "
                f"{self.fingerprint}.",
                where=f"{self.client.url}, model {self.name}",
                hint="Serve the base of this run with the extensions of this stage.",
            )
        return found

    def _choice(self, answer: Body) -> dict[str, Any]:
        choices = answer.get("choices")
        if not isinstance(choices, list) or len(choices) != 1 or not isinstance(choices[0], dict):
            raise self.client.error("gives an answer without one choice", answer)
        return choices[0]

    def _text(self, answer: Body) -> str:
        text = self._choice(answer).get("text")
        if not isinstance(text, str):
            raise self.client.error("gives an answer without text", answer)
        return text

    def _content(self, answer: Body) -> str:
        message = self._choice(answer).get("message")
        content = message.get("content") if isinstance(message, dict) else None
        if not isinstance(content, str):
            raise self.client.error("gives a message without content", answer)
        return content

    def _logprobs(self, answer: Body) -> dict[str, Any]:
        found: dict[str, Any] = self._choice(answer)["logprobs"]
        return found

    def _check_echo(self, answer: Body, length: int) -> None:
        given = self._choice(answer).get("logprobs")
        parts: list[Any] = []
        if isinstance(given, dict):
            parts = [given.get(key) for key in ("token_logprobs", "top_logprobs")]
        where = f"{self.client.url}/completions"
        if len(parts) < 2 or any(not isinstance(part, list) or len(part) < length for part in parts):
            raise ServerFailed("the server gives no log-probabilities of a prompt.", where=where, hint=ECHO)
        values, tops = parts
        # With the generated token, or without it if that is the end token.
        if len(values) > length + 1 or len(tops) != len(values):
            raise ServerFailed(
                f"the server gives {len(values)} log-probabilities for a prompt of {length} tokens and one more.",
                where=where,
                hint="The server adds or removes tokens of the prompt; turn that off.",
            )
        wrong = [value for value in values[1:length] if not _is_number(value)]
        wrong += [top for top in tops[1:length] if not _is_top(top)]
        if wrong:
            raise self.client.error(
                "gives a log-probability that is not a number of at most 0", wrong[0], where=where
            )


def _is_top(value: Any) -> bool:
    return isinstance(value, dict) and bool(value) and all(map(_is_number, value.values()))


def _is_number(value: Any) -> bool:
    return (
        isinstance(value, int | float) and not isinstance(value, bool) and value <= 0.001 and value == value
    )
