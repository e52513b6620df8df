"""lm-eval's transformers model over a model of this project, and over one of a server."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import lm_eval.models.huggingface as huggingface
from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs, postprocess_generated_text

from moextend.errors import InputError
from moextend.model.generation import Prompt, each_by_its_own
from moextend.util import memory, processes

if TYPE_CHECKING:
    from moextend.bench.score.served.answers import ServedModel
    from moextend.model.multimodal import MultimodalLM

T = TypeVar("T")

Request = tuple[tuple[str, str], list[int], list[int]]
"""((context, continuation), ids of the context, ids of the continuation)"""
Answer = tuple[float, bool]
"""Log-likelihood (nats), and whether greedy decoding gives the continuation."""


class HarnessLM(HFLM):  # type: ignore[misc]
    """lm-eval's transformers model, in the batches of lm-eval.

    Where the model chooses extensions by the input (`MultimodalLM.choose`), it does so for the context of each request.
    Several processes share the batches, and each gets all answers.
    """

    def __init__(self, model: MultimodalLM, **options: Any) -> None:
        super().__init__(
            pretrained=model.lm,
            tokenizer=model.tokenizer,
            backend="causal",
            device=str(model.device),
            **options,
        )
        self.multimodal = model

    def loglikelihood(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[Answer]:
        """Log-likelihoods of continuations."""
        return self._chosen(super().loglikelihood, requests)

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        """Log-likelihoods of whole texts."""
        return self._chosen(super().loglikelihood_rolling, requests)

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """Greedy or drawn answers."""
        return self._chosen(self._generate_until, requests)

    def _chosen(self, answer: Callable[[list[Any]], list[T]], requests: Sequence[Any]) -> list[T]:
        prompts = [Prompt(request.args[0]) for request in requests]
        return each_by_its_own(
            self.multimodal, prompts, lambda places: answer([requests[place] for place in places])
        )

    def _loglikelihood_tokens(
        self, requests: Sequence[Request], disable_tqdm: bool = False, override_bs: int | None = None
    ) -> list[Answer]:
        def rated(places: Sequence[int]) -> list[Answer]:
            return list(super(HarnessLM, self)._loglikelihood_tokens([requests[i] for i in places], True))

        # lm-eval computes requests with the same ids but the last one in one row.
        rows: dict[tuple[int, ...], list[int]] = {}
        for place, (_, context, choice) in enumerate(requests):
            rows.setdefault((*context, *choice[:-1]), []).append(place)

        def length(row: list[int]) -> tuple[int, tuple[int, ...]]:
            _, context, choice = max((requests[place] for place in row), key=lambda request: len(request[2]))
            return -len(context + choice), (*context, *choice)

        batches = _chunks(sorted(rows.values(), key=length), override_bs or int(self.batch_size))
        answers = shared(rated, [[place for row in batch for place in row] for batch in batches])
        return [answers[place] for place in range(len(requests))]

    def _generate_until(self, requests: Sequence[Any]) -> list[str]:
        def answered(places: Sequence[int]) -> list[str]:
            return list(super(HarnessLM, self).generate_until([requests[i] for i in places], True))

        texts = [request.args[0] for request in requests]
        order = sorted(range(len(texts)), key=lambda i: (-len(self.tok_encode(texts[i])), texts[i]))
        kinds = sorted(_by_settings(requests, order), key=min)
        answers = shared(answered, [batch for own in kinds for batch in _chunks(own, int(self.batch_size))])
        return [answers[place] for place in range(len(requests))]


class ServedLM(HarnessLM):
    """Requests made as for a model of this project, and answered by that of a server, which chooses extensions."""

    def __init__(self, server: ServedModel, model: MultimodalLM, **options: Any) -> None:
        super().__init__(model, **options)
        self.server = server

    def _chosen(self, answer: Callable[[list[Any]], list[T]], requests: Sequence[Any]) -> list[T]:
        return answer(list(requests))

    def _loglikelihood_tokens(
        self, requests: Sequence[Request], disable_tqdm: bool = False, override_bs: int | None = None
    ) -> list[Answer]:
        rows = []
        for _, context, choice in requests:
            ids = [*context, *choice][1 - self.max_length :]  # one token is generated
            rows.append((ids, max(1, len(ids) - len(choice))))
        bar = huggingface.tqdm(total=len(requests), disable=disable_tqdm)
        return [(one.value, one.greedy) for one in self.server.rate(rows, bar.update)]

    def _generate_until(self, requests: Sequence[Any]) -> list[str]:
        """Answers, cut at the stop sequences as lm-eval does it."""
        bar = huggingface.tqdm(total=len(requests))
        found: dict[int, str] = {}
        for places in _by_settings(requests, range(len(requests))):
            found |= zip(places, self._answers([requests[place] for place in places], bar), strict=True)
        return [found[place] for place in range(len(requests))]

    def _answers(self, requests: Sequence[Any], bar: Any) -> list[str]:
        """Answers to requests with the same settings of the decoding."""
        settings = normalize_gen_kwargs(requests[0].args[1], self.max_gen_toks)
        if settings.get("do_sample"):
            raise InputError(
                "samples its answers, and two backends do not draw the same samples.",
                where="lm_eval: generation_kwargs.do_sample",
                hint="Score the task in process.",
            )
        end = self.tok_decode(self.eot_token_id, skip_special_tokens=False)
        until = handle_stop_sequences(settings.get("until"), eos=end)
        new = settings["max_gen_toks"]
        rows = [
            self.tok_batch_encode(
                [request.args[0]], left_truncate_len=self.max_length - new, truncation=self.truncation
            )[0][0].tolist()
            for request in requests
        ]
        stop = [word for word in until if word and word != end]
        texts = self.server.complete(rows, max_new_tokens=new, stop=stop, on_answer=bar.update)
        return [postprocess_generated_text(self._alone(text), until, None) for text in texts]

    def _alone(self, text: str) -> str:
        """A text that follows a prompt, as lm-eval decodes it without the prompt: some tokenizers drop the space."""
        word = self.tokenizer.decode(self.tok_encode("b a", add_special_tokens=False)[-1:])
        return text if word.startswith(" ") else text.removeprefix(" ")


def _by_settings(requests: Sequence[Any], order: Sequence[int]) -> list[list[int]]:
    """Places of requests with the same settings of the decoding, which alone may share a batch."""
    found: dict[str, list[int]] = {}
    for place in order:
        found.setdefault(repr(sorted(requests[place].args[1].items())), []).append(place)
    return list(found.values())


def _chunks(rows: Sequence[T], size: int) -> list[Sequence[T]]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def shared(work: Callable[[Sequence[int]], list[T]], batches: Sequence[Sequence[int]]) -> dict[int, T]:
    """Place of a request -> its result, from batches of which each process computes its share."""
    answers: dict[int, T] = {}
    bar = huggingface.tqdm(total=sum(map(len, batches)))

    def mine() -> dict[int, T]:
        found: dict[int, T] = {}
        for places in processes.share(batches):
            with memory.enough(len(places), "lm-eval"):
                found |= zip(places, work(places), strict=True)
            bar.update(len(places) * processes.count())
        return found

    for part in processes.gathered(mine):
        answers |= part
    bar.close()
    return answers
