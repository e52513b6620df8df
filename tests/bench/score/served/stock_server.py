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

    @torch.no_grad()
    def continued(ids: list[int], most: int, stop: list[str]) -> str:
        new, text = list[int](), ""
        for _ in range(most):
            best = int(lm(input_ids=torch.tensor([ids + new])).logits[0, -1].argmax())
            if best == tokenizer.eos_token_id:
                break
            new.append(best)
            text = str(tokenizer.decode(new, skip_special_tokens=True))
            if found := [text.index(word) for word in stop if word in text]:
                return text[: min(found)]
        return text

    @torch.no_grad()
    def logprobs(ids: list[int], top: int, first: int) -> dict[str, Any]:
        """Log-probabilities of the tokens from `first` on; the first token of a text has none."""
        steps = lm(input_ids=torch.tensor([ids])).logits[0].float().log_softmax(-1)
        values: list[float | None] = [None] if first == 0 else []
        tops: list[dict[str, float] | None] = [None] if first == 0 else []
        for place in range(max(1, first), len(ids)):
            best = steps[place - 1].topk(top)
            pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
            values.append(float(steps[place - 1, ids[place]]))
            tops.append({str(tokenizer.decode([i])): value for i, value in pairs})
        return {"token_logprobs": values, "top_logprobs": tops}

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
        ids, stop = list(body["prompt"]), body.get("stop") or []
        ids = [ids[0], *ids] if wrong == "bos" else ids
        text = "elsewhere" if wrong == "text" else continued(ids, body.get("max_tokens", 16), stop)
        choice = {"index": 0, "text": text, "logprobs": None}
        if body.get("logprobs") is not None:
            with torch.no_grad():
                after = int(lm(input_ids=torch.tensor([ids])).logits[0, -1].argmax())
            first = 0 if body.get("echo") and wrong != "no-echo" else len(ids)
            choice["logprobs"] = logprobs([*ids, after], body["logprobs"], first)
        return {"object": "text_completion", "created": int(time.time()), "model": NAME, "choices": [choice]}

    return app


if __name__ == "__main__":
    folder, port, *more = sys.argv[1:]
    uvicorn.run(build(folder, *more), host="127.0.0.1", port=int(port), log_level="warning")
