"""Small vision language models of transformers, trained stage after stage by its Trainer: nothing of this package."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    CLIPImageProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2AudioConfig,
    Qwen2AudioForConditionalGeneration,
    Qwen2AudioProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
    Trainer,
    TrainingArguments,
    WhisperFeatureExtractor,
)

TEMPLATE = (
    "{{% for message in messages %}}{{{{ message['role'] + ' ' }}}}"
    "{{% for part in message['content'] %}}"
    "{{% if part['type'] == 'image' %}}{image} {{% else %}}{{{{ part['text'] }}}}{{% endif %}}"
    "{{% endfor %}}{{{{ ' <eos> ' if message['role'] == 'assistant' else ' ' }}}}{{% endfor %}}"
    "{{% if add_generation_prompt %}}assistant{{% endif %}}"
)
"""As that of LLaVA-1.5: the generation prompt ends before the space that the answer follows."""
SMALL: dict[str, Any] = {
    "hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 512, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
Row = tuple[Image.Image, str, str]
"""Image, question, answer."""


def llava(tokenizer: Any, folder: Path) -> None:
    """Saves a random LLaVA (CLIP, Llama) with its processor."""
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    torch.manual_seed(0)
    vision = CLIPVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, image_size=48, patch_size=12,
    )  # fmt: skip
    text = LlamaConfig(vocab_size=len(tokenizer), **SMALL)
    place = tokenizer.convert_tokens_to_ids("<image>")
    config = LlavaConfig(
        vision_config=vision, text_config=text, image_token_index=place, image_seq_length=16, vision_feature_layer=-1,
    )  # fmt: skip
    model = LlavaForConditionalGeneration(config)
    images = CLIPImageProcessor(size={"shortest_edge": 48}, crop_size={"height": 48, "width": 48})
    processor = LlavaProcessor(
        images, tokenizer, patch_size=12, vision_feature_select_strategy="default", num_additional_image_tokens=1,
        chat_template=TEMPLATE.format(image="<image>"),
    )  # fmt: skip
    _save(model, processor, folder)


def qwen(tokenizer: Any, folder: Path) -> None:
    """Saves a random Qwen2.5-VL, whose images have a number of tokens of their own, with its processor."""
    marks = ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
    tokenizer.add_special_tokens({"additional_special_tokens": marks})
    ids = dict(zip(marks, tokenizer.convert_tokens_to_ids(marks), strict=True))
    torch.manual_seed(0)
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tokenizer), **SMALL,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 2, 2]},
        },
        vision_config={
            "depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "patch_size": 8,
            "out_hidden_size": 48, "window_size": 32, "fullatt_block_indexes": [1],
        },
        image_token_id=ids["<|image_pad|>"], video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"], vision_end_token_id=ids["<|vision_end|>"],
    )  # fmt: skip
    model = Qwen2_5_VLForConditionalGeneration(config)
    sizes: dict[str, Any] = {"patch_size": 8, "min_pixels": 16 * 16, "max_pixels": 64 * 64}
    processor = Qwen2_5_VLProcessor(
        Qwen2VLImageProcessor(**sizes), tokenizer, Qwen2VLVideoProcessor(patch_size=8),
        chat_template=TEMPLATE.format(image="<|vision_start|> <|image_pad|> <|vision_end|>"),
    )  # fmt: skip
    _save(model, processor, folder)


def qwen_audio(tokenizer: Any, folder: Path) -> None:
    """Saves a random Qwen2-Audio, which hears and does not see, with its processor."""
    marks = ["<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>"]
    tokenizer.add_special_tokens({"additional_special_tokens": marks})
    torch.manual_seed(0)
    config = Qwen2AudioConfig(
        audio_config={
            "model_type": "qwen2_audio_encoder", "d_model": 32, "encoder_layers": 1, "encoder_attention_heads": 2,
            "encoder_ffn_dim": 64, "num_mel_bins": 80,
        },
        text_config={"model_type": "qwen2", "vocab_size": len(tokenizer), **SMALL},
        audio_token_index=tokenizer.convert_tokens_to_ids(marks[0]),
    )  # fmt: skip
    template = TEMPLATE.replace("'image'", "'audio'").format(image="<|audio_bos|> <|AUDIO|> <|audio_eos|>")
    processor = Qwen2AudioProcessor(WhisperFeatureExtractor(feature_size=80), tokenizer, template)
    _save(Qwen2AudioForConditionalGeneration(config), processor, folder)


def _save(model: Any, processor: Any, folder: Path) -> None:
    model.generation_config.eos_token_id, model.generation_config.pad_token_id = 2, 0
    # As many checkpoints have them: scoring is greedy all the same.
    model.generation_config.do_sample, model.generation_config.temperature = True, 0.7
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def train(start: Path, rows: Sequence[Row], folder: Path, steps: int) -> None:
    """Trains all weights on answers to questions about images, and saves model and processor."""
    model, processor = (
        AutoModelForImageTextToText.from_pretrained(start),
        AutoProcessor.from_pretrained(start),
    )

    def collate(batch: Sequence[dict[str, Any]]) -> dict[str, Any]:
        texts, images = [], []
        for one in batch:
            image, question, answer = one["row"]
            asked = [{"type": "image"}, {"type": "text", "text": question}]
            talk = [
                {"role": "user", "content": asked},
                {"role": "assistant", "content": [{"type": "text", "text": answer}]},
            ]
            texts.append(processor.apply_chat_template(talk, tokenize=False))
            images.append([image])
        made = dict(processor(text=texts, images=images, padding=True, return_tensors="pt"))
        labels = made["input_ids"].clone()
        labels[made["attention_mask"] == 0] = -100
        return {**made, "labels": labels}

    arguments = TrainingArguments(
        output_dir=str(folder / "out"), max_steps=steps, per_device_train_batch_size=8, learning_rate=3e-3,
        report_to="none", save_strategy="no", use_cpu=True, remove_unused_columns=False, seed=0, disable_tqdm=True,
        logging_strategy="no",
    )  # fmt: skip
    data: Any = [{"row": row} for row in rows]
    Trainer(model=model, args=arguments, train_dataset=data, data_collator=collate).train()
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def train_by_trl(start: Path, rows: Sequence[Row], folder: Path, steps: int) -> None:
    """The same by SFTTrainer of trl, which loads the model and renders the conversations itself."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    def message(role: str, *parts: dict[str, str]) -> list[dict[str, Any]]:
        return [{"role": role, "content": list(parts)}]

    data = Dataset.from_list(
        [
            {
                "images": [image],
                "prompt": message("user", {"type": "image"}, {"type": "text", "text": question}),
                "completion": message("assistant", {"type": "text", "text": answer}),
            }
            for image, question, answer in rows
        ]
    )
    arguments = SFTConfig(
        output_dir=str(folder / "out"), max_steps=steps, per_device_train_batch_size=8, learning_rate=3e-3,
        report_to="none", save_strategy="no", use_cpu=True, seed=0, disable_tqdm=True, max_length=None, bf16=False,
        gradient_checkpointing=False,
    )  # fmt: skip
    model, processor = (
        AutoModelForImageTextToText.from_pretrained(start),
        AutoProcessor.from_pretrained(start),
    )
    trainer = SFTTrainer(model=model, args=arguments, train_dataset=data, processing_class=processor)
    trainer.train()
    trainer.save_model(str(folder))
