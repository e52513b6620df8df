"""The main job on a small sequence of the generated world: every method, interruption at any moment, failures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import moextend
import moextend.training.loop
from moextend import MultimodalLM
from moextend.bench import methods
from moextend.bench.run import runner
from moextend.bench.run import stage as stage_module
from moextend.bench.run.opening import open_run
from moextend.bench.run.plan import Request, resolve
from moextend.bench.run.progress import read_status
from moextend.bench.run.rundir import RunDir
from moextend.bench.score import evaluate
from moextend.bench.store.node import OFF
from moextend.bench.task import TaskSpec
from moextend.errors import InputError, RunFailed

SEQUENCE = """
sequence: small
version: 1
base: {model: tiny, vision: tiny}
align: {task: tiny-captions, steps: 2, batch_size: 4, learning_rate: 3.0e-3, checkpoint_steps: 1}
stages: [{task: tiny-attributes}, {task: tiny-counting}]
retention: [tiny-facts]
memory: generic.txt
train: {steps: 3, batch_size: 4, learning_rate: 3.0e-3, checkpoint_steps: 2}
scoring: {batch_size: 10, limit: 6}
settings:
  moextend: {probe_steps: 1, memory_tokens: 100}
"""
METHODS = ["moextend:scope=own", *(
    pytest.param(name, marks=pytest.mark.long)
    for name in ("lora", "moextend:scope=auto")
)]  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def on_its_own() -> Iterator[None]:
    """Every run trains its own stages, so that it can be stopped there; test_shared_stages.py shares them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(OFF, "off")
        yield


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory, small_world: None) -> Path:
    folder = tmp_path_factory.mktemp("workspace")
    (folder / "registry").mkdir()
    (folder / "registry" / "small.yaml").write_text(SEQUENCE)
    (folder / "registry" / "generic.txt").write_text("anna lives in oslo .\n2 plus 3 equals 5 .\n" * 20)
    return folder


def prepared(workspace: Path, method: str, runs: str = "runs", **more: Any) -> RunDir:
    request = Request(workspace=workspace, sequence="small", methods=(method,), **more)
    (config,) = resolve(request)
    return open_run(config, workspace / runs)


@pytest.fixture(scope="module")
def finished(workspace: Path) -> Iterator[Callable[[str], RunDir]]:
    """Runs a method once for all tests of this file."""
    done: dict[str, RunDir] = {}

    def run(method: str) -> RunDir:
        if method not in done:
            done[method] = prepared(workspace, method)
            runner.run(done[method].folder)
        return done[method]

    yield run


def values(run: RunDir) -> dict[tuple[int, str], float]:
    return {key: cell.value for key, cell in run.cells().items()}


def learned(run: RunDir) -> dict[str, torch.Tensor]:
    found = {}
    for path in sorted(run.folder.glob("stages/*/extension.safetensors")):
        found.update({f"{path.parent.name}/{k}": v for k, v in load_file(path).items()})
    return found


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_every_method_fills_the_matrix(finished: Callable[[str], RunDir], method: str) -> None:
    run = finished(method)
    tasks = ("tiny-attributes", "tiny-counting", "tiny-facts")
    assert set(run.cells()) == {(stage, task) for stage in range(3) for task in tasks}
    assert read_status(run.folder).state == "done"
    assert not list(run.folder.glob("stages/*/*in-flight"))
    row = {task: value for (stage, task), value in values(run).items() if stage == 0}
    first = {t: v for (s, t), v in values(finished("full-ft")).items() if s == 0}
    assert row == first, "the base is the same whatever the method"
    assert run.cells()[1, "tiny-attributes"].weights != run.cells()[0, "tiny-attributes"].weights
    one, two = run.costs()[1], run.costs()[2]
    earlier = one.stored_mb if methods.parse(method).make().needs_earlier else 0
    assert one.kept_mb == one.stored_mb and two.stored_mb is not None
    assert two.kept_mb == two.stored_mb + (earlier or 0)
    assert all(bool(cost.probe_flops) == bool(cost.change) for cost in (one, two))


