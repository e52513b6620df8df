"""Tokenizer of the world: one token per word, `<bos>` first."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from moextend.bench.world.words import BOS, EOS, PAD, UNK, vocabulary

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

LONGEST = 256
"""Maximum number of positions of the language model."""


def build_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer that splits at white space, adds `<bos>` first, and decodes to words and spaces."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    ids = {word: i for i, word in enumerate(vocabulary())}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token=UNK))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, ids[BOS])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        unk_token=UNK,
        padding_side="left",
        model_max_length=LONGEST,
        clean_up_tokenization_spaces=False,
    )


def save_tokenizer(folder: Path) -> None:
    """Writes the tokenizer's files into `folder`."""
    build_tokenizer().save_pretrained(folder)
