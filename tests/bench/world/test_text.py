import json
import random
from pathlib import Path

import pytest
import yaml

from moextend.bench.world import text, words
from moextend.bench.world.questions import Balance
from moextend.bench.world.text import ITEMS, TEXT_TASKS, text_items
from moextend.bench.world.words import build_tokenizer
from moextend.util import content

FOLDER = Path(__file__).parents[3] / "tasks" / "tiny" / "lm_eval"


def shipped(task: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in (FOLDER / "data" / f"{task}.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("task", TEXT_TASKS)
def test_shipped_items_are_those_of_the_world(task: str) -> None:
    assert shipped(task) == text_items(task)
    assert len(text_items(task)) == ITEMS


@pytest.mark.parametrize("task", TEXT_TASKS)
def test_lm_eval_file_names_its_data(task: str) -> None:
    config = yaml.safe_load((FOLDER / f"tiny_{task}.yaml").read_text())
    assert config["task"] == f"tiny_{task}"
    assert config["dataset_kwargs"]["data_files"]["test"] == f"{{folder}}/data/{task}.jsonl"


def test_the_generic_text_is_training_text_of_another_seed() -> None:
    rng = random.Random(1000)
    balance = Balance(rng)
    lines = [" ".join(word.text for word in text.training_line(rng, balance)) for _ in range(400)]
    path = content.package_folder("registry") / "tiny-generic.txt"
    assert path.read_text(encoding="utf-8").splitlines() == lines


def test_training_lines_hold_no_held_out_text() -> None:
    rng = random.Random(0)
    balance = Balance(rng)
    lines = [" ".join(word.text for word in text.training_line(rng, balance)) for _ in range(1000)]
    asked = {item["context"].split(" Q ")[0] for item in text_items("textqa")}
    assert not any(line.split(" Q ")[0] in asked for line in lines)
    sentences = {f"{item['context']} {item['choices'][item['gold']]}" for item in text_items("agreement")}
    assert not any(piece in sentences for line in lines for piece in line.split(" . "))


def test_tokenizer_goes_round_for_every_word() -> None:
    tokenizer = build_tokenizer()
    output = " ".join(words.vocabulary()[len(words.SPECIAL) :])
    ids = tokenizer(output)["input_ids"]
    assert ids[0] == tokenizer.bos_token_id and tokenizer.unk_token_id not in ids
    assert tokenizer.decode(ids, skip_special_tokens=True) == output
    assert tokenizer.encode(f"A: red {words.EOS}")[-1] == tokenizer.eos_token_id
    assert tokenizer.encode("nonsense")[-1] == tokenizer.unk_token_id
    assert tokenizer(["Q", "Q how many"], padding=True)["attention_mask"][0] == [0, 0, 1, 1]
