"""Conversations to ids, labels and batches."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from moextend import Conversation, MultimodalLM
from moextend.errors import InputError
from moextend.model.batches import Collator, encode, piece_ids
from moextend.model.messages import messages_of, of_conversation
from moextend.model.modality import IMAGE
from moextend.model.multimodal import IGNORE
from tests.toys import TOKENS, WORDS, features_of, picture, toy_tokenizer

ID = {word: i for i, word in enumerate(WORDS)}


def test_an_image_takes_its_tokens_where_the_mark_stands() -> None:
    asked = messages_of([("w1 <image> w2", None)], [picture(1)])
    ids, _ = encode(partial(piece_ids, toy_tokenizer()), 2, None, asked, [[IMAGE] * TOKENS])
    assert ids == [ID["<bos>"], ID["w1"], *[IMAGE] * TOKENS, ID["w2"]]


def test_only_answers_and_their_ends_are_learned() -> None:
    talk = Conversation((("<image> w1", "w2 w3"), ("w4", "w5")), (picture(1),))
    ids, labels = encode(partial(piece_ids, toy_tokenizer()), 2, None, of_conversation(talk), [[IMAGE] * 2])
    assert ids == [1, IMAGE, IMAGE, ID["w1"], ID["w2"], ID["w3"], 2, ID["w4"], ID["w5"], 2]
    assert labels == [IGNORE] * 4 + [ID["w2"], ID["w3"], 2, IGNORE, ID["w5"], 2]


def test_plain_text_is_learned_from_its_first_word_to_its_end() -> None:
    pieces: list[tuple[str, bool]] = []

    def ids_of(text: str, start: bool) -> list[int]:
        pieces.append((text, start))
        return piece_ids(toy_tokenizer(), text, start)

    ids, labels = encode(ids_of, 2, None, of_conversation(Conversation((("", "w1 w2"),))), [])
    assert ids == [1, ID["w1"], ID["w2"], 2] and labels == [IGNORE, ID["w1"], ID["w2"], 2]
    assert pieces[-1][0] == "w1 w2", "as in the text: no space before its first word"


def test_images_keep_their_order_over_turns_and_rows(model: MultimodalLM) -> None:
    images = [picture(40 * i, 250 - 40 * i) for i in range(5)]
    talks = [
        Conversation((("w1 <image> w2 <image>", "w3"), ("w4 <image>", "w5")), (*images[:2], images[4])),
        Conversation((("w6", "w7"),)),
        Conversation((("w1", "w2"), ("<image> w3 <image>", "w4")), tuple(images[2:4])),
    ]
    batch = Collator.of(model)(talks)
    order = [images[i] for i in (0, 1, 4, 2, 3)]
    assert torch.equal(batch["features"]["image"], features_of(model, order).flatten(0, 1))
    assert (batch["input_ids"] == IMAGE).sum(1).tolist() == [3 * TOKENS, 0, 2 * TOKENS]
    embedded = model.embed(batch["input_ids"], batch["features"])
    visual = model.modalities["image"].projector(features_of(model, order)).flatten(0, 1)
    assert torch.equal(embedded[batch["input_ids"] == IMAGE], visual)


def test_what_the_context_cannot_hold_goes_by_whole_turns(model: MultimodalLM) -> None:
    turns = (("<image> w1", "w2"), ("<image> w3", "w4"), ("w5", "w6"))
    talk = Conversation(turns, (picture(1), picture(200)))
    whole = Collator.of(model)([talk])
    parts = [Conversation(turns[:n], talk.media[:n]) for n in (1, 2)]
    lengths = [Collator.of(model).ids([part])["input_ids"].shape[1] for part in parts]
    for context in range(lengths[0], whole["input_ids"].shape[1]):
        collate = Collator(model.tokenizer, model.modalities, context=context)
        with pytest.warns(UserWarning, match=f"more than {context} tokens lose their last turns"):
            batch = collate([talk])
        kept = 1 if context < lengths[1] else 2
        assert batch["input_ids"].shape[1] == lengths[kept - 1] <= context
        assert torch.equal(batch["input_ids"], whole["input_ids"][:, : lengths[kept - 1]])
        assert torch.equal(batch["features"]["image"], features_of(model, talk.media[:kept]).flatten(0, 1))
    fits = Collator(model.tokenizer, model.modalities, context=whole["input_ids"].shape[1])
    assert torch.equal(fits([talk])["input_ids"], whole["input_ids"])


def test_a_first_turn_that_is_too_long_is_refused(model: MultimodalLM) -> None:
    assert model.context == 128
    talk = Conversation((("<image>" * 40 + " w1", "w2"),), (picture(1),) * 40)
    with pytest.raises(InputError, match=r"takes 164 tokens \(160 of 40 images\).*context length is 128"):
        Collator.of(model)([talk])
    assert Collator.of(model)([Conversation((("w1 " * 200, ""),))])["input_ids"].shape == (1, 128)
