"""Answers of the server equal those in process, for each model, whatever is asked at the same time."""

from __future__ import annotations

import base64
import json
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch

import moextend
from moextend import MultimodalLM
from moextend.model.generation import choice_likelihoods

pytest.importorskip("fastapi", reason="fastapi is not installed")
pytest.importorskip("uvicorn", reason="uvicorn is not installed")

from tests.serving.conftest import loaded
from tests.serving.living import PROMPTS, SKILLS, Living, in_process, living

MODELS: dict[str, Any] = {
    "base": [],
    **{name: [name] for name in SKILLS},
    "work+home": ["work", "home"],
    "auto": "auto",
}


def chat(prompt: str, model: str, **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": prompt}], "max_tokens": 8, **more}


def test_answers_of_all_models_equal_those_in_process(served: Living, alone: MultimodalLM) -> None:
    asked = list(product(MODELS, PROMPTS))
    with served.client() as client, ThreadPoolExecutor(16) as threads:
        post = lambda one: client.post("/v1/chat/completions", json=chat(one[1], one[0]))  # noqa: E731
        replies = dict(zip(asked, threads.map(post, asked), strict=True))
    wrong = {}
    for name, names in MODELS.items():
        for prompt, answer in zip(PROMPTS, in_process(alone, names, PROMPTS, 8), strict=True):
            reply = replies[name, prompt].json()
            if reply["choices"][0]["message"]["content"] != answer:
                wrong[name, prompt] = reply, answer
    assert not wrong
    for skill, facts in SKILLS.items():  # the skills are of use at all
        for prompt, answer in facts.items():
            assert replies[skill, prompt].json()["choices"][0]["message"]["content"].startswith(answer)


def test_fingerprints_are_those_of_the_weights_that_answer(served: Living, alone: MultimodalLM) -> None:
    with served.client() as client:
        models = {each["id"]: each for each in client.get("/v1/models").json()["data"]}
        assert list(models) == ["base", *SKILLS, "auto"]
        for name, names in {**MODELS, "home+work": ["home", "work"]}.items():
            if name == "auto":
                continue
            moextend.activate(alone, names)
            wanted = moextend.active_fingerprint(alone)
            reply = client.post("/v1/chat/completions", json=chat(PROMPTS[0], name)).json()
            assert reply["system_fingerprint"] == wanted and reply["model"] == name
            assert client.get(f"/v1/models/{name}").json()["system_fingerprint"] == wanted
            assert name not in models or models[name]["system_fingerprint"] == wanted
        inferred = client.post("/v1/chat/completions", json=chat("bob owns a", "auto")).json()
        assert inferred["extensions"] == ["pets"]
        assert inferred["system_fingerprint"] == models["pets"]["system_fingerprint"]
    assert len({each["system_fingerprint"] for each in models.values()}) == len(models)
    assert all(each["owned_by"] == "moextend" and each["object"] == "model" for each in models.values())


def test_a_strength_is_in_the_name_and_in_the_fingerprint(skills: Path, alone: MultimodalLM) -> None:
    model, given = loaded(skills, *SKILLS), {"work": 0.5, "home": 1.0, "pets": 0.0}
    moextend.activate(model, given)
    with living(model) as server, server.client() as client:
        models = {each["id"]: each for each in client.get("/v1/models").json()["data"]}
        assert list(models) == ["base", "work:0.5", "home", "pets:0.0", "auto"]
        wanted = {}
        sets = {"base": (), "work:0.5": ("work",), "home": ("home",), "pets:0.0": ("pets",)}
        for name, names in {**sets, "work:0.5+home": ("work", "home")}.items():
            answers = in_process(alone, {each: given[each] for each in names}, PROMPTS, 8)
            for prompt, answer in zip(PROMPTS, answers, strict=True):
                wanted[name, prompt] = (answer, moextend.active_fingerprint(alone))
        with ThreadPoolExecutor(8) as threads:
            replies = threads.map(
                lambda one: client.post("/v1/chat/completions", json=chat(one[1], one[0])).json(), wanted
            )
        found = {
            key: (each["choices"][0]["message"]["content"], each["system_fingerprint"])
            for key, each in zip(wanted, replies, strict=True)
        }
        assert found == wanted
        assert {key[1] for key in wanted if found[key][0] != found["work:0.5", key[1]][0]}
        assert "@0.5" in models["work:0.5"]["system_fingerprint"]
        assert models["pets:0.0"]["system_fingerprint"] == models["base"]["system_fingerprint"]
        inferred = client.post("/v1/chat/completions", json=chat("carl works as", "auto")).json()
        assert set(inferred["extensions"]) <= {"work:0.5", "home", "pets:0.0"}
        refused = client.post("/v1/chat/completions", json=chat("x", "work"))
        assert refused.status_code == 404 and "work:0.5" in refused.json()["error"]["message"]
        assert client.delete("/v1/extensions/work:0.5").json()["deleted"]
        again = client.post("/v1/extensions", json={"path": str(skills / "work"), "strength": 0.25}).json()
        assert again["id"] == "work:0.25" and "@0.25" in again["system_fingerprint"]
        wrong = client.post("/v1/extensions", json={"path": str(skills / "work"), "strength": 2})
        assert wrong.status_code == 400 and "strength" in wrong.json()["error"]["message"]


def test_a_completion_is_text_after_the_prompt_and_its_prompt_can_be_scored(
    served: Living, alone: MultimodalLM
) -> None:
    prompts = ["carl works as", "bob owns a"]
    choices = [["poet", "baker"], ["goat", "poet"]]
    moextend.activate(alone, ["work"])
    wanted = choice_likelihoods(alone, [moextend.Prompt(p) for p in prompts], choices, batch_size=4)
    tokenizer = alone.tokenizer
    full = [f"{prompt} {choice}" for prompt, own in zip(prompts, choices, strict=True) for choice in own]
    ids = [tokenizer(text)["input_ids"] for text in full]
    body = {"model": "work", "max_tokens": 0, "echo": True, "logprobs": 2}
    with served.client() as client:
        for prompt in (full, ids):
            reply = client.post("/v1/completions", json={**body, "prompt": prompt}).json()
            found = [choice["logprobs"]["token_logprobs"] for choice in reply["choices"]]
            assert [each[0] for each in found] == [None] * 4 and [len(each) for each in found] == [
                *map(len, ids)
            ]
            last = torch.tensor([each[-1] for each in found]).reshape(2, 2)
            assert torch.allclose(last, torch.tensor(wanted), atol=1e-5)
            for choice, own in zip(reply["choices"], ids, strict=True):
                logs = choice["logprobs"]
                assert len(logs["tokens"]) == len(own) and logs["top_logprobs"][0] is None
                for name, value, top in list(
                    zip(logs["tokens"], logs["token_logprobs"], logs["top_logprobs"], strict=True)
                )[1:]:
                    assert top[name] == value and len(top) in (2, 3)
            assert reply["usage"]["completion_tokens"] == 0
        texts = {**body, "prompt": prompts, "echo": False, "max_tokens": 4, "logprobs": None}
        reply = client.post("/v1/completions", json=texts).json()
        answers = [choice["text"].strip() for choice in reply["choices"]]
        assert answers == in_process(alone, ["work"], prompts, 4)
        echoed = client.post("/v1/completions", json={**texts, "echo": True}).json()["choices"]
        assert [each["text"] for each in echoed] == [
            prompt + each["text"] for prompt, each in zip(prompts, reply["choices"], strict=True)
        ]


def test_an_echo_is_the_text_of_all_tokens(served: Living, alone: MultimodalLM) -> None:
    text = "anna lives in"
    prompt = alone.tokenizer(text)["input_ids"]
    body = {"model": "base", "prompt": prompt, "max_tokens": 6, "logprobs": 0}
    with served.client() as client:
        plain, echoed = (
            client.post("/v1/completions", json={**body, "echo": echo}).json()["choices"][0]
            for echo in (False, True)
        )
        with client.stream("POST", "/v1/completions", json={**body, "stream": True}) as reply:
            lines = [line.removeprefix("data: ") for line in reply.iter_lines() if line][:-1]
    words = plain["logprobs"]["tokens"]
    assert echoed["text"] == f"{text}{plain['text']}" == f"{text} {' '.join(words)}"
    assert echoed["logprobs"]["tokens"] == ["<bos>", *text.split(), *words]
    chunks = [json.loads(line)["choices"][0] for line in lines]
    assert "".join(chunk["text"] for chunk in chunks) == plain["text"]
    streamed = [token for each in chunks if each["logprobs"] for token in each["logprobs"]["tokens"]]
    assert streamed == words


def test_a_stream_has_the_pieces_of_the_answer(served: Living) -> None:
    body = chat("carl works as", "base", max_tokens=12)
    with served.client() as client:
        unstreamed = client.post("/v1/chat/completions", json=body).json()
        more = {"stream": True, "stream_options": {"include_usage": True}}
        with client.stream("POST", "/v1/chat/completions", json={**body, **more}) as reply:
            assert reply.headers["content-type"].startswith("text/event-stream")
            lines = [line.removeprefix("data: ") for line in reply.iter_lines() if line]
    assert lines[-1] == "[DONE]"
    chunks = [json.loads(line) for line in lines[:-1]]
    deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
    assert deltas[0]["role"] == "assistant" and "role" not in deltas[-1]
    text = "".join(delta.get("content", "") for delta in deltas)
    assert text == unstreamed["choices"][0]["message"]["content"] and len(text) > 5
    assert chunks[-1]["usage"] == unstreamed["usage"] and not chunks[-1]["choices"]
    assert chunks[-2]["choices"][0]["finish_reason"] == unstreamed["choices"][0]["finish_reason"]
    assert {chunk["system_fingerprint"] for chunk in chunks} == {unstreamed["system_fingerprint"]}


def test_stop_texts_end_an_answer_and_are_never_streamed(served: Living) -> None:
    body = {"model": "base", "prompt": "carl works as", "max_tokens": 12}
    with served.client() as client:
        text = client.post("/v1/completions", json=body).json()["choices"][0]["text"]
        words = text.split()
        stop = f"{words[2][-1]} {words[3][:1]}"
        wanted = text[: text.index(stop)]
        cut = client.post("/v1/completions", json={**body, "stop": [stop, "never"]}).json()["choices"][0]
        assert (cut["text"], cut["finish_reason"]) == (wanted, "stop") and wanted
        with client.stream("POST", "/v1/completions", json={**body, "stop": stop, "stream": True}) as reply:
            lines = [line.removeprefix("data: ") for line in reply.iter_lines() if line][:-1]
    pieces = [choice["text"] for line in lines for choice in json.loads(line)["choices"]]
    assert "".join(pieces) == wanted


def test_sampling_depends_on_the_seed_only(served: Living) -> None:
    body = {"model": "base", "prompt": "carl works as", "max_tokens": 12, "temperature": 1.5}

    with served.client() as client, ThreadPoolExecutor(6) as threads:

        def answers(*seeds: int, **more: Any) -> list[str]:
            post = lambda seed: client.post("/v1/completions", json={**body, "seed": seed, **more})  # noqa: E731
            return [reply.json()["choices"][0]["text"] for reply in threads.map(post, seeds)]

        found = answers(1, 2, 3, 1, 2, 3)
        assert found[:3] == found[3:] == [answers(seed)[0] for seed in (1, 2, 3)] and len(set(found)) == 3
        assert set(answers(1, 2, top_p=1e-9)) == set(answers(1, temperature=0)), "the most likely token only"


def test_earlier_turns_and_a_system_message_are_read(served: Living, alone: MultimodalLM) -> None:
    turns = [
        {"role": "system", "content": "be short"},
        {"role": "user", "content": "anna lives in"},
        {"role": "assistant", "content": "oslo"},
        {"role": "user", "content": [{"type": "text", "text": "carl"}, {"type": "text", "text": "works as"}]},
    ]
    moextend.activate(alone, ["work"])
    prompt = moextend.Prompt("carl works as", before=(("anna lives in", "oslo"),), system="be short")
    (wanted,) = moextend.generate(alone, [prompt], max_new_tokens=8, batch_size=1)
    with served.client() as client:
        body = {"model": "work", "messages": turns, "max_completion_tokens": 8}
        reply = client.post("/v1/chat/completions", json=body).json()
        assert reply["choices"][0]["message"]["content"] == wanted
        left = client.post(
            "/v1/chat/completions", json={**chat("carl works as", "work"), "max_tokens": None}
        ).json()
        assert left["usage"]["total_tokens"] <= 256


def test_images_in_a_chat_equal_those_in_process() -> None:
    from tests.toys import picture

    model, other = (moextend.load("tiny", vision="tiny") for _ in range(2))
    red, blue = picture(250), picture(0, 0, 250)
    prompt = moextend.Prompt("<image> Q what color is it A:", (red,))
    both = moextend.Prompt("<image> and <image> Q A:", (red, blue))
    tags = moextend.Prompt(
        "the tag1 tag <image> tag1 Q A:", (red,)
    )  # a word that the tokenizer does not know
    wanted = moextend.generate(other, [prompt, both, tags], max_new_tokens=6, batch_size=2)

    def url(image: Any) -> dict[str, Any]:
        data = base64.b64encode(image.data).decode()
        return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}", "detail": "low"}}

    def text(words: str) -> dict[str, Any]:
        return {"type": "text", "text": words}

    messages = [
        [url(red), text("Q what color is it A:")],
        [url(red), text("and"), url(blue), text("Q A:")],
        [text("the <image> tag"), url(red), text("<image> Q A:")],
    ]
    with living(model) as server, server.client() as client:
        bodies = [
            {**chat("", "base"), "messages": [{"role": "user", "content": m}], "max_tokens": 6}
            for m in messages
        ]
        with ThreadPoolExecutor(4) as threads:
            replies = list(
                threads.map(lambda body: client.post("/v1/chat/completions", json=body), bodies * 2)
            )
        assert [r.json()["choices"][0]["message"]["content"] for r in replies] == wanted * 2
        broken = {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGVsbG8="}}
        far = {"type": "image_url", "image_url": {"url": "https://example.org/cat.png"}}
        sound = {"type": "input_audio", "input_audio": {"data": "aGVsbG8=", "format": "wav"}}
        for part, message in ((broken, "broken"), (far, "downloads nothing"), (sound, "sound")):
            bad = client.post(
                "/v1/chat/completions", json={**bodies[0], "messages": [{"role": "user", "content": [part]}]}
            )
            assert bad.status_code == 400 and message in bad.json()["error"]["message"], bad.text
