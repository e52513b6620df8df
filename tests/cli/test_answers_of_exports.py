"""An exported checkpoint answers in plain transformers as it does in moextend."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

import moextend
from moextend import Prompt
from tests.cli.conftest import Cli
from tests.model.test_chat import family
from tests.toys import toy_lm

PLAIN = """
import json, sys
from transformers import AutoModelForCausalLM, AutoTokenizer
folder, talks = sys.argv[1], json.load(sys.stdin)
tokenizer, lm = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
answers = []
for talk in talks:
    ids = tokenizer.apply_chat_template(talk, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    made = lm.generate(**ids, max_new_tokens=8, do_sample=False)[0, ids["input_ids"].shape[1] :]
    answers.append(tokenizer.decode(made, skip_special_tokens=True).strip())
assert "moextend" not in sys.modules
json.dump(answers, sys.stdout)
"""


@pytest.mark.slow  # a process that imports transformers and answers 60 prompts
@pytest.mark.parametrize("name", ["qwen2.5", pytest.param("mixtral", marks=pytest.mark.long)])
def test_a_stock_export_answers_as_moextend_does(cli: Cli, name: str) -> None:
    drawn, words = random.Random(0), ["what", "color", "is", "the", "cat", "left", "how", "many", "letters"]
    talks = []
    for place in range(60):
        system = ["", "Be short.", "You are a cat.\nAnswer in one word."][place % 3]
        answer = {"role": "assistant", "content": ["red", "It is red.", "two"][place % 3]}
        asked = [{"role": "user", "content": " ".join(drawn.choices(words, k=4))} for _ in range(2)]
        before = [asked[0], answer] if place % 4 == 0 else []
        opening = [{"role": "system", "content": system}] if system else []
        talks.append([*opening, *before, asked[1], answer])
    tokenizer, lm = family(name), toy_lm()
    lm.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    lm.config.max_position_embeddings = 1024
    lm.save_pretrained("base")
    tokenizer.save_pretrained("base")
    Path("talks.jsonl").write_text("".join(json.dumps({"messages": talk}) + "\n" for talk in talks))
    Path("stock.yaml").write_text("recipe: {routing: paper, calibration: false, layers: all, scope: all}")
    learn = ["--data", "talks.jsonl", "--name", "x", "--out", "x", "--config", "stock.yaml"]
    done = cli("extend", "base", *learn, "--steps", 30, "--batch-size", 8, "--learning-rate", 2e-2)
    assert done.code == 0, done.err
    done = cli("export", "x", "--base", "base", "--as", "stock", "--out", "stock")
    assert done.code == 0, done.err
    asked_only = [talk[:-1] for talk in talks]
    answered = subprocess.run(
        [sys.executable, "-c", PLAIN, "stock"], input=json.dumps(asked_only), capture_output=True, text=True,
        check=True, env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
    )  # fmt: skip
    model = moextend.load("base")
    moextend.load_extension(model, "x")
    prompts = []
    for talk in asked_only:
        texts = [one["content"] for one in talk]
        system = texts.pop(0) if talk[0]["role"] == "system" else ""
        turns = tuple(zip(texts[:-1:2], texts[1::2], strict=True))
        prompts.append(Prompt(texts[-1], before=turns, system=system))
    plain = json.loads(answered.stdout)
    assert moextend.generate(model, prompts, max_new_tokens=8, batch_size=7) == plain
    assert len(set(plain)) > 3
    for place in (3, 6):  # without a system message or earlier turns
        done = cli("generate", "base", "-e", "x", "--prompt", prompts[place].text, "--max-new-tokens", 8)
        assert done.code == 0 and done.out.strip() == plain[place]
