"""SDFT: its loss, prompts and teacher against the paper's equations and trl's trainer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import moextend
from moextend.bench import methods
from moextend.bench.methods import sdft
from moextend.data.conversations import Conversation
from moextend.errors import InputError
from moextend.model.modality import gather
from tests.bench.methods.short import TASKS, ShortLoop, World, learn, restored


def prepared(world: World, spec: str) -> tuple[Any, Any, Any]:
    """Method, model with a trained first stage, and the loss of the second stage."""
    learn(world, spec, stages=1, steps=4)
    method: Any = methods.parse(spec).make()
    model = restored(world, method, 1)
    return method, model, method.extra_loss(model, world.stage(2))


def next_token(model: Any, ids: list[int], media: tuple[Any, ...]) -> Tensor:
    """Log-probabilities of the token after these ids, one sequence at a time without padding."""
    features = gather(list(media), model.modalities.sources())
    row = torch.tensor([ids])
    with torch.no_grad():
        out: Tensor = model(row, torch.ones_like(row), features=features)["logits"][0, -1].double()
    return out.log_softmax(-1)


@pytest.mark.parametrize("kl", ["reverse", "forward"])
def test_the_loss_is_the_mean_divergence_of_sampled_answers(world: World, kl: str) -> None:
    method, model, loss = prepared(world, f"sdft:kl={kl},rate=0.3,rank=4")
    moved = method.parameters(model)
    with torch.no_grad():
        for weight in moved.values():
            weight += 0.05 * torch.randn_like(weight)
    torch.manual_seed(1)
    inputs = loss.batch([0, 3])
    found = loss(inputs, model(**inputs))
    rows = [world.stage(2).data[0], world.stage(2).data[3]]
    pairs = [pair for row in rows for pair in sdft.questions(row)]
    assert len(pairs) == len(inputs["input_ids"]) == sum(len(row.turns) for row in rows)
    student = {name: weight.detach().clone() for name, weight in moved.items()}
    means = []
    for (prompt, answer), ids, labels in zip(pairs, inputs["input_ids"], inputs["labels"], strict=True):
        said = ids[labels >= 0].tolist()
        plain = [token for token, label in zip(ids.tolist(), labels.tolist(), strict=True) if label < 0]
        asked = moextend.model.generation.prompt_ids(model, prompt)
        assert plain[: len(asked)] == asked
        shown = moextend.model.generation.prompt_ids(model, sdft.demonstrated(prompt, answer, chat=False))
        tokens = []
        for at in range(len(said)):
            q = next_token(model, asked + said[:at], prompt.media)
            for name, weight in moved.items():
                weight.data = loss.teacher[name]
            p = next_token(model, shown + said[:at], prompt.media)
            for name, weight in moved.items():
                weight.data = student[name]
            first, second = (q, p) if kl == "reverse" else (p, q)
            tokens.append(float((first.exp() * (first - second)).sum()))
        means.append(sum(tokens) / len(tokens))
    assert float(found) == pytest.approx(sum(means) / len(means), rel=1e-3)
    assert float(found) > 1e-3


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_the_divergence_is_that_of_trl(world: World, alpha: float) -> None:
    """`_compute_divergence` and the masked mean of trl's SelfDistillationMixin: alpha 0 forward, 1 reverse."""
    kl = "forward" if alpha == 0 else "reverse"
    loss = prepared(world, f"sdft:kl={kl},rank=4")[2]
    torch.manual_seed(2)
    logits, teacher = torch.randn(5, 9), torch.randn(5, 9).log_softmax(-1)
    loss.asked = [2, 3], teacher
    student = logits.log_softmax(-1)
    input_, target = (student, teacher) if alpha == 0.0 else (teacher, student)
    tokens = torch.nn.functional.kl_div(input_, target, reduction="none", log_target=True).sum(-1)
    padded, mask = torch.zeros(2, 3), torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 1.0]])
    padded[mask.bool()] = tokens
    wanted = ((padded * mask).sum(-1) / mask.sum(-1)).mean()
    assert torch.allclose(loss({}, {"logits": logits}), wanted)


def test_answers_are_sampled_from_the_student_and_end_at_the_end_token(world: World) -> None:
    _, model, loss = prepared(world, "sdft:rank=4")
    torch.manual_seed(3)
    drawn = [loss.batch([0, 1, 2, 3]) for _ in range(4)]
    kinds = {tuple(map(tuple, one["input_ids"].tolist())) for one in drawn}
    assert len(kinds) > 1, "sampled, not greedy"
    end = model.tokenizer.eos_token_id
    for one in drawn:
        for ids, labels in zip(one["input_ids"], one["labels"], strict=True):
            said = ids[labels >= 0].tolist()
            assert said and end not in said[:-1]
    torch.manual_seed(3)
    assert torch.equal(loss.batch([0, 1, 2, 3])["input_ids"], drawn[0]["input_ids"])


def test_the_teacher_is_the_average_of_the_steps(world: World) -> None:
    method, model, _ = prepared(world, "sdft:rate=0.3,rank=4")
    stage, passed = world.stage(2), []
    wanted = {name: weight.detach().double() for name, weight in method.parameters(model).items()}

    class Watched(ShortLoop):
        def __call__(self, **given: Any) -> Any:
            after = given["step_hook"].after_step

            def after_step() -> None:
                for name, weight in method.parameters(model).items():
                    wanted[name] = 0.7 * wanted[name] + 0.3 * weight.detach().double()
                after()
                passed.append(0)

            given["step_hook"].after_step = after_step
            return super().__call__(**given)

    method.learn(model, stage, Watched(model, stage, steps=3))
    assert len(passed) == 3
    for name, value in method._loss.teacher.items():
        assert torch.allclose(value.double(), wanted[name], atol=1e-6)


def test_a_chat_gets_the_demonstration_in_the_authors_words() -> None:
    prompt = moextend.Prompt("what color ?", before=(("what shape ?", "cube"),))
    asked = sdft.demonstrated(prompt, "red", chat=True)
    assert asked.text == (
        "what color ?\n\nThis is an example for a response to the question:\nred\n\n"
        "Now answer with a response of your own."
    )
    assert asked.before == prompt.before
    turn = sdft.demonstrated(prompt, "red", chat=False)
    assert (turn.text, turn.before) == ("what color ?", (*prompt.before, ("what color ?", "red")))


def test_plain_text_and_a_cached_prefix_are_refused(world: World, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="an item of the training data is plain text"):
        list(sdft.questions(Conversation((("anna lives in oslo", ""),))))
    method, model, loss = prepared(world, "sdft:rank=4")
    model.learn_only(list(method.parameters(model)))
    settings = moextend.Settings(steps=1, batch_size=2, learning_rate=1e-2, cache_prefix=True)
    with pytest.raises(InputError, match="cache_prefix cannot be combined with a method that samples"):
        moextend.train(
            model, world.data[TASKS[1]].learn[:4], settings, folder=tmp_path / "t", extra_loss=loss
        )
