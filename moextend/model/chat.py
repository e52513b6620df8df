"""Chat templates: conversations as the ids that a tokenizer's template produces."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise, takewhile
from typing import Any

from jinja2 import TemplateError

from moextend.errors import InputError
from moextend.model.messages import BETWEEN, Message, Part, media_of
from moextend.util import files

_PLACE = "\ue000{}\ue001"
"""Placeholder in a rendered text: private-use characters, which contents have only as text."""
_DAY = {
    "%Y": "2026", "%y": "26", "%m": "01", "%B": "January", "%b": "Jan", "%d": "01", "%A": "Thursday", "%a": "Thu",
    "%H": "00", "%M": "00", "%S": "00",
}  # fmt: skip
_DATE = (
    "{% macro strftime_now(format) %}{{ format"
    + "".join(f"|replace('{code}', '{text}')" for code, text in _DAY.items())
    + " }}{% endmacro %}\n"
)
"""Date for templates that print one: prompts must not depend on the day."""
_PLAIN = "{#- No chat template: prompts are used as they are. -#}\n"
_FOLD = (
    "{%%- set folding = namespace(kept=[], open=false) %%}"
    "{%%- for message in messages %%}"
    "{%%- set folds = message.role in ['system', 'developer'] and loop.index0 >= %d %%}"
    "{%%- set role = 'user' if folds else message.role %%}"
    "{%%- if folding.kept and folding.kept[-1].role == role and (folding.open or folds or %s) %%}"
    "{%%- set between = %s if folding.kept[-1].content and message.content else '' %%}"
    "{%%- set joined = folding.kept[-1].content + between + message.content %%}"
    "{%%- set folding.kept = folding.kept[:-1] + [{'role': role, 'content': joined}] %%}"
    "{%%- elif folds %%}"
    "{%%- set folding.kept = folding.kept + [{'role': role, 'content': message.content}] %%}"
    "{%%- else %%}{%%- set folding.kept = folding.kept + [message] %%}{%%- endif %%}"
    "{%%- set folding.open = folds %%}"
    "{%%- endfor %%}"
    "{%%- set messages = folding.kept %%}\n"
)
"""Start of a template that makes system messages from this index on part of the user's, and joins messages of one role
that follow each other (always, or only those with a folded one). It is part of the template, so that programs without
moextend fold as it does. The template after it begins a line, on which Jinja's handling of white space depends."""
_TURNS = (
    "{{- %s }}{%%- for message in messages %%}"
    "{%%- if message.role == 'assistant' %%}{{- ' ' + message.content + eos_token }}"
    "{%%- else %%}{{- %s + message.content }}{%%- endif %%}{%%- endfor %%}"
)


@dataclass(frozen=True)
class Tokens:
    """A conversation as ids."""

    ids: list[int | None]
    """None: a medium."""
    learned: list[bool]
    """Whether the id is part of an answer or of its end."""


