"""Conversations to ids, labels and batches."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from moextend import Conversation, MultimodalLM
from moextend.batches import Collator, encode, encode_prompt, piece_ids
from moextend.errors import InputError
from moextend.multimodal import IGNORE, IMAGE

from .conftest import TOKENS, WORDS, picture, toy_tokenizer

ID = {word: i for i, word in enumerate(WORDS)}


def test_an_image_takes_its_tokens_where_the_mark_stands() -> None:
    ids = encode_prompt(partial(piece_ids, toy_tokenizer()), "w1 <image> w2", TOKENS)
    assert ids == [ID["<bos>"], ID["w1"], *[IMAGE] * TOKENS, ID["w2"]]


def test_only_answers_and_their_ends_are_learnt() -> None:
    talk = Conversation((("<image> w1", "w2 w3"), ("w4", "w5")), (picture(1),))
    ids, labels = encode(partial(piece_ids, toy_tokenizer()), 2, talk, 2)
    assert ids == [1, IMAGE, IMAGE, ID["w1"], ID["w2"], ID["w3"], 2, ID["w4"], ID["w5"], 2]
    assert labels == [IGNORE] * 4 + [ID["w2"], ID["w3"], 2, IGNORE, ID["w5"], 2]


def test_marks_and_images_must_agree() -> None:
    with pytest.raises(InputError, match="2 images, but 1 <image> marks"):
        encode(
            partial(piece_ids, toy_tokenizer()),
            2,
            Conversation((("<image> w1", "w2"),), (picture(1), picture(2))),
            2,
        )


def test_padding_changes_nothing(model: MultimodalLM) -> None:
    collate = Collator(model.tokenizer, TOKENS, model.vision)
    short = Conversation((("<image> w1", "w2"),), (picture(90, 10),))
    long = Conversation((("w1 w2 w3 w4 w5 w6 w7 w8 w9 w10 w11", "w2"),))
    with torch.no_grad():
        alone = model(**collate([short]))["logits"]
        beside = model(**collate([long, short]))["logits"]
    assert torch.allclose(alone, beside[2:], atol=1e-5)


def test_logits_are_made_at_labelled_positions_only(model: MultimodalLM) -> None:
    collate = Collator(model.tokenizer, TOKENS, model.vision)
    batch = collate([Conversation((("<image> w1 w2 w3", "w2"),), (picture(90),))])
    out = model(**batch)
    assert out["logits"].shape == (2, len(WORDS))
    labels = batch.pop("labels")
    every = model(**batch)["logits"][:, :-1][labels[:, 1:] != IGNORE]
    assert torch.allclose(out["logits"], every, atol=1e-6)
    assert torch.allclose(out["loss"], torch.nn.functional.cross_entropy(every, torch.tensor([ID["w2"], 2])))


def test_embeddings_of_a_text_are_the_models_own(model: MultimodalLM, ids: torch.Tensor) -> None:
    mask = torch.ones_like(ids)
    with torch.no_grad():
        assert torch.equal(model(ids, mask)["logits"], model.lm(ids, attention_mask=mask).logits)
