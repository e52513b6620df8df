"""Self-distillation fine-tuning (SDFT, Shenfeld et al., 2026, arXiv 2601.19897): a model that sees the answer teaches.

The student samples an answer y to each question x. The teacher also sees a demonstration c, the true answer. The loss
is the mean over answers, and over their tokens t, of ``KL(student(. | x, y_<t) || teacher(. | x, c, y_<t))``, and
replaces that of the true answers. The teacher's weights are the average ``(1 - rate) average + rate weights`` over the
steps, from those before the stage on. `kl=forward` exchanges the two, as the authors' code does; their equation is
`reverse`.

Prompt, temperature 1 and one answer a question are theirs, but the prompt does not ask for the thinking process. A
base without a chat template gets the demonstration as an earlier turn, the form of its training data. No tokens at the
beginning of an answer are left out of the loss (they leave out three, more than most answers here have), and a sampled
answer is at most as long as the longest true one of its batch. With an adapter the average is that of its matrices.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from moextend.bench.methods.method import Stage
from moextend.bench.methods.shapes import Extra
from moextend.bench.methods.weights import AdapterOrAll
from moextend.errors import InputError
from moextend.util.search_space import LogRange

if TYPE_CHECKING:
    from torch import Tensor

    from moextend import Conversation, MultimodalLM
    from moextend.model.generation import Prompt
    from moextend.training.trainer import ExtraLoss, StepHook


class Sdft(AdapterOrAll):
    """Distillation on sampled answers from the model that sees the true ones."""

    look = ("lilac", "h")

    class Config(AdapterOrAll.Config):
        """What can be set."""

        rate: Annotated[float, LogRange(0.001, 0.1)] = Field(default=0.01, ge=0, le=1)
        """Of the teacher's average; 0: the model before the stage teaches, 1: the current one."""
        kl: Literal["reverse", "forward"] = "reverse"

    config: Config

    def extra(self, model: Any) -> Extra:
        """The teacher's weights; each step samples answers and asks the teacher, too."""
        return Extra(copies=1, sampled=True)

    def extra_loss(self, model: MultimodalLM, stage: Stage) -> ExtraLoss | None:
        """The loss on sampled answers, in the place of the model's own."""
        self._loss = _OnPolicy(self, model, stage)
        return self._loss

    def step_hook(self, model: MultimodalLM, stage: Stage) -> StepHook | None:
        """Moves the teacher after each step."""
        return self._loss


class _OnPolicy:
    """Loss of sampled answers (`OwnBatches`), and the teacher that follows the weights (`AfterStep`)."""

    def __init__(self, method: Sdft, model: MultimodalLM, stage: Stage) -> None:
        self.config, self.model = method.config, model
        self.data, self.rows = method.data(stage), stage.batch_size
        self.weights = method.parameters(model)
        self.teacher = {name: weight.detach().float().clone() for name, weight in self.weights.items()}
        self.asked: tuple[list[int], Tensor] | None = None
        """Tokens of each sampled answer; log-probabilities [N, vocabulary] of the teacher at all of them."""

    def batch(self, items: Sequence[int]) -> dict[str, Any]:
        """Samples an answer to each question, and asks the teacher for the probabilities of its tokens."""
        import torch
        from torch.func import functional_call

        from moextend.model.feature_cache import sources_of
        from moextend.model.generation import answer_ids, answered, message_ids, prompt_ids

        model, pairs = self.model, [pair for item in items for pair in questions(self.data[item])]
        students = [prompt for prompt, _ in pairs]
        teachers = [demonstrated(prompt, answer, chat=model.chat is not None) for prompt, answer in pairs]
        longest = max(len(message_ids(model, p.messages(a))[0]) - len(prompt_ids(model, p)) for p, a in pairs)
        answers = list[list[int]]()
        model.eval()
        for at in range(0, len(pairs), self.rows):
            part = students[at : at + self.rows]
            answers += answer_ids(model, part, longest, sources_of(model), sample=True)
        with torch.no_grad():
            out = functional_call(model, self.teacher, kwargs=answered(model, teachers, answers))
        model.train()
        self.asked = [len(answer) for answer in answers], out["logits"].float().log_softmax(-1)
        return answered(model, students, answers)

    def __call__(self, batch: Mapping[str, Tensor], out: Mapping[str, Tensor]) -> Tensor:
        import torch
        import torch.nn.functional as F

        assert self.asked is not None, "batch was called before"
        (lengths, teacher), student = self.asked, out["logits"].float().log_softmax(-1)
        given = (teacher, student) if self.config.kl == "reverse" else (student, teacher)
        tokens = F.kl_div(*given, log_target=True, reduction="none").sum(-1)  # kl_div(q, p) is KL(p || q)
        return torch.stack([answer.mean() for answer in tokens.split(lengths)]).mean()

    def after_step(self) -> None:
        for name, weight in self.weights.items():
            self.teacher[name].lerp_(weight.detach(), self.config.rate)

    def state_dict(self) -> dict[str, Tensor]:
        return self.teacher

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        for name, value in state.items():
            self.teacher[name].copy_(value)


def questions(row: Conversation) -> Iterator[tuple[Prompt, str]]:
    """Each question of a conversation after the true turns before it, and its answer."""
    from moextend.data.modalities import media_at
    from moextend.model.generation import Prompt

    if row.is_text:
        what = "sdft samples answers to questions, and an item of the training data is plain text."
        raise InputError(what, hint="Choose another method for this task.")
    for place, (question, answer) in enumerate(row.turns):
        if answer:
            shown = "".join(text for text, _ in row.turns[: place + 1])
            yield Prompt(question, tuple(media_at(shown, row.media)), row.turns[:place], row.system), answer


def demonstrated(prompt: Prompt, answer: str, *, chat: bool) -> Prompt:
    """The teacher's prompt: in the authors' words, or, for a model without a chat template, as an earlier turn."""
    from moextend.model.messages import without_marks

    if chat:
        shown = f"This is an example for a response to the question:\n{answer}"
        return replace(prompt, text=f"{prompt.text}\n\n{shown}\n\nNow answer with a response of your own.")
    again = without_marks(prompt.text, prompt.media).strip()
    return replace(prompt, text=again, before=(*prompt.before, (prompt.text, answer)))