class Chat:
    """A tokenizer's own chat template, applied to messages.

    A prompt is what `apply_chat_template` makes of its messages with the generation prompt. What the template writes
    after it, up to the special token that ends the answer, is learned. The full text is rendered and tokenized at once,
    by a copy of the tokenizer that has placeholders as special tokens. They stand for media, and for special tokens in
    contents, which are tokenized as text. The template adds the start token.
    """

    def __init__(self, tokenizer: Any) -> None:
        """Raises: InputError: the template cannot render plain turns."""
        self._eos: int = tokenizer.eos_token_id
        if not tokenizer.is_fast:
            raise _unusable("its tokenizer is not a fast one")
        special = [str(token) for token in tokenizer.added_tokens_decoder.values() if token.special]
        alternatives = "|".join(map(re.escape, sorted(special, key=len, reverse=True)))
        self._closing = re.compile(rf"\s*(?:{alternatives})") if special else None
        self._control = re.compile("|".join(filter(None, (_PLACE[0], alternatives))))
        self._own, self._tokenizer = tokenizer, copy.deepcopy(tokenizer)
        self._places: dict[int, int] = {}
        """Id of a placeholder -> its number."""
        own = tokenizer.get_chat_template()
        if not isinstance(own, str):
            raise _unusable("its chat template is not a text")
        self.template = (_DATE if "strftime_now" in own and _DATE not in own else "") + own
        """The template in use: the tokenizer's own, with a fixed date, and with folding where it lacks a role."""
        plain = [_user("?"), _assistant("a")]
        self._render([_raw(message) for message in plain])
        self.template = self._folding(self.template)
        self._apart, self.stop = False, [self._eos]
        """Ids that end an answer."""
        _, _, closing, lead = self._answered([_raw(message) for message in plain])
        if closing:
            self.stop = sorted({self._eos, self._ids(closing)[-1]})
        asked = self.encode(plain[:1]).ids
        # A tokenizer may merge the end of a prompt with the start of an answer: then they are tokenized separately.
        self._apart = self.encode(plain).ids[: len(asked)] != asked
        both = (self.encode([plain[0], _assistant(text)]).ids[len(asked) :] for text in "ab")
        same = takewhile(lambda pair: pair[0] == pair[1], zip(*both, strict=False))
        self.lead = [token for token, _ in same if token is not None] if lead.strip() else list[int]()
        """Ids that the model generates before the text of an answer: an empty thinking block, the name of a channel."""

    def fingerprint(self) -> str:
        """Identifies the template and its use."""
        return f"chat2-{files.digest(self.template)}"

    def encode(self, messages: Sequence[Message], *, end: bool = True) -> Tokens:
        """Ids of messages; they make a prompt unless the last one is an answer.

        An empty answer is not learned. Other answers are learned as they are, special tokens included, with the special
        token after them in the template, or with the end token if the template adds none after the last one.

        Args: end: whether the last answer has its end.
        """
        fills: list[list[int] | None] = []
        spans: list[tuple[int, int]] = []
        answered = messages[-1].role == "assistant"
        rows = [
            _raw(one)
            if answered and one.role == "assistant"
            else _row(one.role, self._filled(one.parts, fills))
            for one in messages
        ]
        if answered:
            text, spans, closing, _ = self._answered(rows, end=end)
        else:
            text, closing = self._render(rows, add_generation_prompt=True), "prompt"
        cuts = [0, *(begin for begin, _ in spans if self._apart), len(text)]
        raw: list[int] = []
        learned: list[bool] = []
        for start, stop in pairwise(cuts):
            out = self._tokenizer(text[start:stop], add_special_tokens=False, return_offsets_mapping=True)
            raw += out["input_ids"]
            learned += [
                any(begin <= start + at < end for begin, end in spans) for at, _ in out["offset_mapping"]
            ]
        if end and not closing:
            raw.append(self._eos)
            learned.append(bool(messages[-1].text))
        return self._with(fills, Tokens(list(raw), learned), messages)

    @property
    def before_answers(self) -> str:
        """The text of `lead`, as servers that know no chat template leave it in answers."""
        return str(self._own.decode(self.lead, skip_special_tokens=True)).strip()

    def answer(self, ids: Sequence[int]) -> Sequence[int]:
        """The ids of an answer, which may still be generated, without those before its text."""
        return without_lead(ids, self.lead)

    def _filled(self, parts: Sequence[Part], fills: list[list[int] | None]) -> str:
        """Content of a message with placeholders; what they stand for goes to `fills`: ids, or None for a medium."""

        def place(ids: list[int] | None) -> str:
            fills.append(ids)
            while len(self._places) < len(fills):
                self._add_place()
            return _PLACE.format(len(fills) - 1)

        def as_text(found: re.Match[str]) -> str:
            ids = self._own(found[0], add_special_tokens=False, split_special_tokens=True)["input_ids"]
            return place(list(ids))

        return "".join(
            self._control.sub(as_text, part) if isinstance(part, str) else place(None) for part in parts
        )

    def _add_place(self) -> None:
        """Makes the next placeholder a special token of the copied tokenizer."""
        from tokenizers import AddedToken

        text = _PLACE.format(len(self._places))
        self._tokenizer.add_tokens([AddedToken(text, special=True, normalized=False)], special_tokens=True)
        self._places[self._tokenizer.convert_tokens_to_ids(text)] = len(self._places)

    def _with(self, fills: Sequence[list[int] | None], tokens: Tokens, messages: Sequence[Message]) -> Tokens:
        """Tokens with what the placeholders stand for. Raises InputError if the template does not keep all of them."""
        if not self._places:
            return tokens
        ids: list[int | None] = []
        learned: list[bool] = []
        numbers: list[int] = []
        for token, own in zip(tokens.ids, tokens.learned, strict=True):
            number = self._places.get(token) if token is not None else None
            fill = [token] if number is None else fills[number]
            ids += [None] if fill is None else fill
            learned += [own] * (1 if fill is None else len(fill))
            if number is not None:
                numbers.append(number)
        shown = [number for number in numbers if fills[number] is None]
        if sorted(numbers) != list(range(len(fills))) or shown != sorted(shown):
            names = dict.fromkeys(f"<{medium.modality}>" for medium in media_of(messages))
            kept = f"{' and '.join(names)} marks of the question" if names else "special tokens of the text"
            raise _unusable(f"it does not keep the {kept}")
        return Tokens(ids, learned)

    def _answered(
        self, rows: Sequence[dict[str, str]], *, end: bool = True
    ) -> tuple[str, list[tuple[int, int]], str, str]:
        """Text up to the end of the last answer, the spans to learn, what closes it, and what precedes its text.

        An answer is not rendered but put into the rendered text: a template may cut it (reasoning) or strip it.
        """
        answers = [row["content"] for row in rows if row["role"] == "assistant"]
        numbers = iter(range(len(answers)))
        marked = [
            row if row["role"] != "assistant" else _row("assistant", _PLACE.format(f"answer {next(numbers)}"))
            for row in rows
        ]
        asked = _split(self._render(marked[:-1], add_generation_prompt=True), len(answers) - 1)
        *full, last = _split(self._render(marked), len(answers))
        lead = full[-1].removeprefix(asked[-1]) if full[-1].startswith(asked[-1]) else ""
        text, closing = "", ""
        spans: list[tuple[int, int]] = []
        for i, (answer, after) in enumerate(zip(answers, [*asked[1:], last], strict=True)):
            before = asked[i][len(closing) :]
            own = lead if i == len(answers) - 1 or before.endswith(lead) else ""
            text += before if i == len(answers) - 1 else before.removesuffix(own)
            begin = len(text)
            text += own + answer
            found = self._closing.match(after) if self._closing and (end or after is not last) else None
            closing = found[0] if found else ""
            learned = i == len(answers) - 1 or not closing or self._ids(closing)[-1] in self.stop
            if answer:
                spans.append((begin, len(text) + len(closing) * learned))
            text += closing
        return text, spans, closing, lead

    def _folding(self, template: str) -> str:
        """The template, with a start that folds messages if it lacks a role or needs roles in turn."""
        first, late = _system("?s"), [_user("?"), _assistant("a"), _system("?s"), _user("?t")]
        strict = not self._keeps([_user("?"), _user("?t")])
        if not self._keeps([first, _user("?")]):
            since = 0
        elif not self._keeps(late):
            since = 1
        elif not strict:
            return template
        else:
            since = 1 << 30
        return _FOLD % (since, json.dumps(strict), json.dumps(BETWEEN)) + template

    def _keeps(self, messages: Sequence[Message]) -> bool:
        """Whether the template renders all texts of messages, in order."""
        marked = [_row(one.role, _PLACE.format(place)) for place, one in enumerate(messages)]
        try:
            text = self._render(marked, add_generation_prompt=True)
        except InputError:
            return False
        found = [text.count(row["content"]) for row in marked]
        return found == [1] * len(marked)

    def _ids(self, text: str) -> list[int]:
        return list(self._own(text, add_special_tokens=False)["input_ids"])

    def _render(self, rows: Sequence[dict[str, str]], **more: Any) -> str:
        try:
            return str(
                self._own.apply_chat_template(list(rows), chat_template=self.template, tokenize=False, **more)
            )
        except (TemplateError, TypeError, ValueError) as error:
            raise _unusable(str(error).rstrip(".")) from error


