"""`moextend bench tune`: trials, resuming, and what is written."""

from pathlib import Path

import pytest

from moextend.bench.run.plan import Request, resolve
from moextend.bench.run.rundir import RunDir
from moextend.bench.sequence import read_sequence
from moextend.util import content
from tests.cli.conftest import Cli

PACKAGED = content.package_folder("registry") / "tiny.yaml"
TUNE = ("bench", "tune", "tiny", "-m", "lora", "--budget", "1")


def runs(folder: Path) -> list[Path]:
    return sorted(path.parent for path in folder.glob("tuning/*/tiny/*/config.json"))


@pytest.mark.slow  # three searches with four runs in processes of their own
def test_it_runs_every_trial_with_every_seed_and_writes_the_best(cli: Cli, tmp_path: Path) -> None:
    found = cli(*TUNE)
    assert found.code == 0, found.err
    path = tmp_path / "registry" / "tiny.yaml"
    assert "Wrote the settings to" in found.out and "registry/tiny.yaml (key 'tuned')." in found.out
    entry = read_sequence(path).tuned["lora"]
    # The fake worker scores 75 and 80 after the second task with seed 0, a point more with seed 1.
    assert (entry.score, entry.trials, entry.seeds, entry.validation) == (78.0, 1, [0, 1], 10)
    assert entry.tasks == ["tiny-attributes", "tiny-counting"] and entry.versions["moextend"]
    assert f"lora: learning_rate={entry.settings['learning_rate']}" in found.out
    (config,) = resolve(Request(tmp_path, "tiny", ("lora",)))
    assert config.method_spec.config.rank == entry.settings["rank"]  # type: ignore[attr-defined]
    assert config.tuned_on == "validation items"
    before = {path: (path / "scores.jsonl").stat().st_mtime_ns for path in runs(tmp_path)}
    assert len(before) == 2
    again = cli(*TUNE)
    assert again.code == 0 and "2 of 2 runs were done before." in again.err
    more = cli(*TUNE[:-1], "2")
    assert more.code == 0 and "2 of 4 runs were done before." in more.err
    assert {path: (path / "scores.jsonl").stat().st_mtime_ns for path in before} == before
    shown = cli(*TUNE[:-1], "2", "--json").json()
    assert [one["chosen"] for one in shown] == [True, False, False]  # the third is beyond the edge of the two
    assert shown[0]["scores"] == [77.5, 78.5] and shown[0]["states"] == ["done", "done"]


def test_an_interrupted_search_goes_on(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE", "killed")
    stopped = cli(*TUNE)
    assert stopped.code == 1 and not (tmp_path / "registry").exists()
    assert "Not chosen yet, because trials are not done: lora." in stopped.err
    monkeypatch.delenv("FAKE")
    assert cli(*TUNE).code == 0
    assert len(RunDir(runs(tmp_path)[0]).cells()) == 3 * 2


def test_a_file_of_ones_own_is_written_where_it_is(cli: Cli, tmp_path: Path) -> None:
    text = PACKAGED.read_text().replace("sequence: tiny", "sequence: own")
    text = text[: text.index("tuned_from:")]
    (tmp_path / "own.yaml").write_text(text)
    assert cli("bench", "tune", "own.yaml", *TUNE[3:]).code == 0
    assert (
        (tmp_path / "own.yaml").read_text().startswith(f"{text.rstrip()}\ntuned:\n  lora:\n    settings: {{")
    )
    assert not (tmp_path / "registry").exists()
