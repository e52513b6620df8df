"""`bench run --also rewind` and `subsets`, with a fake worker and scoring; `generate -e FOLDER:0.6`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from moextend.bench.run import variants
from moextend.bench.run.rundir import RunDir
from moextend.cli.opening import weighed
from moextend.errors import InputError
from tests.cli.conftest import Cli


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of runs and variants that are scored, each with the cells of the last row."""
    found: list[str] = []

    def score(
        run: RunDir,
        wanted: Sequence[variants.Variant],
        on_cell: Callable[[str], None],
    ) -> list[str]:
        cells, last = run.cells(), len(run.config.stages)
        for place, variant in enumerate(wanted):
            found.append(f"{run.folder.name} {variants.label(variant)}")
            on_cell(f"{variants.label(variant)}, some-task ({place + 1} of {len(wanted)})")
            for (stage, _), cell in cells.items():
                if stage == last:
                    of = variants.row_of(run.config, cells)
                    values = cell.model_dump()
                    variants.append(run, variants.VariantCell(**values, strengths=dict(variant), of=of))
        return ["strength 0.5, some-task: no room."] if run.config.seed == 7 else []

    monkeypatch.setattr("moextend.cli.runs.score_variants", score)
    return found


def test_runs_are_rewound_after_they_are_done(cli: Cli, scored: list[str], tmp_path: Path) -> None:
    found = cli("bench", "run", "-m", "lora", "-m", "zero-shot", "--also", "rewind")
    assert found.code == 0, found.err
    assert "--also rewind leaves out zero-shot-s0: what 'zero-shot' learns cannot be scaled." in found.err
    assert scored == [f"lora-s0 strength {s}" for s in ("0", "0.25", "0.5", "0.75", "1")]
    assert "tiny/lora-s0: strength 0.25, some-task (2 of 5)" in found.err
    assert "tiny: gain against forgetting" in found.out
    again = cli("bench", "report", "rewind", "--format", "csv")
    assert again.code == 0 and again.out.count("\ntiny-rewind,lora,") == 5
    assert cli("bench", "report", "subsets").code == 2
    assert cli("bench", "run", "-m", "lora", "--also", "rewind", "--json").json()


def test_leave_one_out_is_the_default_of_subsets(cli: Cli, scored: list[str]) -> None:
    found = cli("bench", "run", "-m", "moextend:scope=all", "-m", "lora", "--also", "subsets")
    assert found.code == 0, found.err
    assert [name.partition(" ")[2] for name in scored] == [
        "without tiny-attributes", "without tiny-counting", "without tiny-reading",
    ]  # fmt: skip
    assert "which stages help or hurt which tasks" in found.out
    assert "--also subsets leaves out lora-s0" in found.err


def test_cells_that_cannot_be_scored_are_named(cli: Cli, scored: list[str]) -> None:
    found = cli("bench", "run", "-m", "lora", "--seed", "7", "--also", "rewind")
    assert found.code == 1 and "tiny/lora-s7, strength 0.5, some-task: no room." in found.err


def test_strengths_of_folders(tmp_path: Path) -> None:
    folder = str(tmp_path / "skill")
    assert weighed([f"{folder}:0.6", folder, f"{folder}:1"]) == ([Path(folder)] * 3, [0.6, 1.0, 1.0])
    (tmp_path / "v:0.5").mkdir()
    assert weighed([str(tmp_path / "v:0.5")]) == ([tmp_path / "v:0.5"], [1.0]), "a name of its own"
    assert weighed(["C:skill"]) == ([Path("C:skill")], [1.0])
    assert weighed(["a:b/skill"]) == ([Path("a:b/skill")], [1.0])
    for wrong in ("1.5", "-0.1", "0.1.2", "nan", "inf", "half", ""):
        with pytest.raises(InputError, match="is not a strength"):
            weighed([f"{folder}:{wrong}"])
    assert weighed(None) == ([], [])
