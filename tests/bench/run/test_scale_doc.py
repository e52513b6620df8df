"""The tables of docs/scale.md are what their generator writes."""

from __future__ import annotations

import pytest

from tests.bench.run import scale_doc


@pytest.mark.long
@pytest.mark.parametrize("model", scale_doc.MODELS)
def test_the_part_of_a_model_is_current(model: str) -> None:
    assert scale_doc.section(model) in scale_doc.DOC.read_text(encoding="utf-8")
