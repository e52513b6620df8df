"""Unknown words of a base's tokenizer."""

import pytest

from moextend.bench.data.check import unknown_words


def test_words_that_the_tokenizer_does_not_know_are_counted() -> None:
    assert unknown_words(["how many", "how zyxwv"], "tiny") == {"zyxwv": 1}


@pytest.mark.parametrize("base", ["/nonexistent", "nowhere/such-a-model", "nowhere"])
def test_a_base_that_is_not_here_has_none(base: str) -> None:
    assert not unknown_words(["how zyxwv"], base)
