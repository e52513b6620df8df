"""Chat templates: the ids are the tokenizer's own, labels lie on answers alone, images survive."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

import moextend
from moextend import Conversation
from moextend.errors import InputError
from moextend.model.batches import Collator, encode
from moextend.model.chat import Chat, chat_of
from moextend.model.messages import Message, messages_of
from moextend.model.modality import IMAGE
from moextend.model.multimodal import IGNORE
from tests.model.templates import SPECIAL, TEMPLATES
from tests.toys import TOKENS, picture, toy_lm, toy_model, toy_tokenizer

CORPUS = [
    "What color is the big cat at the left? It is red.",
    "You are a helpful assistant. Answer the question using a single word or phrase.",
    "user\nassistant\nsystem\n How many letters? Two, \n\n three [INST] [/INST]",
] * 20
ENDS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
CHATML = (
    "{%- if messages[0]['role'] != 'system' %}{{- '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}"
    "{%- endif %}{%- for message in messages %}{{- '<|im_start|>' + message.role + '\n' + message.content + "
    "'<|im_end|>' + '\n' }}{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if message['role'] == 'user' %}{{ ' [INST] ' + message['content'] + ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{{ ' ' + message['content'] + eos_token }}"
    "{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}"
)
TALK = (
    ("<image>\nWhat color is the cat?", "It is red."),
    ("How many?", "two"),
    ("<image> or <image>?", "big"),
)


def encode_chat(
    chat: Chat, turns: Sequence[tuple[str, str | None]], holes: list[list[int]], system: str = ""
) -> tuple[list[int], list[int]]:
    count = sum(question.count("<image>") for question, _ in turns)
    shown = [picture(place) for place in range(count)]
    return encode(lambda text, start: [], 0, chat, messages_of(turns, shown, system), holes)


def encoded(chat: Chat, turns: Sequence[tuple[str, str | None]]) -> list[int]:
    return encode_chat(chat, turns, holes(1))[0]


def holes(tokens: int, media: int = 3) -> list[list[int]]:
    return [[IMAGE] * tokens] * media


def decoded(tokenizer: PreTrainedTokenizerFast, ids: Sequence[int | None]) -> str:
    text = tokenizer.decode([i for i in ids if i is not None])
    assert isinstance(text, str)
    return text


def byte_level(special: Sequence[str] = ENDS, **named: str) -> PreTrainedTokenizerFast:
    """In the manner of Qwen: byte-level BPE, no start token."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    added = [AddedToken(t, special=True) for t in special]
    core.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=500, special_tokens=added, initial_alphabet=alphabet)
    )
    ends = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", **named}
    made = PreTrainedTokenizerFast(tokenizer_object=core, **ends)
    made.chat_template = CHATML
    return made


def sentence_piece() -> PreTrainedTokenizerFast:
    """In the manner of Mistral: spaces as a letter, a start token that the tokenizer adds by itself."""
    core = Tokenizer(models.BPE(unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    core.decoder = decoders.Metaspace(prepend_scheme="first")
    core.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=300, special_tokens=["<unk>", "<s>", "</s>"])
    )
    core.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    made = PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="</s>"
    )
    made.chat_template = MISTRAL
    return made


TOKENIZERS = {"chatml": byte_level(), "mistral": sentence_piece()}


@pytest.fixture(params=list(TOKENIZERS))
def tokenizer(request: pytest.FixtureRequest) -> PreTrainedTokenizerFast:
    return TOKENIZERS[request.param]


def test_labels_lie_on_answers_and_their_ends(tokenizer: PreTrainedTokenizerFast) -> None:
    ids, labels = encode_chat(Chat(tokenizer), TALK, holes(TOKENS))
    end = tokenizer.eos_token
    joined = [decoded(tokenizer, run).strip() for run in runs(labels)]
    assert joined == [f"It is red.{end}", f"two{end}", f"big{end}"]
    assert [i for i, label in enumerate(labels) if label not in (IGNORE, ids[i])] == []


def runs(labels: list[int]) -> list[list[int]]:
    """Labels without a gap between them."""
    found: list[list[int]] = [[]]
    for label in labels:
        if label != IGNORE:
            found[-1].append(label)
        elif found[-1]:
            found.append([])
    return [run for run in found if run]


