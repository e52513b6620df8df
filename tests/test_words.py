"""Tables have the names of the literature."""

from moextend.bench.report.collect import COMPARED, TITLES
from moextend.bench.report.views.forgetting import COLUMNS


def test_tables_have_the_names_of_the_literature() -> None:
    titles = [column.title for column in COLUMNS if not column.wide]
    compared = [TITLES[metric] for metric in COMPARED]
    assert titles == ["method", "task id", *compared, "params", "MB", "TFLOP"]
    assert compared == ["LA", "ACC", "BWT", "FM", "FWT", "Δ text"]
