"""Chat templates: conversations as the ids that a tokenizer's template produces."""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from moextend.data.modalities import modality_types
from moextend.errors import InputError
from moextend.model.marks import marks_in
from moextend.util import files

_PLACE = "\ue000answer {}\ue001"
"""Placeholder of an answer while a template is rendered: private-use characters."""
_DATE = "{% macro strftime_now(format) %}01 January 2026{% endmacro %}"
"""Date for templates that print one: prompts must not depend on the day."""


@dataclass(frozen=True)
class Tokens:
    """A conversation as ids."""

    ids: list[int | None]
    """None: a medium."""
    learned: list[bool]
    """Whether the id is part of an answer or of its end."""


class Chat:
    """A tokenizer's own chat template, applied to turns of question and answer.

    The full text is rendered and tokenized at once; a copy of the tokenizer has each mark of a medium as one special
    token. The start and end of an answer follow from its position in the rendered text. The ids before an answer are
    the same in training and in generation, unless the template formats the last turn differently. The template adds the
    start token.
    """

    def __init__(self, tokenizer: Any) -> None:
        """Raises: InputError: the template cannot render plain turns."""
        template = tokenizer.get_chat_template()
        self._template = (_DATE if "strftime_now" in template else "") + template
        self._eos: int = tokenizer.eos_token_id
        if not tokenizer.is_fast:
            raise _unusable("its tokenizer is not a fast one")
        marks = {kind.mark for kind in modality_types().values()}
        special = [
            str(t) for t in tokenizer.added_tokens_decoder.values() if t.special and str(t) not in marks
        ]
        alternatives = "|".join(re.escape(token) for token in sorted(special, key=len, reverse=True))
        self._closing = re.compile(rf"\s*(?:{alternatives})") if special else None
        self._tokenizer = copy.deepcopy(tokenizer)
        self._marks: dict[str, int] = {}
        """Modality -> id of its mark."""
        self._lead = ""
        self._lead = self._find_lead()
        self._apart = False
        asked = self.encode([("?", None)]).ids
        # A tokenizer may merge the end of a prompt with the start of an answer: then they are tokenized separately.
        self._apart = self.encode([("?", "a")]).ids[: len(asked)] != asked
        self.stop = self._find_stop()
        """Ids that end an answer."""

    def fingerprint(self) -> str:
        """Identifies the template and its use."""
        return f"chat1-{files.digest(self._template)}"

    def encode(self, turns: Sequence[tuple[str, str | None]]) -> Tokens:
        """Ids of (question, answer) turns; a last answer of None makes a prompt.

        An empty answer is not learned. Other answers are learned with the special token after them in the template, or
        with the end token if the template adds none after the last one.
        """
        self._add_marks()
        text, spans, closed = self._written(turns)
        cuts = [0, *(begin for begin, _ in spans if self._apart), len(text)]
        ids: list[int] = []
        learned: list[bool] = []
        for start, stop in pairwise(cuts):
            out = self._tokenizer(text[start:stop], add_special_tokens=False, return_offsets_mapping=True)
            ids += out["input_ids"]
            learned += [
                any(begin <= start + at < end for begin, end in spans) for at, _ in out["offset_mapping"]
            ]
        marked = [name for question, _ in turns for name in marks_in(question)]
        marks = set(self._marks.values())
        if [i for i in ids if i in marks] != [self._marks[name] for name in marked]:
            kept = " and ".join(f"<{name}>" for name in dict.fromkeys(marked)) or "number of"
            raise _unusable(f"it does not keep the {kept} marks of the question")
        if not closed:
            ids.append(self._eos)
            learned.append(bool(turns[-1][1]))
        return Tokens([None if i in marks else i for i in ids], learned)

    def _add_marks(self) -> None:
        """Makes the mark of every known modality one special token."""
        from tokenizers import AddedToken

        for name, kind in modality_types().items():
            if name not in self._marks:
                token = AddedToken(kind.mark, special=True, normalized=False)
                self._tokenizer.add_tokens([token], special_tokens=True)
                self._marks[name] = self._tokenizer.convert_tokens_to_ids(kind.mark)

    def _written(self, turns: Sequence[tuple[str, str | None]]) -> tuple[str, list[tuple[int, int]], bool]:
        """Text up to the end of the last answer, the spans to learn, and whether it needs no end token."""
        text, closed = "", True
        spans: list[tuple[int, int]] = []
        pieces = self._pieces([question for question, _ in turns])
        for i, (_, answer) in enumerate(turns):
            text += pieces[i].removesuffix(self._lead)
            if answer is None:
                return text, spans, True
            begin = len(text)
            text += self._lead + answer
            found = self._closing.match(pieces[i + 1]) if self._closing else None
            if found:
                text += found[0]
                pieces[i + 1] = pieces[i + 1][found.end() :]
            closed = found is not None
            if answer:
                spans.append((begin, len(text)))
        return text, spans, closed

    def _pieces(self, questions: Sequence[str]) -> list[str]:
        """Rendered text, split at the answers."""
        messages = []
        for i, question in enumerate(questions):
            messages += [_message("user", question), _message("assistant", _PLACE.format(i))]
        pieces = [self._render(messages)]
        for i in range(len(questions)):
            before, place, after = pieces.pop().partition(_PLACE.format(i))
            if not place:
                raise _unusable("it does not keep every answer of a conversation")
            pieces += [before, after]
        return pieces

    def _render(self, messages: Sequence[dict[str, str]], **more: Any) -> str:
        from jinja2 import TemplateError

        try:
            return str(
                self._tokenizer.apply_chat_template(
                    list(messages), chat_template=self._template, tokenize=False, **more
                )
            )
        except (TemplateError, TypeError, ValueError) as error:
            raise _unusable(str(error).rstrip(".")) from error

    def _find_lead(self) -> str:
        """White space before an answer in the template, which the model has to generate."""
        before = self._pieces(["?"])[0]
        asked = self._render([_message("user", "?")], add_generation_prompt=True)
        more = before.removeprefix(asked) if before.startswith(asked) else before
        return more if not more.strip() else more[len(more.rstrip(" ")) :]

    def _find_stop(self) -> list[int]:
        found = {self._eos}
        for piece in self._pieces(["?", "?"])[1:]:
            closing = self._closing.match(piece) if self._closing else None
            if closing:
                found.add(self._tokenizer(closing[0], add_special_tokens=False)["input_ids"][-1])
        return sorted(found)


def chat_of(tokenizer: Any, wanted: bool | None) -> Chat | None:
    """Chat of a tokenizer; `wanted` None: if it has a template, True: always, False: never."""
    if wanted is False:
        return None
    if getattr(tokenizer, "chat_template", None):
        return Chat(tokenizer)
    if wanted:
        raise _unusable("its tokenizer has none")
    return None


def _message(role: str, text: str) -> dict[str, str]:
    return {"role": role, "content": text}


def _unusable(why: str) -> InputError:
    return InputError(
        f"the chat template of this model cannot be used: {why}.",
        hint="Turn it off: chat=False (chat: false).",
    )
