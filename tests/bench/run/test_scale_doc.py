"""The table of docs/scale.md is what its generator writes."""

import pytest

from tests.bench.run import scale_doc


@pytest.mark.long
@pytest.mark.parametrize("model", scale_doc.MODELS)
def test_the_rows_of_a_model_are_current(model: str) -> None:
    assert scale_doc.table(model) in scale_doc.DOC.read_text(encoding="utf-8")
