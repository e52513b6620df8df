"""Real clients: the openai package and lm-eval's API models, against the same model in process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import moextend
from moextend import MultimodalLM

pytest.importorskip("fastapi", reason="fastapi is not installed")
pytest.importorskip("uvicorn", reason="uvicorn is not installed")

from tests.serving.living import PROMPTS, SKILLS, Living, in_process

TINY = Path(moextend.__file__).parent / "content/registry/models/tiny/lm"


def test_the_openai_package(served: Living, alone: MultimodalLM) -> None:
    openai = pytest.importorskip("openai", reason="openai is not installed")
    wanted = in_process(alone, ["work"], PROMPTS, 8)
    with openai.OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0, timeout=120) as client:
        assert [model.id for model in client.models.list()] == ["base", *SKILLS, "auto"]
        assert client.models.retrieve("work").owned_by == "moextend"
        for prompt, answer in zip(PROMPTS[:3], wanted, strict=False):
            messages: list[Any] = [{"role": "user", "content": prompt}]
            body: dict[str, Any] = {"model": "work", "messages": messages, "max_tokens": 8, "temperature": 0}
            reply = client.chat.completions.create(**body)
            assert reply.choices[0].message.content == answer and reply.system_fingerprint
            pieces = client.chat.completions.create(
                **body, stream=True, stream_options={"include_usage": True}
            )
            chunks = list(pieces)
            text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
            assert text == answer and chunks[-1].usage == reply.usage
        texts = client.completions.create(model="work", prompt=PROMPTS, max_tokens=8, logprobs=1)
        assert [choice.text.strip() for choice in texts.choices] == wanted
        with pytest.raises(openai.NotFoundError) as missing:
            client.chat.completions.create(model="nothing", messages=messages)
        assert missing.value.code == "model_not_found" and missing.value.param == "model"
        with pytest.raises(openai.BadRequestError) as long:
            client.completions.create(model="base", prompt="w " * 300)
        assert long.value.code == "context_length_exceeded"


def instances(kind: str, *arguments: Any) -> list[Any]:
    from lm_eval.api.instance import Instance

    return [Instance(kind, {}, each, place) for place, each in enumerate(arguments)]


def hf(model: MultimodalLM, names: list[str]) -> Any:
    from lm_eval.models.huggingface import HFLM

    moextend.activate(model, names)
    return HFLM(pretrained=model.lm, tokenizer=model.tokenizer, backend="causal", device="cpu", batch_size=4)


@pytest.fixture
def keyed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "none")


@pytest.mark.slow  # imports lm-eval's models
@pytest.mark.usefixtures("keyed")
def test_local_completions_of_lm_eval(served: Living, alone: MultimodalLM) -> None:
    from lm_eval.models.openai_completions import LocalCompletionsAPI

    asked = [(prompt, f" {answer}") for prompt in PROMPTS for answer in ("poet", "goat", "oslo")]
    for name in ("work", "base"):
        client = LocalCompletionsAPI(
            base_url=f"{served.url}/v1/completions", model=name, tokenizer=str(TINY), batch_size=4, max_length=256,
            tokenizer_backend="huggingface", add_bos_token=True,
        )  # fmt: skip
        own = hf(alone, [] if name == "base" else [name])
        found = client.loglikelihood(instances("loglikelihood", *asked), disable_tqdm=True)
        wanted = own.loglikelihood(instances("loglikelihood", *asked), disable_tqdm=True)
        assert [greedy for _, greedy in found] == [greedy for _, greedy in wanted]
        values = [[value for value, _ in each] for each in (found, wanted)]
        assert values[0] == pytest.approx(values[1], abs=1e-4)
        assert any(greedy for _, greedy in found) or name == "base"
        texts = [(prompt, {"until": [" a"], "max_gen_toks": 8}) for prompt in PROMPTS]
        generated = [
            each.generate_until(instances("generate_until", *texts), disable_tqdm=True)
            for each in (client, own)
        ]
        # A server's text follows the prompt; lm-eval in process decodes it alone, without the space before it.
        assert generated[0] == [f" {text}" for text in generated[1]]
    rolling = [("carl works as a poet and anna lives in oslo .",)]
    rolled = client.loglikelihood_rolling(instances("loglikelihood_rolling", *rolling), disable_tqdm=True)
    assert rolled == pytest.approx(
        own.loglikelihood_rolling(instances("loglikelihood_rolling", *rolling), disable_tqdm=True), abs=1e-4
    )


@pytest.mark.slow
@pytest.mark.usefixtures("keyed")
def test_local_chat_completions_of_lm_eval(served: Living, alone: MultimodalLM) -> None:
    from lm_eval.api.instance import Instance
    from lm_eval.models.api_models import JsonChatStr
    from lm_eval.models.openai_completions import LocalChatCompletion

    client = LocalChatCompletion(base_url=f"{served.url}/v1/chat/completions", model="pets", max_length=256)
    texts: list[Any] = []
    for prompt in PROMPTS:
        turns = client.apply_chat_template([{"role": "user", "content": prompt}])
        assert isinstance(turns, JsonChatStr)
        texts.append(Instance("generate_until", {}, (turns, {"until": [], "max_gen_toks": 8}), len(texts)))
    assert client.generate_until(texts, disable_tqdm=True) == in_process(alone, ["pets"], PROMPTS, 8)
