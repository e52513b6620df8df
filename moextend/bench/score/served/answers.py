"""The two things that scoring asks of a model, asked of a server: greedy answers and log-likelihoods.

A text goes as token ids to /completions, so that no other tokenizer comes between; a prompt with media goes to
/chat/completions, whose server lays it out itself.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from moextend.bench.score.served.client import Body, Client, ServerFailed
from moextend.errors import InputError

if TYPE_CHECKING:
    from moextend.data.media import MediaRef
    from moextend.model.generation import Prompt
    from moextend.model.messages import Part


Message = dict[str, Any]
_KINDS = {b"\x89PNG": "png", b"\xff\xd8\xff": "jpeg", b"RIFF": "wav", b"fLaC": "flac"}
"""First bytes of a file -> its type."""
ECHO = "Use a server that gives log-probabilities of the prompt (echo with logprobs), such as vLLM or moextend serve."


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
    kind = next((kind for start, kind in _KINDS.items() if data.startswith(start)), None)
    if medium.modality == "image":
        if kind not in ("png", "jpeg"):  # which every server reads; others, and frames of videos, may not be
            with io.BytesIO() as file:
                medium.open().save(file, format="PNG")
                kind, data = "png", file.getvalue()
        url = f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"
        return {"type": "image_url", "image_url": {"url": url}}
    coded = base64.b64encode(data).decode("ascii")
    return {"type": "input_audio", "input_audio": {"data": coded, "format": kind or "mp3"}}


class OtherWeights(ServerFailed):
    """A server whose fingerprint is that of other weights."""


class Rated(NamedTuple):
    """Log-likelihood of the end of a row of ids."""

    value: float
    """Nats, summed over its tokens."""
    greedy: bool
    """Whether each of its tokens is the most likely one."""


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
        more: Body = {"max_tokens": max_new_tokens, **({"stop": list(stop)[:4]} if stop else {})}
        found = self._ask("completions", [{"prompt": list(row), **more} for row in rows], on_answer)
        return [self._text(answer, self._choice(answer).get("text")) for answer in found]

    def chat(self, prompts: Sequence[Prompt], *, max_new_tokens: int) -> list[str]:
        """Greedy answers to prompts with media."""
        bodies = [
            {
                "messages": [{"role": one.role, "content": _content(one.parts)} for one in prompt.messages()],
                "max_tokens": max_new_tokens,
            }
            for prompt in prompts
        ]
        found = self._ask("chat/completions", bodies)
        chosen = [self._choice(answer).get("message") for answer in found]
        return [
            self._text(answer, message.get("content") if isinstance(message, dict) else None)
            for answer, message in zip(found, chosen, strict=True)
        ]

    def token_logprobs(self, rows: Sequence[Sequence[int]]) -> list[list[float]]:
        """Log-probability of each token of each row but its first, in nats."""
        return [[value for value, _ in positions] for positions in self._echo(rows, None)]

    def rate(
        self, rows: Sequence[tuple[Sequence[int], int]], on_answer: Callable[[], None] | None = None
    ) -> list[Rated]:
        """Log-likelihoods of the ends of rows: (ids, where the end begins, at least 1)."""
        found = self._echo([ids for ids, _ in rows], on_answer)
        ends = [positions[start - 1 :] for positions, (_, start) in zip(found, rows, strict=True)]
        return [
            Rated(sum(value for value, _ in end), all(value >= top for value, top in end)) for end in ends
        ]

    def _echo(
        self, rows: Sequence[Sequence[int]], on_answer: Callable[[], None] | None
    ) -> list[list[tuple[float, float]]]:
        """Log-probability of each token of each row but its first, and that of the most likely token in its place.

        Raises:
            ServerFailed: the server does not give them, or gives those of other tokens.
        """
        # As lm-eval asks: one token is generated, because some servers refuse none, and left out.
        more = {"max_tokens": 1, "logprobs": 1, "echo": True}
        found = self._ask("completions", [{"prompt": list(row), **more} for row in rows], on_answer)
        return [self._positions(answer, len(row)) for answer, row in zip(found, rows, strict=True)]

    def _positions(self, answer: Body, length: int) -> list[tuple[float, float]]:
        given, where = self._choice(answer).get("logprobs"), f"{self.client.url}/completions"
        values, tops = (
            given.get(key) if isinstance(given, dict) else None for key in ("token_logprobs", "top_logprobs")
        )
        if not isinstance(values, list) or not isinstance(tops, list) or min(len(values), len(tops)) < length:
            raise ServerFailed("the server gives no log-probabilities of a prompt.", where=where, hint=ECHO)
        # With the generated token, or without an end token.
        if len(values) > length + 1 or len(tops) != len(values):
            raise ServerFailed(
                f"the server gives {len(values)} log-probabilities for a prompt of {length} tokens and one more.",
                where=where,
                hint="The server adds or removes tokens of the prompt; turn that off.",
            )
        found = []
        for value, top in zip(values[1:length], tops[1:length], strict=True):
            best = list(top.values()) if isinstance(top, dict) else []
            if not best or not all(map(_is_number, (value, *best))):
                what = "gives a log-probability that is not a number of at most 0"
                raise self.client.error(what, [value, top], where=where)
            found.append((float(value), float(max(best))))
        return found

    def _ask(
        self, path: str, bodies: Sequence[Body], on_answer: Callable[[], None] | None = None
    ) -> list[Body]:
        """Greedy answers, all by the weights with the fingerprint."""
        asked = [{"model": self.name, "temperature": 0, **body} for body in bodies]
        found = self.client.post(path, asked, on_answer)
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

    def _text(self, answer: Body, text: Any) -> str:
        if not isinstance(text, str):
            raise self.client.error("gives an answer without text", answer)
        return text


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value <= 0.001
