"""Prompts of models that were trained elsewhere: what their own processors make of them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image
from transformers import AutoModelForCausalLM, AutoTokenizer

from moextend.bench.score.checkpoint import LoadedCheckpoint
from moextend.data.images import ImageRef
from moextend.data.sounds import AudioRef
from moextend.errors import InputError
from moextend.model.generation import Prompt
from moextend.model.loading import load_whole
from moextend.util import content
from tests.bench.run import elsewhere

TOKENIZER = content.package_folder("registry") / "models" / "tiny" / "lm"
REFUSING = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    "{{ m.content + ' ' }}{% endfor %}"
)


def sound(seconds: float, pitch: float) -> AudioRef:
    with io.BytesIO() as file:
        samples = np.sin(np.arange(int(8000 * seconds)) * 2 * np.pi * pitch / 8000)
        soundfile.write(file, samples, 8000, format="WAV")
        return AudioRef(data=file.getvalue())


def picture(colour: str, width: int = 48) -> ImageRef:
    with io.BytesIO() as file:
        Image.new("RGB", (width, 48), colour).save(file, "PNG")
        return ImageRef(data=file.getvalue())


def test_sounds_go_in_at_the_rate_of_the_processor(tmp_path: Path) -> None:
    elsewhere.qwen_audio(AutoTokenizer.from_pretrained(TOKENIZER), tmp_path)
    lm, processor = load_whole(str(tmp_path))
    model = LoadedCheckpoint(lm, processor, 8)
    questions = ["Q what color", "Q what color is it at the top"]
    prompts = [Prompt(f"<audio> {questions[0]}", (sound(1, 300),)), Prompt("Q what")]
    prompts.append(Prompt(f"<audio> {questions[1]}", (sound(2.3, 900),)))
    found = model.generate(prompts, 5)
    samples: Any = prompts[2].media[0].open().resampled(16000).samples
    parts = [{"type": "audio", "audio": samples}, {"type": "text", "text": questions[1]}]
    asked = processor.apply_chat_template(
        [{"role": "user", "content": parts}], tokenize=True, return_dict=True, return_tensors="pt",
        add_generation_prompt=True,
    )  # fmt: skip
    out = lm.generate(**asked, do_sample=False, max_new_tokens=5)[0, asked["input_ids"].shape[1] :]
    assert found[2] == processor.tokenizer.decode(out, skip_special_tokens=True).strip()
    assert found == [model.generate([prompt], 5)[0] for prompt in prompts] and len(set(found)) > 1
    rated = model.rate(prompts, [["red", "blue one"]] * 3)
    assert np.allclose(rated, [model.rate([one], [["red", "blue one"]])[0] for one in prompts], atol=1e-4)
    with pytest.raises(InputError, match="an image, which the processor of the model does not take"):
        model.generate([Prompt("<image> Q", (picture("red"),))], 5)


def test_without_a_chat_template_the_prompt_is_plain_text_with_the_mark_of_the_processor(
    tmp_path: Path,
) -> None:
    elsewhere.qwen(AutoTokenizer.from_pretrained(TOKENIZER), tmp_path)
    lm, processor = load_whole(str(tmp_path))
    processor.chat_template = processor.tokenizer.chat_template = None
    prompts = [Prompt("<image> Q what color A:", (picture(*one),)) for one in (("red", 48), ("blue", 64))]
    found = LoadedCheckpoint(lm, processor, 8).generate(prompts, 5)
    for prompt, answer in zip(prompts, found, strict=True):
        text = f"{processor.image_token} Q what color A:"
        asked = processor(text=[text], images=[[prompt.media[0].open()]], return_tensors="pt")
        out = lm.generate(**asked, do_sample=False, max_new_tokens=5)[0, asked["input_ids"].shape[1] :]
        assert answer == processor.tokenizer.decode(out, skip_special_tokens=True).strip()


def test_a_template_without_a_system_role_gets_its_text_with_the_question() -> None:
    tokenizer = AutoTokenizer.from_pretrained(TOKENIZER)
    lm = AutoModelForCausalLM.from_pretrained(TOKENIZER)
    tokenizer.chat_template = REFUSING
    found = LoadedCheckpoint(lm, tokenizer, 8).generate([Prompt("Q what color A:", system="anna")], 5)
    ids = tokenizer("anna\n\nQ what color A: ", add_special_tokens=False, return_tensors="pt")["input_ids"]
    out = lm.generate(torch.as_tensor(ids), do_sample=False, max_new_tokens=5)[0, ids.shape[1] :]
    assert found == [str(tokenizer.decode(out, skip_special_tokens=True)).strip()]


def test_a_folder_without_a_processor_says_how_to_name_one(tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).symlink_to(TOKENIZER / name)
    with pytest.raises(InputError, match=r"its processor cannot be loaded.*--processor"):
        load_whole(str(tmp_path))
    assert load_whole(str(tmp_path), processor=str(TOKENIZER))[1].vocab_size == 185


def test_a_prompt_longer_than_the_context_is_refused() -> None:
    lm, tokenizer = load_whole(str(TOKENIZER))
    with pytest.raises(InputError, match="context length is 256"):
        LoadedCheckpoint(lm, tokenizer, 8).generate([Prompt("Q what " * 200)], 5)