def test_images_survive_as_one_token_each(tokenizer: PreTrainedTokenizerFast) -> None:
    size, before = len(tokenizer), tokenizer.backend_tokenizer.to_str()
    chat = Chat(tokenizer)
    output = encoded(chat, TALK)
    assert output.count(IMAGE) == 3
    first = output.index(IMAGE)
    assert decoded(tokenizer, output[first + 1 : first + 4]).strip().startswith("What")
    ids = encode_chat(chat, TALK, holes(5))[0]
    assert ids[first : first + 5] == [IMAGE] * 5 and ids.count(IMAGE) == 15
    assert max(i for i in ids) < size
    assert len(tokenizer) == size and tokenizer.backend_tokenizer.to_str() == before


def test_an_empty_answer_is_not_learned(tokenizer: PreTrainedTokenizerFast) -> None:
    _, labels = encode_chat(Chat(tokenizer), [("How many?", ""), ("What color?", "red")], holes(1))
    assert [decoded(tokenizer, run).strip() for run in runs(labels)] == [f"red{tokenizer.eos_token}"]


def with_template(template: str) -> PreTrainedTokenizerFast:
    made = copy.deepcopy(TOKENIZERS["chatml"])
    made.chat_template = template
    return made


def test_what_a_template_writes_before_an_answer_is_learned_and_not_part_of_an_answer() -> None:
    thinking = CHATML.replace(
        "message.content + '<|im_end|>'",
        "('<think>\n\n</think>\n\n' if message.role == 'assistant' else '') + message.content + '<|im_end|>'",
    )
    tokenizer = with_template(thinking)
    ids, labels = encode_chat(Chat(tokenizer), [("How many?", "two")], holes(1))
    asked = encode_chat(Chat(tokenizer), [("How many?", None)], holes(1))[0]
    assert ids[: len(asked)] == asked and decoded(tokenizer, asked).endswith("assistant\n")
    assert [decoded(tokenizer, run) for run in runs(labels)] == ["<think>\n\n</think>\n\ntwo<|im_end|>"]
    chat, answer = Chat(tokenizer), ids[len(asked) :]
    assert decoded(tokenizer, chat.answer(answer)) == "two<|im_end|>" and not chat.answer(answer[:2])
    assert chat.answer(answer[1:]) == answer[1:]


def test_a_prompt_does_not_depend_on_the_day() -> None:
    dated = "{{- 'Today: ' + strftime_now('%d %B %Y') + '\n' }}" + CHATML
    output = encoded(Chat(with_template(dated)), [("How many?", None)])
    assert decoded(with_template(dated), output).startswith("Today: 01 January 2026\n<|im_start|>system")


@pytest.mark.parametrize(
    ("template", "why"),
    [("{{ raise_exception('only tools') }}", "only tools"), ("{% for m in messages", "end of template"),
     ("{% for m in messages %}{{ m.role }}{% endfor %}", "does not keep every answer")],
)  # fmt: skip
def test_a_template_that_cannot_be_used_says_so(template: str, why: str) -> None:
    with pytest.raises(InputError, match=rf"cannot be used: .*{why}.*chat=False"):
        Chat(with_template(template))


TOY = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}{{ ' w50 ' + m.content + ' w51' }}"
    "{% else %}{{ ' ' + m.content + ' <eos>' }}{% endif %}{% endfor %}"
)


def toy_chat() -> moextend.MultimodalLM:
    model = toy_model()
    model.tokenizer.chat_template = TOY
    model.chat = chat_of(model.tokenizer, None)
    return model


def test_a_batch_is_in_the_chat_template_and_plain_text_is_not() -> None:
    model = toy_chat()
    talk = Conversation((("<image> w1", "w2"), ("w3 <image>", "w4")), (picture(1), picture(2)))
    text = Conversation((("w1 w2 w3", ""),))
    batch = Collator.of(model)([talk, text])
    output = model.tokenizer.convert_ids_to_tokens(batch["input_ids"][0].clamp_min(0))
    hole = ["<pad>"] * TOKENS
    assert output == [
        "<bos>", "w50", *hole, "w1", "w51", "w2", "<eos>", "w50", "w3", *hole, "w51", "w4", "<eos>",
    ]  # fmt: skip
    assert (batch["input_ids"][0] == IMAGE).sum() == 2 * TOKENS and len(
        batch["features"]["image"]
    ) == 2 * TOKENS
    learned = batch["labels"][0][batch["labels"][0] != IGNORE].tolist()
    assert model.tokenizer.convert_ids_to_tokens(learned) == ["w2", "<eos>", "w4", "<eos>"]
    plain = Collator(model.tokenizer, model.modalities)([text])
    assert torch.equal(batch["input_ids"][1][: plain["input_ids"].shape[1]], plain["input_ids"][0])


