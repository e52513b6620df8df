"""What errors say of names and numbers."""

from moextend.errors import UnknownName


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
