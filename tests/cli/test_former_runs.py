"""status and report read a run from before files had a version."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from moextend.bench.run.complete import set_damaged_aside
from moextend.bench.run.rundir import RunDir
from moextend.errors import InputError
from moextend.util.record import VERSION, LaterVersion
from tests.cli.conftest import Cli

FORMER = Path(__file__).parents[1] / "fixtures" / "old_run"
"""`bench run tiny --method lora --steps 2 --limit 3` of 0.1.0.dev, less the weights; its cells were signed later."""


@pytest.fixture
def former(tmp_path: Path) -> Path:
    """The folder of a former run in the workspace `tmp_path`."""
    return Path(shutil.copytree(FORMER, tmp_path / "runs" / "tiny" / "lora-s0"))


def test_the_files_have_no_version(former: Path) -> None:
    assert "schema_version" not in (former / "facts.json").read_text()
    assert '"told"' in (former / "facts.json").read_text()


def test_its_records_are_read(former: Path) -> None:
    run = RunDir(former)
    facts, costs = run.facts(), run.costs()
    assert (facts.schema_version, facts.task_identity) == (VERSION, "none")
    assert facts.majority is not None and facts.majority["tiny-counting"] == 100.0
    assert sorted(costs) == [1, 2, 3] and costs[1].trained_parameters == 98304
    assert list(costs[1].notes) == ["loss"]
    assert len(run.cells()) == 4 * 8 and sorted(run.routing()) == [1, 2, 3]


def test_status_and_report_show_it(cli: Cli, former: Path) -> None:
    found = cli("bench", "status")
    assert found.code == 0 and " done " in found.out, found.err
    (record,) = cli("bench", "status", "--json").json()
    assert (record["state"], record["units"], record["error"]) == ("done", 36, None)
    assert record["metrics"]["acc"] == pytest.approx(22.2222, abs=1e-3)
    for view in ((), ("matrix",), ("costs",), ("routing",), ("readings",)):
        found = cli("bench", "report", *view)
        assert found.code == 0 and "lora" in found.out and "damaged" not in found.out, (view, found.err)


def test_a_failed_former_run_tells_its_error(cli: Cli, former: Path) -> None:
    status = json.loads((former / "status.json").read_text())
    error = {"what": "the loss is not finite.", "where": "stage 2", "mend": "Lower the learning rate."}
    (former / "status.json").write_text(json.dumps({**status, "state": "failed", "error": error}))
    found = cli("bench", "status", "lora-s0")
    assert "error: stage 2: the loss is not finite. Lower the learning rate." in " ".join(found.out.split())


@pytest.mark.parametrize("name", ["facts.json", "stages/1-tiny-attributes/cost.json"])
def test_a_file_of_a_later_version_is_refused_with_the_way_out(cli: Cli, former: Path, name: str) -> None:
    path = former / name
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema_version": VERSION + 1}))
    with pytest.raises(InputError, match=rf"has schema_version {VERSION + 1}; .* Update moextend"):
        _ = (RunDir(former).facts(), RunDir(former).costs())
    found = cli("bench", "report", "--unfinished")
    assert "this release reads versions up to" in " ".join((found.out + found.err).split())


@pytest.mark.parametrize("name", ["config.json", "facts.json", "stages/1-tiny-attributes/cost.json"])
def test_a_run_of_a_later_version_is_left_as_it_is(former: Path, name: str) -> None:
    path = former / name
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema_version": VERSION + 1}))
    before = {file: file.read_bytes() for file in former.rglob("*.json*")}
    with pytest.raises(LaterVersion):
        set_damaged_aside(RunDir(former))
        _ = RunDir(former).config
    assert {file: file.read_bytes() for file in former.rglob("*.json*")} == before


def test_a_config_of_a_later_version_is_named_in_every_view(cli: Cli, former: Path) -> None:
    path = former / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema_version": VERSION + 1}))
    for command in ("status", "report"):
        found = cli("bench", command)
        message = " ".join((found.out + found.err).split())
        assert f"has schema_version {VERSION + 1}" in message and "Update moextend" in message
        assert "Traceback" not in message


def test_a_wrong_type_is_set_aside_and_named_in_the_log(
    former: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = former / "stages/1-tiny-attributes/cost.json"
    path.write_text('{"seconds": "long"}')
    set_damaged_aside(RunDir(former))
    assert not path.exists() and path.with_name("cost.json.damaged").exists()
    assert "'seconds': Input should be a valid number" in caplog.text


def test_records_are_read_without_torch() -> None:
    """`bench status` starts fast."""
    code = (
        "import moextend.bench.run.rundir, moextend.bench.run.progress, sys; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
