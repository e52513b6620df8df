"""Whether a server of the OpenAI protocol computes what the model in this process does (vLLM, moextend serve)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import httpx
import torch

from moextend.certificate.inputs import NEW_TOKENS, Item, Set
from moextend.certificate.record import Claim, Fact, Status, claim
from moextend.errors import InputError
from moextend.extension.activate import activate
from moextend.model.generation import choice_rows, generate, prompt_ids
from moextend.model.multimodal import MultimodalLM

KEY = "OPENAI_API_KEY"
TOLERANCE = 1e-3
"""Largest difference of a token's log-probability, in nats; other weights differ by far more."""


def served(model: MultimodalLM, url: str, name: str, itself: Sequence[str], sets: Sequence[Set]) -> Claim:
    """The claim about a server at `url` (http://HOST:PORT/v1), whose model `name` is the attached extension.

    Args:
        itself: the extension with its co-active ones.

    Raises:
        InputError: the server does not answer, or has no such model.
    """
    items = [item for one in sets for item in one.items if not item.prompt.media]
    headers = {"Authorization": f"Bearer {key}"} if (key := os.environ.get(KEY)) else {}
    largest, other = 0.0, list[str]()
    with httpx.Client(base_url=url, headers=headers, timeout=600, trust_env=False) as client:
        for called, active in (("base", ()), (name, itself)):
            activate(model, active or "none")
            prompts = [item.prompt for item in items]
            answers = generate(model, prompts, max_new_tokens=NEW_TOKENS, batch_size=16)
            for item, answer in zip(items, answers, strict=True):
                largest = max(largest, _difference(model, client, called, item))
                if _answer(model, client, called, item) != answer:
                    other.append(f"{called}: {item.prompt.text}")
    reason = ""
    if other:
        reason = f"{len(other)} of {2 * len(items)} answers differ, the first of {other[0]!r}."
    elif largest > TOLERANCE:
        reason = f"log-probabilities differ by up to {largest:.2g} nats."
    evidence: dict[str, Fact] = {"server": url, "largest difference": largest}
    status: Status = "failed" if reason else "proved"
    return claim("server", status, reason=reason, items=2 * len(items), evidence=evidence)


def _answer(model: MultimodalLM, client: httpx.Client, name: str, item: Item) -> str:
    """Greedy answer; of a model with a chat template that to a chat, so that the server makes the prompt."""
    if model.chat is None:
        asked = {"max_tokens": NEW_TOKENS, "prompt": prompt_ids(model, item.prompt)}
        return str(_ask(client, "completions", name, asked)["text"]).strip()
    texts = {"system": item.prompt.system, "user": item.prompt.text}
    messages = [{"role": role, "content": text} for role, text in texts.items() if text]
    found = _ask(client, "chat/completions", name, {"max_tokens": NEW_TOKENS, "messages": messages})
    return str(found["message"]["content"] or "").strip()


@torch.no_grad()
def _difference(model: MultimodalLM, client: httpx.Client, name: str, item: Item) -> float:
    """Largest difference of the log-probabilities of input and answer."""
    (row,) = choice_rows(model, 0, item.prompt, [item.answer])
    ids = torch.tensor([row.ids], device=model.device)
    logits = model(ids, torch.ones_like(ids))["logits"][0, :-1].float().log_softmax(-1)
    own = logits.gather(-1, ids[0, 1:, None])[:, 0].tolist()
    asked = {"prompt": row.ids, "max_tokens": 1, "echo": True, "logprobs": 1}
    found = _ask(client, "completions", name, asked)
    theirs = found["logprobs"]["token_logprobs"][1 : len(row.ids)]
    return max((abs(a - b) for a, b in zip(own, theirs, strict=True)), default=0.0)


def _ask(client: httpx.Client, path: str, name: str, asked: dict[str, Any]) -> dict[str, Any]:
    """The first choice of a greedy completion."""
    try:
        reply = client.post(path, json={"model": name, "temperature": 0, **asked})
        reply.raise_for_status()
        found: dict[str, Any] = reply.json()["choices"][0]
    except (httpx.HTTPError, ValueError, KeyError) as error:
        raise InputError(
            f"the server does not answer for its model '{name}' ({error}).",
            where=f"--server {client.base_url}",
            hint="Start it, or correct the address (http://HOST:PORT/v1). Its models are base and the extension.",
        ) from error
    return found
