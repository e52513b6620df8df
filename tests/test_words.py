"""Tables have the names of the literature."""

from moextend.bench.report.views.comparison import CHANGE, METRICS
from moextend.bench.report.views.forgetting import COLUMNS


def test_tables_have_the_names_of_the_literature() -> None:
    titles = [column.title for column in COLUMNS if not column.wide]
    assert titles == ["method", "task id", *METRICS.values(), CHANGE, "params", "MB", "TFLOP"]
    assert [*METRICS.values(), CHANGE] == ["LA", "ACC", "BWT", "FM", "FWT", "Δ text"]
