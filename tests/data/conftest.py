"""Small data in every layout."""

from tests.data.small import encoded, make_png, make_rows, pictures, recordings, write_jsonl

__all__ = ["encoded", "make_png", "make_rows", "pictures", "recordings", "write_jsonl"]
