"""The names of lm-eval's tasks, read from its files."""

from __future__ import annotations

import time

import pytest

from moextend.bench.score.text import folder
from moextend.errors import UnknownName


def test_an_unknown_name_is_refused_at_once() -> None:
    folder.check_name("arc_easy", where="here")
    folder._words.cache_clear()  # the files are read again, from the memory of the system
    start = time.process_time()
    with pytest.raises(UnknownName, match="Did you mean 'arc_easy'"):
        folder.check_name("arc_eazy", where="here")
    assert time.process_time() - start < 2
