"""Functions that run once another module is imported."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from moextend.util.late import when_imported


def test_a_function_runs_after_the_import_and_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "late_a.py").write_text("import late_b\nvalue = 1\n")
    (tmp_path / "late_b.py").write_text("value = 2\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    before, seen = list(sys.meta_path), list[str]()
    for name in ("late_a", "late_b"):
        monkeypatch.delitem(sys.modules, name, raising=False)
        when_imported(name, lambda name=name: seen.append(f"{name} {sys.modules[name].value}"))  # type: ignore[misc]
    assert not seen and "late_a" not in sys.modules
    import late_a  # type: ignore[import-not-found]  # noqa: F401

    assert seen == ["late_b 2", "late_a 1"]
    assert sys.meta_path == before, "nothing is left once all are imported"
    when_imported("late_a", lambda: seen.append("now"))
    assert seen[-1] == "now"


def test_a_look_for_the_module_or_a_failed_import_is_not_its_import(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "late_c.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "late_c", raising=False)
    before, seen = list(sys.meta_path), list[str]()
    when_imported("late_c", lambda: seen.append("acted"))
    assert find_spec("late_c") is not None
    with pytest.raises(ZeroDivisionError):
        __import__("late_c")
    assert not seen
    (tmp_path / "late_c.py").write_text("value = 3\n")
    __import__("late_c")
    assert seen == ["acted"] and sys.meta_path == before


def test_a_module_that_does_not_exist_is_missing_as_before() -> None:
    before = list(sys.meta_path)
    when_imported("late_nowhere", lambda: None)
    with pytest.raises(ModuleNotFoundError):
        __import__("late_nowhere")
    assert sys.meta_path == before
