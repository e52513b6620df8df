"""docs/scale.md is what its generator writes."""

from __future__ import annotations

import pytest

from tests.bench.run import scale_doc

PAGE = scale_doc.DOC.read_text(encoding="utf-8")


def test_the_page_begins_as_generated_and_names_every_model() -> None:
    assert PAGE.startswith(scale_doc.head().rstrip() + "\n\n" + scale_doc.commands())
    assert [line[3:] for line in PAGE.splitlines() if line.startswith("## ")][1:] == list(scale_doc.MODELS)
    assert "No number on this page was measured on a GPU." in " ".join(PAGE.split())


@pytest.mark.long
@pytest.mark.parametrize("model", scale_doc.MODELS)
def test_the_part_of_a_model_is_current(model: str) -> None:
    assert scale_doc.section(model) in PAGE