@pytest.mark.slow
def test_scope_own_forgets_nothing_bit_for_bit(finished: Callable[[str], RunDir], workspace: Path) -> None:
    run = finished("moextend:scope=own")
    found = values(run)
    assert [found[stage, "tiny-facts"] for stage in range(3)] == [found[0, "tiny-facts"]] * 3
    assert found[2, "tiny-attributes"] == found[1, "tiny-attributes"]
    assert found[1, "tiny-counting"] == found[0, "tiny-counting"], "a task to come is answered by the base"
    model = moextend.load("tiny", vision="tiny")
    ids = torch.tensor([[1, 20, 30, 40, 50]])
    with torch.no_grad():
        base = model.lm(ids).logits
    aligned = next((workspace / ".cache" / "aligned").glob("*/*.safetensors"))
    model.modalities["image"].projector.load_state_dict(load_file(aligned))
    logits = {}
    for stage, task in ((1, "tiny-attributes"), (2, "tiny-counting")):
        moextend.load_extension(model, run.stage_folder(stage, task))
        with torch.no_grad():
            moextend.activate(model.lm, ["tiny-attributes"])
            logits[stage] = model.lm(ids).logits
            moextend.activate(model.lm, [])
            assert torch.equal(model.lm(ids).logits, base), "text is answered by the base"
    assert torch.equal(logits[1], logits[2]), "the first task is answered as before the second was learned"
    assert not torch.equal(logits[1], base)


@pytest.mark.slow
def test_routing_is_measured_after_every_stage(finished: Callable[[str], RunDir]) -> None:
    own, full = (finished(method).routing() for method in ("moextend:scope=own", "full-ft"))
    for routing in (own, full):
        assert [list(routing[stage].tasks) for stage in (1, 2)] == [
            ["tiny-attributes", "(text)"], ["tiny-attributes", "tiny-counting", "(text)"],
        ]  # fmt: skip
    old, text = own[2].tasks["tiny-attributes"], own[2].tasks["(text)"]
    assert old.drift == [0.0] * 4, "own: nothing that an old task meets has changed"
    reached = [block["tiny-attributes"] for block in old.reached if "tiny-attributes" in block]
    assert own[1].layers is not None and len(reached) == len(own[1].layers) == 2 and min(reached) > 0
    assert all(not block for block in text.reached), "text is answered by the base"
    assert min(full[2].tasks["tiny-attributes"].drift or [0]) > 0, "all weights were moved"
    assert own[2].change is not None and len(own[2].change) == 4


@pytest.mark.slow
def test_a_cell_that_fails_costs_only_itself(
    workspace: Path, finished: Callable[[str], RunDir], monkeypatch: pytest.MonkeyPatch
) -> None:
    original = evaluate.score_cell

    def failing(model: MultimodalLM, task: TaskSpec, **more: Any) -> object:
        if task.task == "tiny-facts":
            raise RunFailed("broken on purpose.")
        return original(model, task, **more)

    run = prepared(workspace, "full-ft", "failing")
    with monkeypatch.context() as patch:
        patch.setattr(evaluate, "score_cell", failing)
        with pytest.raises(RunFailed, match=r"3 cells could not be scored; the first: stage 0, tiny-facts"):
            runner.run(run.folder)
    assert read_status(run.folder).state == "failed"
    assert len(run.cells()) == 6
    with monkeypatch.context() as patch:
        patch.setattr(stage_module, "train", None)  # nothing is trained again
        runner.run(run.folder)
    assert values(run) == values(finished("full-ft"))


@pytest.mark.slow
def test_a_layer_that_the_base_lacks_is_refused_before_the_base_is_scored(workspace: Path) -> None:
    run = prepared(workspace, "moextend:layers=0+9", "layers")
    with pytest.raises(
        InputError, match=r"method 'moextend:layers=0\+9': layers \[0, 9\]: the model has MoE layers 0 to 3"
    ):
        runner.run(run.folder)
    assert not run.cells()


@pytest.mark.slow
def test_joint_and_independent_runs(workspace: Path) -> None:
    for bound in ("joint", "individual"):
        run = prepared(workspace, bound, limit=4)
        runner.run(run.folder)
        rows = {stage for stage, _ in run.cells()}
        assert rows == ({0, 1} if bound == "joint" else {0, 1, 2})
        assert read_status(run.folder).state == "done"
