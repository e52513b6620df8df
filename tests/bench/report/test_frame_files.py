"""Files of the frame of results."""

import csv
import io
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from pandas import DataFrame

from moextend.bench.report.frame import FORMATS, NUMBERS, check_format, write
from moextend.errors import InputError, UnknownName

READERS: dict[str, Callable[[Path], DataFrame]] = {"csv": pd.read_csv, "parquet": pd.read_parquet}


@pytest.mark.parametrize("form", FORMATS)
def test_a_file_holds_the_frame(results: DataFrame, tmp_path: Path, form: str) -> None:
    path = tmp_path / f"items.{form}"
    check_format(form, path)
    write(results, form, path)
    read = READERS[form](path)
    assert list(read) == list(results)
    for name in results:
        if name in NUMBERS:
            assert read[name].to_numpy() == pytest.approx(results[name].to_numpy(), abs=0, nan_ok=True), name
        else:
            texts = [
                list(each[name].astype(object).where(each[name].notna(), None)) for each in (read, results)
            ]
            assert texts[0] == texts[1], name


def test_answers_of_any_kind_stay_as_they_are(results: DataFrame, tmp_path: Path) -> None:
    hostile = ["=1+1", "<b>", 'a "quoted", one', "two\nlines", "\x1b[31m", "NA", "", "ünï", "\\x"]
    odd = results.head(len(hostile)).assign(answer=pd.Categorical(hostile, categories=hostile))
    write(odd, "parquet", tmp_path / "x.parquet")
    assert pd.read_parquet(tmp_path / "x.parquet")["answer"].tolist() == hostile
    out = io.StringIO()
    write(odd, "csv", out)
    read = [row["answer"] for row in csv.DictReader(io.StringIO(out.getvalue()))]
    assert read == ["'=1+1", "<b>", 'a "quoted", one', "two\nlines", "\\x1b[31m", "NA", "", "ünï", "\\x"]


def test_parquet_needs_a_file() -> None:
    with pytest.raises(InputError, match="cannot be printed"):
        check_format("parquet", None)
    with pytest.raises(UnknownName, match="csv"):
        check_format("cvs", None)
