"""What errors say of names and numbers."""

import pytest

from moextend.errors import UnknownName, counted, listed


@pytest.mark.parametrize(
    ("number", "words"), [(0, "0 runs"), (1, "1 run"), (2, "2 runs"), (1200, "1,200 runs")]
)
def test_a_number_with_its_noun(number: int, words: str) -> None:
    assert counted(number, "run") == words


def test_names_in_a_sentence() -> None:
    assert [listed(list(names)) for names in ("a", "ab", "abc")] == ["a", "a and b", "a, b and c"]


def test_of_few_names_all_are_listed() -> None:
    assert UnknownName("scorer", "exact@2", ["vqa@1", "exact@1"]).hint == (
        "Did you mean 'exact@1'? Available: exact@1, vqa@1."
    )


def test_of_many_names_the_near_ones_and_the_command_that_lists_all() -> None:
    known = [f"scorer{n}@1" for n in range(88)] + ["exact@1"]
    hint = str(UnknownName("scorer", "exakt@1", known).hint)
    assert hint.startswith("Did you mean 'exact@1'?") and hint.endswith("All 89: moextend bench list.")
    assert len(hint) < 200
    assert UnknownName("scorer", "qqq", known).hint == "Check the spelling. All 89: moextend bench list."


def test_a_method_is_found_without_its_settings() -> None:
    known = ["ewc:strength=10", "lora:rank=12,alpha=3", "moextend:scope=all", "moextend:scope=own"]
    assert str(UnknownName("method", "lroa", known).hint).startswith("Did you mean 'lora:rank=12,alpha=3'?")


def test_of_many_names_that_no_command_lists_all_are_listed() -> None:
    hint = str(UnknownName("column", "b", [f"a{n}" for n in range(89)]).hint)
    assert hint.startswith("Available: a0, a1, ") and hint.count(",") == 88
    assert UnknownName("column", "zz", [f"a{n}" for n in range(300)]).hint == "Check the spelling."


def test_a_known_name_is_listed_once() -> None:
    assert UnknownName("column", "x", ["b", "a", "b"]).hint == "Available: a, b."
