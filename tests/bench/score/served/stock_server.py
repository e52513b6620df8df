"""A small server of the OpenAI protocol over plain transformers, written from the public API reference.

``python stock_server.py FOLDER PORT [FAULT]``. It knows nothing of this package, and computes
one prompt at a time without padding. FAULT: `no-echo` gives no log-probabilities of the prompt, as many servers do;
`bos` adds a token to each prompt; `text` answers every prompt by a word of its own. It can also follow the name of the
model in a request: `stock+bos`.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any

import torch
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from transformers import AutoModelForCausalLM, AutoTokenizer

NAME = os.environ.get("STOCK_NAME", "stock")


def build(folder: str, fault: str = "") -> FastAPI:
    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    lm = AutoModelForCausalLM.from_pretrained(folder).eval()
    app = FastAPI()

    def ids_of(prompt: Any) -> list[int]:
        return list(tokenizer(prompt)["input_ids"] if isinstance(prompt, str) else prompt)

    @torch.no_grad()
    def continued(ids: list[int], most: int, stop: list[str]) -> tuple[str, str]:
        def decoded() -> str:
            return str(tokenizer.decode(new, skip_special_tokens=True))

        new: list[int] = []
        for _ in range(most):
            best = int(lm(input_ids=torch.tensor([ids + new])).logits[0, -1].argmax())
            if best == tokenizer.eos_token_id:
                return decoded(), "stop"
            new.append(best)
            text = decoded()
            found = [text.index(word) for word in stop if word in text]
            if found:
                return text[: min(found)], "stop"
        return decoded(), "length"

    @torch.no_grad()
    def logprobs(ids: list[int], top: int, first: int) -> dict[str, Any]:
        """Log-probabilities of the tokens from `first` on; the first token of a text has none."""
        steps = lm(input_ids=torch.tensor([ids])).logits[0].float().log_softmax(-1)
        values: list[float | None] = []
        tops: list[dict[str, float] | None] = []
        for place in range(first, len(ids)):
            if place == 0:
                values.append(None)
                tops.append(None)
                continue
            row = steps[place - 1]
            best = row.topk(top)
            known = {
                str(tokenizer.decode([int(i)])): float(v)
                for v, i in zip(best.values, best.indices, strict=True)
            }
            known.setdefault(str(tokenizer.decode([ids[place]])), float(row[ids[place]]))
            values.append(float(row[ids[place]]))
            tops.append(known)
        tokens = [tokenizer.decode([i]) for i in ids[first:]]
        return {
            "tokens": tokens,
            "token_logprobs": values,
            "top_logprobs": tops,
            "text_offset": [0] * len(tokens),
        }

    @app.get("/v1/models")
    def models() -> dict[str, Any]:
        entry = {"id": NAME, "object": "model", "created": int(time.time()), "owned_by": "transformers"}
        return {"object": "list", "data": [entry]}

    @app.post("/v1/completions")
    async def completions(request: Request) -> Any:
        body = await request.json()
        name, _, asked = str(body.get("model")).partition("+")
        wrong = asked or fault
        if name != NAME:
            message = f"The model {body.get('model')!r} does not exist"
            return JSONResponse({"error": {"message": message, "type": "invalid_request_error"}}, 404)
        prompts = body["prompt"]
        if isinstance(prompts, str) or (prompts and isinstance(prompts[0], int)):
            prompts = [prompts]
        stop = body.get("stop") or []
        choices = []
        for index, prompt in enumerate(prompts):
            ids = ids_of(prompt)
            ids = [ids[0], *ids] if wrong == "bos" else ids
            text, why = continued(ids, body.get("max_tokens", 16), [stop] if isinstance(stop, str) else stop)
            if wrong == "text":
                text = "elsewhere"
            choice = {"index": index, "text": text, "finish_reason": why, "logprobs": None}
            if body.get("logprobs") is not None:
                with torch.no_grad():
                    after = int(lm(input_ids=torch.tensor([ids])).logits[0, -1].argmax())
                first = 0 if body.get("echo") and wrong != "no-echo" else len(ids)
                choice["logprobs"] = logprobs([*ids, after], body["logprobs"], first)
            if body.get("echo"):
                choice["text"] = f"{tokenizer.decode(ids)}{text}"
            choices.append(choice)
        usage = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
        about = {"id": "cmpl-1", "object": "text_completion", "created": int(time.time()), "model": NAME}
        return {**about, "choices": choices, "usage": usage}

    return app


if __name__ == "__main__":
    folder, port, *more = sys.argv[1:]
    uvicorn.run(build(folder, *more), host="127.0.0.1", port=int(port), log_level="warning")
