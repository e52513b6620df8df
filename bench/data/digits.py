"""Writes the handwritten digits of scikit-learn: ``python -m moextend.bench.data.digits data/real/digits``."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Annotated, Any

import typer

from moextend.errors import InputError
from moextend.util import files
from moextend.util.entry import run_app

NAME = "digits.parquet"
DEEPEST = 16
"""Ink of a full point in scikit-learn's images."""

app = typer.Typer(help=__doc__, add_completion=False)


@app.command()
def write(
    folder: Annotated[Path, typer.Argument(help="Folder of the table, made if it is missing.")],
) -> None:
    """Write 1,797 images of 8 x 8 points (white on black, PNG) with their digits, in the order of scikit-learn.

    The images are a copy of the test set of UCI's "Optical Recognition of Handwritten Digits" (CC BY 4.0), which the
    package contains: nothing is downloaded.
    """
    from datasets import Dataset, Features, Image, Value
    from sklearn.datasets import load_digits

    found = load_digits()
    path = folder / NAME
    if files.exists(path):
        raise InputError("exists.", where=str(path), hint="Remove it, or name another folder.")
    table = Dataset.from_dict(
        {
            "image": [{"bytes": _png(image), "path": None} for image in found.images],
            "answer": [str(digit) for digit in found.target],
        },
        features=Features({"image": Image(), "answer": Value("string")}),
    )
    with files.disk_errors(path):
        folder.mkdir(parents=True, exist_ok=True)
        table.to_parquet(str(path))
    typer.echo(path)


def _png(image: Any) -> bytes:
    """A PNG of an image [8, 8] with values from 0 to 16."""
    import numpy as np
    from PIL import Image

    grey = np.rint(image * (255 / DEEPEST)).astype(np.uint8)
    data = io.BytesIO()
    Image.fromarray(grey).save(data, "PNG")
    return data.getvalue()


if __name__ == "__main__":
    run_app(app, "python -m moextend.bench.data.digits")
