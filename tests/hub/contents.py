"""What the hub in tests serves: a sharded model, a data set of visual questions, and one of lm-eval's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
from datasets.info import DatasetInfosDict
from datasets.utils.metadata import MetadataConfigs
from huggingface_hub import DatasetCard, DatasetCardData
from pyarrow import parquet

from tests.bench.data import hub_rows

CHAT = (
    "{% for message in messages %}<|{{ message['role'] }}|>\n{{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
SPECIAL = ["<|endoftext|>", "<|padding|>", "<|user|>", "<|assistant|>", "<|system|>"]
VQA = "lmms-lab-encoder/textvqa"
ARC = "allenai/ai2_arc"


def texts() -> list[str]:
    """Texts for training the tokenizer."""
    rows = hub_rows.fixtures()[VQA, None]["rows"]
    asked = [row["question"] for row in rows] + [answer for row in rows for answer in row["answers"]]
    return [*asked, "Answer the question using a single word or phrase.", "Which of these is a planet?"] * 4


def tokenizer() -> Any:
    """A byte-level BPE tokenizer, trained here, with a chat template; as OLMoE's, of the GPT-NeoX kind."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=500, special_tokens=SPECIAL, initial_alphabet=alphabet)
    made.train_from_iterator(texts(), trainer)
    found = PreTrainedTokenizerFast(tokenizer_object=made, eos_token=SPECIAL[0], pad_token=SPECIAL[1])
    found.chat_template = CHAT
    return found


def olmoe(folder: Path, *, hidden: int = 32, shard: str = "60KB", seed: int = 0) -> Path:
    """A random OLMoE in bfloat16, in several shards with an index, as transformers saves it."""
    import torch
    from transformers import OlmoeConfig, OlmoeForCausalLM

    words = tokenizer()
    torch.manual_seed(seed)
    config = OlmoeConfig(
        vocab_size=512, hidden_size=hidden, intermediate_size=hidden, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, num_experts=8, num_experts_per_tok=2, max_position_embeddings=2048,
        bos_token_id=None, eos_token_id=words.eos_token_id, pad_token_id=words.pad_token_id,
    )  # fmt: skip
    model: Any = OlmoeForCausalLM(config)
    model.to(torch.bfloat16).save_pretrained(folder, max_shard_size=shard)
    words.save_pretrained(folder)
    (folder / "README.md").write_text(
        "---\nlicense: apache-2.0\nlibrary_name: transformers\n---\nA small OLMoE.\n"
    )
    assert len(list(folder.glob("model-*.safetensors"))) >= 3, sorted(folder.iterdir())
    return folder


def visual_questions(folder: Path, count: int = 20) -> Path:
    """TextVQA's columns and types with other rows, one parquet file a split, and the card that `push_to_hub` makes."""
    fixture = hub_rows.fixtures()[VQA, None]
    for split in ("train", "validation"):
        rows = [
            {**row, "question_id": 100 * turn + place, "image_id": f"{split}{turn}-{place}"}
            for turn in range(count // 5)
            for place, row in enumerate(fixture["rows"])
        ]
        path = folder / "data" / f"{split}-00000-of-00001.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        hub_rows.parquet({**fixture, "rows": rows}, path)
    return card(folder, {"default": "data/{split}-*"}, ("train", "validation"))


def science_questions(folder: Path, count: int = 8) -> Path:
    """ARC's columns and types, one folder a config."""
    features = datasets.Features(
        {
            "id": datasets.Value("string"),
            "question": datasets.Value("string"),
            "choices": {
                "text": datasets.List(datasets.Value("string")),
                "label": datasets.List(datasets.Value("string")),
            },
            "answerKey": datasets.Value("string"),
        }
    )
    for config in ("ARC-Challenge", "ARC-Easy"):
        for split in ("train", "test", "validation"):
            rows = [_science(place) for place in range(count)]
            path = folder / config / f"{split}-00000-of-00001.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            datasets.Dataset.from_list(rows, features=features).to_parquet(path)
    configs = {name: f"{name}/{{split}}-*" for name in ("ARC-Challenge", "ARC-Easy")}
    return card(folder, configs, ("train", "test", "validation"))


def _science(place: int) -> dict[str, Any]:
    bodies = ["the Moon", "Mars", "the Sun", "a comet"]
    turned = bodies[place % 4 :] + bodies[: place % 4]
    question = f"Which of these is a planet, asked for the {place + 1}. time?"
    key = "ABCD"[turned.index("Mars")]
    return {
        "id": f"Mercury_{place}",
        "question": question,
        "choices": {"text": turned, "label": list("ABCD")},
        "answerKey": key,
    }


def card(folder: Path, configs: dict[str, str], splits: tuple[str, ...]) -> Path:
    """Writes README.md with `dataset_info` and `configs`, as `push_to_hub` does; `configs`: name -> its files."""
    data, infos, places = DatasetCardData(license="cc-by-4.0"), DatasetInfosDict(), MetadataConfigs()
    for config, pattern in configs.items():
        sizes = datasets.SplitDict()
        for split in splits:
            (path,) = folder.glob(pattern.format(split=split))
            schema, rows = parquet.read_schema(path), parquet.read_table(path)
            sizes[split] = datasets.SplitInfo(split, num_bytes=rows.nbytes, num_examples=len(rows))
        features = datasets.Features.from_arrow_schema(schema)
        infos[config] = datasets.DatasetInfo(features=features, splits=sizes, config_name=config)
        files = [{"split": split, "path": pattern.format(split=split)} for split in splits]
        places[config] = {"data_files": files}
    infos.to_dataset_card_data(data)
    places.to_dataset_card_data(data)
    DatasetCard(f"---\n{data}\n---\n").save(folder / "README.md")
    return folder
