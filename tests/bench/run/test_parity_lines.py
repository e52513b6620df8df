"""The lines of parity.jsonl: damaged, edited and foreign ones prove nothing, and no table shows what is not proved."""

from __future__ import annotations

from pathlib import Path

import pytest

from moextend.bench.report.collect import collect, some
from moextend.bench.report.notes import backend_notes
from moextend.bench.run.complete import lacking_scores, refuse_damaged, unproved
from moextend.bench.run.rundir import PARITY, RunDir
from moextend.bench.score.records import Parity, Weights
from moextend.errors import InputError
from tests.bench.conftest import MakeRun

CHECK = Parity(
    stage=1, task="colour", weights_id="w", backend="openai", server="http://h/v1", engine="vllm 0.11", model="m",
    at="2026-01-01T00:00:00+0000", tolerance=1e-3, items=["a", "b"], answers=2, likelihoods=3, difference=2e-5,
    weights=Weights(by="sequences", sequences=8, tokens=32, difference=1e-5, base=0.3),
)  # fmt: skip
ROWS = [[10.0, 10.0], [90.0, 10.0], [85.0, 80.0]]


def served(run: RunDir, digest: str | None, **changes: object) -> RunDir:
    """The run with one cell of a server."""
    cell = run.cells()[1, "colour"]
    run.append_cell(
        cell.model_copy(update={"backend": "openai", "weights": "w", "parity": digest, **changes})
    )
    return run


def test_damaged_edited_and_foreign_lines_prove_nothing(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(rows=ROWS)
    served(run, run.append_parity(CHECK))
    path = run.folder / PARITY
    good = path.read_text()
    other = make_run("moextend", rows=ROWS)
    other.append_parity(CHECK)
    for text in (
        "",
        good[:-20],
        good.replace("0.001", "0.5"),
        (other.folder / PARITY).read_text(),
        "[]\n{}\n\x00\n",
    ):
        path.write_text(text)
        assert run.parities() == {}
        assert [cell.task for cell in unproved(run, run.cells().values())] == ["colour"]
    path.write_text(f"{{\n{good}{good[:-20]}")
    assert len(run.parities()) == 1
    refuse_damaged(run)
    run.append_parity(CHECK)
    assert len(run.parities()) == 1 and path.read_text().count("vllm") == 2


@pytest.mark.parametrize(
    "changes", [{"task": "count"}, {"weights": "other"}, {"parity": None}, {"backend": "sglang"}]
)
def test_a_check_proves_one_task_and_one_set_of_weights(
    make_run: MakeRun, changes: dict[str, object]
) -> None:
    run = make_run(rows=ROWS)
    served(run, run.append_parity(CHECK), **changes)
    assert len(unproved(run, run.cells().values())) == 1
    assert "a parity check of the server that scored" in lacking_scores(run, run.cells())[-1]


def test_no_table_shows_a_cell_of_a_server_that_is_not_proved(make_run: MakeRun) -> None:
    plain = make_run("full-ft", rows=ROWS)
    run = served(make_run(rows=ROWS), "nothing")
    with pytest.raises(InputError, match=r"1 cell of lora-s0 .colour after stage 1") as caught:
        some(collect([plain, run], unfinished=True))
    assert caught.value.exit_code == 2 and "Run the same command again" in str(caught.value)
    served(run, run.append_parity(CHECK))
    (experiment,) = some(collect([plain, run], unfinished=True))
    (note,) = backend_notes(experiment.results)
    assert note == (
        "lora-s0 is scored by vllm 0.11 in 1 of 6 cells: weights proved, 2 sampled answers equal to those of "
        "transformers, log-likelihoods within 2e-05 nats per token."
    )