def chat_of(tokenizer: Any, wanted: bool | None) -> Chat | None:
    """Chat of a tokenizer; `wanted` None: if it has a template, True: always, False: never."""
    if wanted is False:
        return None
    own = getattr(tokenizer, "chat_template", None)
    if own and not (isinstance(own, str) and own.startswith(_PLAIN)):
        return Chat(tokenizer)
    if wanted:
        raise _unusable("its tokenizer has none")
    return None


def plain_template(start: str, before: str) -> str:
    """A chat template of a model without one: prompts as they are, answers after a space and with the end token.

    Args: start: start tokens, as text. before: text before a question that its tokenizer needs.
    """
    fold = _FOLD % (0, "true", json.dumps(BETWEEN))
    return _PLAIN + fold + _TURNS % (json.dumps(start), json.dumps(before))


def without_lead(ids: Sequence[int], lead: Sequence[int]) -> Sequence[int]:
    """Ids without those of `lead` at their start, as far as they have come; others as they are."""
    return ids[len(lead) :] if list(ids[: len(lead)]) == list(lead[: len(ids)]) else ids


def _split(text: str, answers: int) -> list[str]:
    """Rendered text, split at the placeholders of answers."""
    pieces = [text]
    for i in range(answers):
        before, place, after = pieces.pop().partition(_PLACE.format(f"answer {i}"))
        if not place:
            raise _unusable("it does not keep every answer of a conversation")
        pieces += [before, after]
    return pieces


def _system(text: str) -> Message:
    return Message("system", (text,))


def _user(text: str) -> Message:
    return Message("user", (text,))


def _assistant(text: str) -> Message:
    return Message("assistant", (text,))


def _raw(message: Message) -> dict[str, str]:
    return _row(message.role, message.text)


def _row(role: str, text: str) -> dict[str, str]:
    return {"role": role, "content": text}


def _unusable(why: str) -> InputError:
    return InputError(
        f"the chat template of this model cannot be used: {why}.",
        hint="Turn it off: chat=False (chat: false).",
    )
