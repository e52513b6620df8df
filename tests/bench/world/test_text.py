import json
import random
from pathlib import Path

import pytest
import yaml

from moextend.bench.world import text, words
from moextend.bench.world.questions import Balance
from moextend.bench.world.scenes import Scene, Thing
from moextend.bench.world.text import ITEMS, TEXT_TASKS, text_items
from moextend.bench.world.words import build_tokenizer

FOLDER = Path(__file__).parents[3] / "tasks" / "tiny" / "lm_eval"


def shipped(task: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in (FOLDER / "data" / f"{task}.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("task", TEXT_TASKS)
def test_shipped_items_are_those_of_the_world(task: str) -> None:
    assert shipped(task) == text_items(task)
    assert len(text_items(task)) == ITEMS


@pytest.mark.parametrize("task", TEXT_TASKS)
def test_items_are_well_formed(task: str) -> None:
    known = set(words.vocabulary())
    for item in text_items(task):
        assert len(set(item["choices"])) == len(item["choices"]) > 1
        assert 0 <= item["gold"] < len(item["choices"])
        assert set(" ".join((item["context"], *item["choices"])).split()) <= known


@pytest.mark.parametrize("task", TEXT_TASKS)
def test_lm_eval_file_names_its_data(task: str) -> None:
    config = yaml.safe_load((FOLDER / f"tiny_{task}.yaml").read_text())
    assert config["task"] == f"tiny_{task}"
    assert config["dataset_kwargs"]["data_files"]["test"] == f"{{folder}}/data/{task}.jsonl"


def answers(task: str) -> list[tuple[list[str], str]]:
    return [(item["context"].split(), item["choices"][item["gold"]]) for item in text_items(task)]


def test_arithmetic_is_right() -> None:
    assert all(int(context[0]) + int(context[2]) == int(answer) for context, answer in answers("arithmetic"))


def test_copying_is_right_and_held_out() -> None:
    for context, answer in answers("copying"):
        listed, output = context[1:5], context[6:]
        assert output == listed[: len(output)] and answer == listed[len(output)]
        assert text.text_split(" ".join(listed)) == "test"


def test_agreement_is_right_and_held_out() -> None:
    plurals = {plural for _, plural in words.NOUNS}
    for context, answer in answers("agreement"):
        subject = next(word for word in context[1:] if word not in words.ADJECTIVES)
        assert (subject in plurals) == (answer in {plural for _, plural in words.VERBS})
        assert text.text_split(" ".join((*context, answer))) == "test"


def test_facts_are_right_and_single_valued() -> None:
    known = {fact.stem: fact.answer for fact in text.FACTS}
    assert len(known) == len(text.FACTS) == 72
    assert all(known[" ".join(context)] == answer for context, answer in answers("facts"))


def test_textqa_is_right_and_held_out() -> None:
    for context, answer in answers("textqa"):
        output, question = " ".join(context).split(" . Q ")
        things = []
        for part in output.split(" ; "):
            place, size, color, shape, letter = part.split()
            things.append(Thing(words.CELLS.index(place), color, shape, size, letter))
        scene = Scene(tuple(things))
        assert scene.split() == "test"
        assert answer in {
            q.answer for q in text.text_questions(scene) if q.words == question.removesuffix(" A:")
        }


def test_training_lines_hold_no_held_out_text() -> None:
    rng = random.Random(0)
    balance = Balance(rng)
    lines = [" ".join(word.text for word in text.training_line(rng, balance)) for _ in range(3000)]
    asked = {item["context"].split(" Q ")[0] for item in text_items("textqa")}
    assert not any(line.split(" Q ")[0] in asked for line in lines)
    sentences = {f"{item['context']} {item['choices'][item['gold']]}" for item in text_items("agreement")}
    assert not any(piece in sentences for line in lines for piece in line.split(" . "))


def test_every_answer_ends_with_eos_in_training() -> None:
    rng = random.Random(0)
    line = text.scene_line(rng, Balance(rng))
    output = " ".join(word.text for word in line)
    assert output.count("A:") == output.count(words.EOS) > 0
    assert all(turn.split()[0] == "Q" for turn in output.split(f" {words.EOS}")[1:-1])


def test_tokenizer_goes_round_for_every_word() -> None:
    tokenizer = build_tokenizer()
    output = " ".join(words.vocabulary()[len(words.SPECIAL) :])
    ids = tokenizer(output)["input_ids"]
    assert ids[0] == tokenizer.bos_token_id and tokenizer.unk_token_id not in ids
    assert tokenizer.decode(ids, skip_special_tokens=True) == output
    assert tokenizer.encode(f"A: red {words.EOS}")[-1] == tokenizer.eos_token_id
    assert tokenizer.encode("nonsense")[-1] == tokenizer.unk_token_id


def test_padding_goes_to_the_left() -> None:
    batch = build_tokenizer()(["Q", "Q how many"], padding=True)
    assert batch["attention_mask"][0] == [0, 0, 1, 1]
