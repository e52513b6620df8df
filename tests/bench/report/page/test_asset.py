"""The built page in the package is what its source builds."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[4]
SOURCE, BUILT = ROOT / "page", ROOT / "moextend" / "bench" / "report" / "page" / "assets"


@pytest.fixture(scope="module")
def node() -> str:
    found = shutil.which("node")
    if found is None or not (SOURCE / "node_modules" / "esbuild").exists():
        pytest.skip(
            "the page cannot be built here: make page fetches what it is built with (node 20 or later)"
        )
    return found


def test_the_asset_is_what_the_source_builds(node: str, tmp_path: Path) -> None:
    subprocess.run([node, "build.mjs", str(tmp_path)], cwd=SOURCE, check=True, timeout=60)
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in BUILT.iterdir()}
    for path in tmp_path.iterdir():
        assert path.read_bytes() == (BUILT / path.name).read_bytes(), "run: make page"


@pytest.mark.slow  # the compiler of TypeScript alone takes seconds
def test_the_source_has_sound_types(node: str) -> None:
    done = subprocess.run(
        [node, "node_modules/typescript/bin/tsc", "--noEmit"], cwd=SOURCE, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


def test_the_asset_is_one_script_without_addresses_to_load() -> None:
    script = (BUILT / "page.js").read_text()
    assert len(script) < 200_000 and script.isascii()
    assert "https://" not in script and "@import" not in (BUILT / "page.css").read_text()
