"""A random model over a handful of words, and a folder of lm-eval tasks on local data."""

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from moextend.bench.score.evaluate import score_cell
from moextend.bench.score.records import Cell
from moextend.bench.sequence import Scoring
from moextend.bench.task import TaskSpec, TextTask
from tests.bench.score.lm_tasks import generation

WORDS = ["red", "blue", "green", "one", "two", "three", "is", "the", "sky", "car", "Q", "A:", "what", "."]

CHOICE = """
task: {name}
dataset_path: json
dataset_kwargs:
  data_files: {{train: "{{folder}}/data/{data}.jsonl", test: "{{folder}}/data/{data}.jsonl"}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{context}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: gold
metric_list:
  - {{metric: acc, aggregation: mean, higher_is_better: true}}
  - {{metric: acc_norm, aggregation: mean, higher_is_better: true}}
metadata: {{version: 1}}
"""
FEWSHOT = "fewshot_split: train\nnum_fewshot: 2\n"
GENERATE = generation("says", "data/one.jsonl", "{{context}}", "{{choices[gold]}}", 3)
GROUP = """
group: both
task: [first, second]
aggregate_metric_list:
  - {metric: acc, aggregation: mean, weight_by_size: true}
metadata: {version: 1}
"""

MakeTask = Callable[..., TaskSpec]


def items(n: int, seed: str) -> Iterator[dict[str, object]]:
    rng = random.Random(seed)
    for _ in range(n):
        choices = rng.sample(WORDS[:6], 3)
        choices[0] += " car"
        yield {
            "context": " ".join(rng.sample(WORDS, rng.randint(2, 6))),
            "choices": choices,
            "gold": rng.randrange(3),
        }


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """A workspace with a folder `lm` of lm-eval tasks."""
    folder = tmp_path / "work" / "tasks" / "lm"
    (folder / "data").mkdir(parents=True)
    for name, n in (("one", 20), ("two", 12)):
        lines = [json.dumps(item) + "\n" for item in items(n, name)]
        (folder / "data" / f"{name}.jsonl").write_text("".join(lines))
    for name, data, more in (("first", "one", ""), ("second", "two", ""), ("shots", "one", FEWSHOT)):
        (folder / f"{name}.yaml").write_text(CHOICE.format(name=name, data=data) + more)
    (folder / "says.yaml").write_text(GENERATE)
    (folder / "both.yaml").write_text(GROUP)
    return tmp_path / "work"


@pytest.fixture
def make_task(workspace: Path) -> MakeTask:
    def make(name: str, **changes: Any) -> TaskSpec:
        text = TextTask(task=name, path="lm", **changes)
        path = workspace / "tasks" / f"t-{name}.yaml"
        return TaskSpec(task=f"t-{name}", version=1, kind="text", lm_eval=text, path=path)

    return make


def random_model() -> Any:
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import MixtralConfig, MixtralForCausalLM, PreTrainedTokenizerFast

    vocabulary = {word: i for i, word in enumerate(["<pad>", "<s>", "</s>", "<unk>", *WORDS])}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    torch.manual_seed(0)
    config = MixtralConfig(
        vocab_size=len(vocabulary), hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, num_local_experts=2, num_experts_per_tok=1, max_position_embeddings=64,
        pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    lm = MixtralForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in lm.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.3)
    return SimpleNamespace(lm=lm, tokenizer=tokenizer, device=lm.device, choose=None)


@pytest.fixture
def model() -> Any:
    return random_model()


@pytest.fixture
def score(workspace: Path, model: Any, tmp_path: Path) -> Callable[..., Cell]:
    def call(task: TaskSpec, weights: str = "w", used: Any = None, **changes: Any) -> Cell:
        return score_cell(
            used or model, task, weights=weights, folder=tmp_path / "predictions", workspace=workspace,
            scoring=changes.pop("scoring", Scoring(batch_size=8)), **changes,
        )  # fmt: skip

    return call
