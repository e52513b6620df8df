"""lm-eval's model of transformers whose forward passes are a server's.

The tokenizer, the start tokens, the limits and the processing of answers are those of the model in this process, so
that both are asked exactly the same. lm-eval's own model for such servers (local-completions) adds no start token.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import lm_eval.models.huggingface as huggingface
from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs, postprocess_generated_text

from moextend.bench.score.text.choices import Answer, Request, SharedContext
from moextend.errors import InputError

if TYPE_CHECKING:
    from moextend.bench.score.served.answers import ServedModel
    from moextend.model.multimodal import MultimodalLM

T = TypeVar("T")


class ServedLM(SharedContext):
    """See the module; the options are those of lm-eval's HFLM."""

    def __init__(self, server: ServedModel, model: MultimodalLM, **options: Any) -> None:
        super().__init__(model, **options)
        self.server = server

    def _chosen(self, answer: Callable[[list[Any]], list[T]], requests: Sequence[Any]) -> list[T]:
        return answer(list(requests))  # the server chooses

    def _loglikelihood_tokens(
        self, requests: Sequence[Request], disable_tqdm: bool = False, override_bs: int | None = None
    ) -> list[Answer]:
        most = self.max_length - 1  # one token is generated
        rows = []
        for _, context, choice in requests:
            ids = [*context, *choice][-most:]
            rows.append((ids, max(1, len(ids) - len(choice))))
        bar = huggingface.tqdm(total=len(requests), disable=disable_tqdm)
        found = self.server.rate(rows, bar.update)
        bar.close()
        return [(one.value, one.greedy) for one in found]

    def _generate_until(self, requests: Sequence[Any]) -> list[str]:
        """Answers, cut at the stop sequences as lm-eval does it."""
        bar = huggingface.tqdm(total=len(requests))
        by_settings: dict[str, list[int]] = {}
        for place, request in enumerate(requests):
            by_settings.setdefault(repr(sorted(request.args[1].items())), []).append(place)
        found: dict[int, str] = {}
        for places in by_settings.values():
            found |= zip(places, self._answers([requests[place] for place in places], bar), strict=True)
        bar.close()
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