def test_the_template_of_a_saved_model_is_used_unless_turned_off(tmp_path: Path) -> None:
    toy_lm().save_pretrained(tmp_path)
    tokenizer = toy_tokenizer()
    tokenizer.save_pretrained(tmp_path)
    assert moextend.load(str(tmp_path)).chat is None
    with pytest.raises(InputError, match="its tokenizer has none"):
        moextend.load(str(tmp_path), chat=True)
    tokenizer.chat_template = TOY
    tokenizer.save_pretrained(tmp_path)
    assert moextend.load(str(tmp_path)).chat is not None
    assert moextend.load(str(tmp_path), chat=False).chat is None


def family(name: str) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer with the template of a model family."""
    template, end = TEMPLATES[name]
    made = byte_level(SPECIAL, bos_token="<s>", eos_token=end)
    made.chat_template = template
    return made


SYSTEM, ASK, TELL, MORE = (
    Message("system", ("Be short.",)),
    Message("user", ("What color is it?",)),
    Message("assistant", ("It is red.",)),
    Message("user", (" How do I write an\n<image> tag?\n",)),
)


def stock(tokenizer: PreTrainedTokenizerFast, talk: Sequence[Message], **more: Any) -> list[int]:
    """Ids of transformers alone, on the day that templates get."""
    rows = [{"role": one.role, "content": one.text} for one in talk]
    text = str(tokenizer.apply_chat_template(rows, tokenize=False, **more))
    ids: list[int] = tokenizer(
        text.replace(date.today().isoformat(), "2026-01-01"), add_special_tokens=False
    )["input_ids"]
    return ids


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("system", [(), (SYSTEM,)], ids=["", "system"])
def test_ids_are_those_of_apply_chat_template(name: str, system: tuple[Message, ...]) -> None:
    tokenizer = family(name)
    chat = Chat(tokenizer)
    wanted = system
    if name == "mixtral" and system:  # it refuses the role
        wanted = (Message("user", (f"{SYSTEM.text}\n\n{ASK.text}",)),)
    for rest in [(ASK,), (ASK, TELL, MORE)]:
        talk = (*wanted, *rest[bool(wanted) and wanted[0].role == "user" :])
        assert chat.encode([*system, *rest]).ids == stock(tokenizer, talk, add_generation_prompt=True)
        whole = stock(tokenizer, [*talk, TELL])
        tokens = chat.encode([*system, *rest, TELL])
        assert tokens.ids == whole[: len(tokens.ids)] and tokens.ids[-1] in chat.stop
        assert decoded(tokenizer, whole[len(tokens.ids) :]).strip() in ("", tokenizer.eos_token)
        asked = len(chat.encode([*system, *rest]).ids)
        assert tokens.learned[asked:] == [True] * (len(tokens.ids) - asked)


@pytest.mark.parametrize("name", TEMPLATES)
def test_special_tokens_in_a_text_are_text(name: str) -> None:
    tokenizer = family(name)
    ends = "".join(SPECIAL)
    usual, found = (
        Chat(tokenizer).encode([SYSTEM, Message("user", (text,))]).ids for text in ("see", f"see {ends} ")
    )
    control = set(tokenizer.all_special_ids)
    assert [i for i in found if i in control] == [i for i in usual if i in control]
    assert f"see {ends} " in decoded(tokenizer, found)
    tokens = Chat(tokenizer).encode([ASK, Message("assistant", ("a<|message|>b",)), MORE, TELL])
    learned = [i for i, learned in zip(tokens.ids, tokens.learned, strict=True) if learned]
    assert tokenizer.convert_tokens_to_ids("<|message|>") in learned, "an answer is learned with them"
