"""Writes the handwritten digits of scikit-learn: ``python -m moextend.bench.data.digits data/real/digits``.

`digits.parquet` gets 1,797 images of 8 x 8 points (white on black, PNG) with their digits, in the order of
scikit-learn: a copy of the test set of UCI's "Optical Recognition of Handwritten Digits" (CC BY 4.0).
"""

import io
import sys
from pathlib import Path
from typing import Any

import numpy as np


def write(folder: Path) -> None:
    """Writes the table into a folder, which is made if it is missing."""
    from datasets import Dataset, Features, Image, Value
    from PIL import Image as Picture
    from sklearn.datasets import load_digits

    def png(ink: Any) -> dict[str, Any]:
        """An image of values from 0 to 16."""
        data = io.BytesIO()
        Picture.fromarray(np.rint(ink * (255 / 16)).astype(np.uint8)).save(data, "PNG")
        return {"bytes": data.getvalue(), "path": None}

    found = load_digits()
    rows = {"image": list(map(png, found.images)), "answer": list(map(str, found.target))}
    folder.mkdir(parents=True, exist_ok=True)
    table = Dataset.from_dict(rows, Features({"image": Image(), "answer": Value("string")}))
    table.to_parquet(str(folder / "digits.parquet"))


if __name__ == "__main__":
    write(Path(sys.argv[1]))
