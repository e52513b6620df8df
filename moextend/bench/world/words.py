"""Vocabulary of the generated world: all words of captions, questions, answers and texts."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


PAD, BOS, EOS, UNK = "<pad>", "<bos>", "<eos>", "<unk>"
SPECIAL = (PAD, BOS, EOS, UNK)

COLORS = ("red", "green", "blue", "yellow", "purple", "cyan")
SHAPES = ("circle", "square", "triangle", "cross")
PLURALS = {"circle": "circles", "square": "squares", "triangle": "triangles", "cross": "crosses"}
SIZES = ("small", "big")
LETTERS = ("A", "C", "E", "H", "K", "L", "T", "X")
ROWS = ("top", "middle", "bottom")
COLUMNS = ("left", "center", "right")
CELLS = tuple(f"{row}-{column}" for row in ROWS for column in COLUMNS)
"""Places, row by row."""
EMPTY = "none"
"""Word for an empty cell on a map."""
NUMBERS = ("zero", "one", "two", "three", "four")
YES_NO = ("yes", "no")

GRAMMAR = (
    *(".", ";", "Q", "A:", "what", "which", "where", "how", "many", "more", "color", "shape", "letter"),
    *("object", "objects", "at", "on", "in", "is", "the", "a", "same", "as", "row", "column", "above"),
    *("bigger", "or", "and", "plus", "equals", "copy", "to"),
)

NAMES = (
    *("anna", "bob", "carl", "dora", "emil", "fay", "gus", "hana", "ivan", "jana", "karl", "lena"),
    *("max", "nina", "otto", "pia", "quin", "rosa", "sven", "tara", "udo", "vera", "will", "xena"),
)
CITIES = ("paris", "rome", "oslo", "lima", "cairo", "delhi", "tokyo", "bern")
JOBS = ("baker", "nurse", "pilot", "judge", "miner", "poet", "cook", "clerk")
PETS = ("dog", "cat", "fish", "bird", "horse", "mouse", "snake", "goat")
RELATIONS = {"city": ("lives", "in"), "job": ("works", "as"), "pet": ("owns", "a")}

NOUNS = (
    ("boy", "boys"),
    ("girl", "girls"),
    ("farmer", "farmers"),
    ("doctor", "doctors"),
    ("teacher", "teachers"),
    ("king", "kings"),
)
"""Singular and plural."""
VERBS = (
    ("runs", "run"),
    ("sleeps", "sleep"),
    ("sings", "sing"),
    ("waits", "wait"),
    ("falls", "fall"),
    ("reads", "read"),
)
"""Singular and plural."""
ADJECTIVES = ("old", "young", "tall", "kind")
PREPOSITIONS = ("near", "behind", "with")
DIGITS = tuple(str(number) for number in range(19))


LONGEST = 256
"""Maximum number of positions of the language model."""


def vocabulary() -> list[str]:
    """Every word once, the special tokens first; the index is the token id."""
    pairs = [word for pair in (*NOUNS, *VERBS, *RELATIONS.values()) for word in pair]
    groups = (SPECIAL, GRAMMAR, COLORS, SHAPES, PLURALS.values(), SIZES, LETTERS, ROWS, COLUMNS, CELLS)
    more = (NUMBERS, YES_NO, (EMPTY,), NAMES, CITIES, JOBS, PETS, pairs, ADJECTIVES, PREPOSITIONS, DIGITS)
    return list(dict.fromkeys(word for group in (*groups, *more) for word in group))


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
