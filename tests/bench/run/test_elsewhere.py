"""Models that were trained by plain transformers: their matrix is that of an independent loop, answer by answer."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from rich.console import Console
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor, AutoTokenizer

import moextend
from moextend.bench.audit.base import base_row
from moextend.bench.checkpoints import Checkpoint, parse_stage, read_stages
from moextend.bench.data import open_items
from moextend.bench.report import submission
from moextend.bench.report.collect import collect
from moextend.bench.report.explain import explain
from moextend.bench.report.views import Asked, forgetting
from moextend.bench.run import models, runner
from moextend.bench.run.complete import lacks
from moextend.bench.run.inputs import refuse_other_checkpoints
from moextend.bench.run.models import restored
from moextend.bench.run.opening import open_run
from moextend.bench.run.plan import Request, resolve, resolve_scored
from moextend.bench.run.progress import read_status
from moextend.bench.run.regenerate import answer_again
from moextend.bench.run.rundir import RunDir
from moextend.bench.sequence import find_sequence
from moextend.bench.task import find_task
from moextend.bench.tuning.trials import Search, plan
from moextend.errors import InputError, RunConflict, SpecError
from moextend.model.loading import load_whole
from moextend.util import content
from tests.bench.run import elsewhere
from tests.bench.small import answers, finished, small_workspace

pytestmark = pytest.mark.slow  # small models are trained, and answer in batches and one by one
TOKENIZER = content.package_folder("registry") / "models" / "tiny" / "lm"
LEARNED = ("tiny-attributes", "tiny-counting")
SEQUENCE = """
sequence: outside
version: 1
stages: [{task: tiny-attributes}, {task: tiny-counting}]
retention: [tiny-facts]
transfer: [pick]
scoring: {batch_size: 4, limit: 10}
"""
PICK = """
task: pick
version: 1
kind: vqa
data: {path: pick.jsonl, train: null, test: all}
columns: {id: id, image: image, question: question, answer: answer, choices: choices}
prompt: "<image> Q {question} A:"
scorer: option@4
max_new_tokens: 3
"""


def workspace_in(folder: Path) -> Path:
    """A workspace with a sequence that names no base, and a task with choices of different lengths."""
    for name in ("registry", "tasks"):
        (folder / name).mkdir()
    (folder / "registry" / "outside.yaml").write_text(SEQUENCE)
    (folder / "tasks" / "pick.yaml").write_text(PICK)
    rows = []
    for place, colour in enumerate(["red", "green", "blue"]):
        image = folder / "tasks" / f"{colour}.png"
        Image.new("RGB", (40 + 8 * place, 48), colour).save(image)
        choices = ["red", "green", "blue", "the red square"]
        question = "what color" + " is it" * place
        rows.append(
            {
                "id": str(place),
                "image": image.name,
                "question": question,
                "answer": colour,
                "choices": choices,
            }
        )
    (folder / "tasks" / "pick.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return folder


def trained(
    make: Callable[..., None], folder: Path, train: Callable[..., None] = elsewhere.train, steps: int = 12
) -> list[Path]:
    """A base, and the model after each stage, trained without this package."""
    make(AutoTokenizer.from_pretrained(TOKENIZER), folder / "base")
    found = [folder / "base"]
    for task in LEARNED:
        items = open_items(find_task(task, folder), "train", folder, 64)
        rows = [(item.media[0].open(), f"Q {item.question} A:", item.answers[0]) for item in items]
        train(found[-1], rows, folder / f"after-{task}", steps)
        found.append(folder / f"after-{task}")
    return found


def opened(workspace: Path, stages: list[Checkpoint], name: str = "theirs") -> RunDir:
    config = resolve_scored(Request(workspace, sequence="outside"), name, stages)
    return open_run(config, workspace / "runs")


def scored(workspace: Path, folders: list[Path]) -> RunDir:
    run = opened(workspace, [parse_stage(str(folder)) for folder in folders])
    runner.run(run.folder)
    return RunDir(run.folder)


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory, small_world: None) -> tuple[Path, list[Path]]:
    """A workspace, and the folders of a small LLaVA after each stage."""
    workspace = workspace_in(tmp_path_factory.mktemp("elsewhere"))
    return workspace, trained(elsewhere.llava, workspace)


@pytest.fixture(scope="module")
def done(llava: tuple[Path, list[Path]]) -> RunDir:
    """The run that scored them."""
    return scored(*llava)


class Independent:
    """One prompt at a time, with nothing of this package but the rows of the tasks."""

    def __init__(self, folder: Path) -> None:
        self.model = AutoModelForImageTextToText.from_pretrained(folder, dtype="auto").eval()
        self.processor = AutoProcessor.from_pretrained(folder)

    def inputs(self, image: Any, question: str, answer: str | None = None) -> Any:
        parts = [{"type": "image", "image": image}, {"type": "text", "text": f"Q {question} A:"}]
        talk: list[Any] = [{"role": "user", "content": parts}]
        more: dict[str, Any] = {"add_generation_prompt": True}
        if answer is not None:
            talk.append({"role": "assistant", "content": [{"type": "text", "text": answer}]})
            more = {"continue_final_message": True}
        return self.processor.apply_chat_template(
            talk, tokenize=True, return_dict=True, return_tensors="pt", **more
        )

    def answer(self, image: Any, question: str) -> str:
        asked = self.inputs(image, question)
        out = self.model.generate(**asked, do_sample=False, max_new_tokens=3)
        new = out[0, asked["input_ids"].shape[1] :]
        return str(self.processor.tokenizer.decode(new, skip_special_tokens=True)).strip()

    @torch.no_grad()
    def likelihoods(self, image: Any, question: str, choices: Any) -> list[float]:
        start, found = self.inputs(image, question)["input_ids"].shape[1], []
        for choice in choices:
            asked = self.inputs(image, question, choice)
            steps = self.model(**asked).logits[0].log_softmax(-1)
            ids = asked["input_ids"][0]
            found.append(sum(float(steps[at - 1, ids[at]]) for at in range(start, len(ids))))
        return found

    @torch.no_grad()
    def right(self, line: Any) -> bool:
        """Whether the right choice of a text has the highest likelihood."""
        found = []
        for choice in line["choices"]:
            ids = self.processor.tokenizer(f"{line['context']} {choice}")["input_ids"]
            before = len(self.processor.tokenizer(line["context"])["input_ids"])
            steps = self.model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
            found.append(sum(float(steps[at - 1, ids[at]]) for at in range(before, len(ids))))
        return bool(found.index(max(found)) == line["gold"])


def check_matrix(run: RunDir, folders: list[Path]) -> None:
    """Compares every cell with the independent loop, item by item."""
    workspace, cells = run.config.workspace, run.cells()
    assert len(cells) == 3 * 4
    texts = (content.package_folder("tasks") / "tiny/lm_eval/data/facts.jsonl").read_text().splitlines()
    said = set()
    for stage, folder in enumerate(folders):
        own = Independent(folder)
        for task in (*LEARNED, "pick"):
            cell = cells[stage, task]
            lines = (run.folder / str(cell.predictions)).read_text().splitlines()
            kept = {line["id"]: line for line in map(json.loads, lines)}
            items = open_items(find_task(task, workspace), "test", workspace, 10)
            assert kept.keys() == {item.id for item in items}
            for item in items:
                line, image = kept[item.id], item.media[0].open()
                assert line["prediction"] == own.answer(image, item.question), (stage, task, item.id)
                said.add(line["prediction"])
                if item.choices:
                    wanted = own.likelihoods(image, item.question, item.choices)
                    assert line["likelihoods"] == pytest.approx(wanted, abs=1e-4)
            if task in LEARNED:
                right = [own.answer(item.media[0].open(), item.question) == item.answers[0] for item in items]
                assert cell.value == pytest.approx(100 * sum(right) / len(right))
        right = [own.right(json.loads(line)) for line in texts[:10]]
        assert cells[stage, "tiny-facts"].value == pytest.approx(100 * sum(right) / len(right))
    assert len(said) > 3, "the models must say different things, or the comparison shows nothing"


def test_the_matrix_of_a_llava_is_that_of_an_independent_loop(
    done: RunDir, llava: tuple[Path, list[Path]]
) -> None:
    check_matrix(done, llava[1])
    assert read_status(done.folder).state == "done" and not lacks(done)


@pytest.mark.long
def test_so_is_that_of_a_qwen(tmp_path: Path, small_world: None) -> None:
    workspace = workspace_in(tmp_path)
    folders = trained(elsewhere.qwen, workspace)
    check_matrix(scored(workspace, folders), folders)


@pytest.mark.skipif(find_spec("trl") is None, reason="trl is not installed (make test does it)")
@pytest.mark.parametrize("make", [elsewhere.llava, pytest.param(elsewhere.qwen, marks=pytest.mark.long)])
def test_so_is_that_of_models_of_trl(make: Callable[..., None], tmp_path: Path, small_world: None) -> None:
    workspace = workspace_in(tmp_path)
    folders = trained(make, workspace, elsewhere.train_by_trl)
    check_matrix(scored(workspace, folders), folders)


def test_a_submission_of_it_states_costs_and_shows_no_model(
    done: RunDir, llava: tuple[Path, list[Path]]
) -> None:
    found = {one.name: one for one in submission.check([done], [], llava[0])}
    assert {name: one.problems for name, one in found.items() if one.problems} == {
        "seeds": ("theirs: has the seeds 0",)
    }
    assert found["items"].done == "12 cells" and found["costs"].unchecked == "as stated: theirs"
    assert found["model"].unchecked and found["code"].done == "trained elsewhere"
    assert found["row 0"].unchecked == "no published run has the base of theirs-s0"


def test_seeds_of_different_bases_are_no_row(done: RunDir, llava: tuple[Path, list[Path]]) -> None:
    workspace, (_, first, second) = llava
    stages = [parse_stage(str(folder)) for folder in (first, first, second)]
    config = resolve_scored(Request(workspace, sequence="outside", seeds=(1,)), "theirs", stages)
    run = open_run(config, workspace / "runs")
    runner.run(run.folder)
    found = {one.name: one for one in submission.check([done, RunDir(run.folder)], [], workspace)}
    assert found["base"].problems == ("theirs: its seeds have different bases, so no table has them all",)
    shutil.rmtree(run.folder)


def test_a_run_waits_for_a_stage_that_is_not_there_and_goes_on_without_loading_what_is_done(
    done: RunDir, llava: tuple[Path, list[Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace, folders = llava
    stages = [parse_stage(str(folder)) for folder in folders]
    run = opened(workspace, stages[:2], "slower")
    runner.run(run.folder)
    assert read_status(run.folder).state == "waiting" and {stage for stage, _ in run.cells()} == {0, 1}
    loaded = list[str]()

    def load(model: str, **options: Any) -> Any:
        loaded.append(model)
        return load_whole(model, **options)

    monkeypatch.setattr(models, "load_whole", load)
    run = opened(workspace, stages, "slower")
    runner.run(run.folder)
    assert loaded == [str(folders[2])] and read_status(run.folder).state == "done"
    values = {key: cell.value for key, cell in run.cells().items()}
    assert values == {key: cell.value for key, cell in done.cells().items()}
    (experiment,) = collect([done, RunDir(run.folder)])
    assert len(experiment.results) == 2, "methods of the same base share a table"


def test_a_checkpoint_that_changed_is_refused(llava: tuple[Path, list[Path]], tmp_path: Path) -> None:
    workspace, folders = llava
    copied = shutil.copytree(folders[0], tmp_path / "copy")
    run = opened(workspace, [parse_stage(str(copied))], "changed")
    runner.run(run.folder)
    shutil.copy(folders[1] / "model.safetensors", copied)
    (copied / "optimizer.pt").write_bytes(b"what a trainer keeps besides changes nothing")
    with pytest.raises(RunConflict, match="files of the checkpoint of stage 0 changed"):
        runner.run(run.folder)


def test_a_done_run_is_only_of_the_models_that_it_scored(
    done: RunDir, llava: tuple[Path, list[Path]], tmp_path: Path
) -> None:
    workspace, folders = llava
    base, first, second = folders
    copy = shutil.copytree(first, tmp_path / "moved")

    def asked(*named: Path | str) -> None:
        stages = [parse_stage(str(one)) for one in named]
        config = resolve_scored(Request(workspace, sequence="outside"), "theirs", stages)
        refuse_other_checkpoints(done, config)

    before = done.config_path.read_bytes()
    asked(base, first, second)
    asked(base, copy, second)
    for named, said in (
        ((base, second, first), f"has scored '{first}' as stage 1, and '{second}' is named now"),
        ((base, first), f"has scored '{second}' as stage 2, and no model is named now"),
        ((base, "me/other", second), f"has scored '{first}' as stage 1, and 'me/other' is named now"),
    ):
        with pytest.raises(RunConflict, match=re.escape(said)):
            asked(*named)
    assert done.config_path.read_bytes() == before


def test_a_number_names_its_checkpoint_and_what_is_stated(
    done: RunDir, llava: tuple[Path, list[Path]]
) -> None:
    workspace, folders = llava
    listed = workspace / "stages.yaml"
    listed.write_text(f"- base\n- {{model: {folders[1].name}, stated: {{hours: 2}}}}\n- {folders[2]}\n")
    stages = read_stages(listed)
    assert [Path(stage.model) for stage in stages] == folders
    run = opened(workspace, stages)
    assert run.folder == done.folder
    runner.run(run.folder)
    found = explain(RunDir(run.folder), 1, "tiny-counting")
    assert found.sound and found.sources["hours (stated, not measured)"] == "2"
    assert str(folders[1]) in found.sources["files of the checkpoint of stage 1"]
    assert found.command.startswith("moextend bench score outside --name theirs --stage")
    (experiment,) = collect([RunDir(run.folder)])
    (table, *_) = forgetting.tables(experiment, Asked())
    assert "trained elsewhere" in table.title
    assert any("Stated, not measured: stage 1: hours 2." in note for note in table.notes)


def test_the_answers_of_a_done_run_are_made_again(done: RunDir) -> None:
    again = list(answer_again(done, 1))
    assert len(again) == len(done.cells())
    assert not any(one.problem or one.other for one in again)


def test_an_adapter_of_peft_answers_as_peft_has_it(llava: tuple[Path, list[Path]], tmp_path: Path) -> None:
    from peft import LoraConfig, PeftModel, get_peft_model

    workspace, folders = llava
    torch.manual_seed(1)
    base = AutoModelForImageTextToText.from_pretrained(folders[1])
    config = LoraConfig(
        r=4,
        target_modules=["q_proj", "v_proj"],
        modules_to_save=["multi_modal_projector"],
        init_lora_weights=False,
    )
    get_peft_model(base, config).save_pretrained(str(tmp_path))
    stage = parse_stage(str(tmp_path))
    assert stage.model == str(folders[1]) and stage.adapter == str(tmp_path)
    run = opened(workspace, [parse_stage(str(folders[0])), stage], "adapter")
    runner.run(run.folder)
    own = Independent(folders[1])
    plain = own.model
    own.model = PeftModel.from_pretrained(plain, tmp_path).eval()
    cell = run.cells()[1, "tiny-counting"]
    lines = [json.loads(line) for line in (run.folder / str(cell.predictions)).read_text().splitlines()]
    items = {
        item.id: item for item in open_items(find_task("tiny-counting", workspace), "test", workspace, 10)
    }
    wanted = [own.answer(items[line["id"]].media[0].open(), items[line["id"]].question) for line in lines]
    assert [line["prediction"] for line in lines] == wanted
    with own.model.disable_adapter():
        assert wanted != [
            own.answer(items[line["id"]].media[0].open(), items[line["id"]].question) for line in lines
        ], "the adapter must change something"


def test_a_text_model_scores_text_and_refuses_images(tmp_path: Path, small_world: None) -> None:
    workspace = workspace_in(tmp_path)
    run = opened(workspace, [parse_stage(str(TOKENIZER))])
    with pytest.raises(
        Exception, match=r"could not be scored; the first: stage 0, tiny-attributes.*an image"
    ):
        runner.run(run.folder)
    cells = RunDir(run.folder).cells()
    assert cells.keys() == {(0, "tiny-facts")} and cells[0, "tiny-facts"].value == 100


@pytest.mark.parametrize("name", ["lora", "joint", "all", "two words", "mine:rank=2"])
def test_a_name_that_means_something_else_is_refused(tmp_path: Path, name: str) -> None:
    workspace = workspace_in(tmp_path)
    with pytest.raises(InputError, match="--name"):
        resolve_scored(Request(workspace, sequence="outside"), name, [parse_stage(str(TOKENIZER))])


def test_wrong_stages_are_refused_with_a_way_out(tmp_path: Path) -> None:
    workspace = workspace_in(tmp_path)
    base = parse_stage(str(TOKENIZER))
    with pytest.raises(InputError, match="4 checkpoints, and 'outside' has 2 stages after the base"):
        resolve_scored(Request(workspace, sequence="outside"), "mine", [base] * 4)
    with pytest.raises(InputError, match=r"names no base, so nothing can be trained.*moextend bench score"):
        resolve(Request(workspace, sequence="outside", methods=("lora",)))
    pickled = tmp_path / "pickled"
    AutoConfig.from_pretrained(TOKENIZER).save_pretrained(pickled)
    (pickled / "pytorch_model.bin").write_bytes(b"\x80\x04")
    with pytest.raises(InputError, match="a pickle"):
        parse_stage(str(pickled))
    with pytest.raises(InputError, match=r"no \.safetensors file"):
        (pickled / "pytorch_model.bin").unlink()
        parse_stage(str(pickled))
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter/adapter_config.json").write_text("{}")
    with pytest.raises(SpecError, match="model"):
        parse_stage(str(tmp_path / "adapter"))
    (tmp_path / "stages.yaml").write_text("- {model: x, steps: 3}\n")
    with pytest.raises(SpecError, match=r"stages.yaml\[0\]: steps"):
        read_stages(tmp_path / "stages.yaml")


def test_an_extended_model_scores_as_in_the_run_that_trained_it(tmp_path: Path, small_world: None) -> None:
    workspace = small_workspace(tmp_path, LEARNED[:1], ["tiny-facts"], limit=10)
    run = finished(workspace, "moextend:scope=all")
    stages = []
    for stage in (0, 1):
        folder = tmp_path / f"stage-{stage}"
        moextend.save_model(restored(run, stage=stage), folder, base="tiny", encoders={"image": "tiny"})
        stages.append(parse_stage(str(folder)))
    config = resolve_scored(Request(workspace, sequence="small"), "ours", stages)
    scored = open_run(config, workspace / "runs")
    runner.run(scored.folder)
    assert answers(scored) == answers(run)
    cells = run.cells()
    assert {key: cell.value for key, cell in scored.cells().items()} == {
        key: cell.value for key, cell in cells.items()
    }
    assert cells[0, LEARNED[0]].weights != cells[1, LEARNED[0]].weights
    found = collect([run, scored])
    assert len(found) == 2 and "elsewhere" in found[1].differs, "apart, and the table says why"


def test_a_server_answers_as_the_model_that_it_serves(tmp_path: Path, small_world: None) -> None:
    pytest.importorskip("fastapi", reason="fastapi is not installed")
    pytest.importorskip("uvicorn", reason="uvicorn is not installed")
    from tests.serving.living import living

    workspace = small_workspace(tmp_path, LEARNED[:1], ["tiny-facts"], limit=10)
    run = finished(workspace, "zero-shot")
    with living(restored(run, stage=0)) as server:
        stage = parse_stage(f"{server.url}#base", processor="tiny")
        config = resolve_scored(Request(workspace, sequence="small"), "served", [stage])
        scored = open_run(config, workspace / "runs")
        runner.run(scored.folder)
    wanted = {key: found for key, found in answers(run).items() if key[0] == 0}
    assert answers(scored) == wanted
    assert stage.word in explain(RunDir(scored.folder), 0, "tiny-facts").command
    with pytest.raises(InputError, match="needs the tokenizer of the model that it serves"):
        parse_stage(f"{server.url}#base")
    with pytest.raises(InputError, match="names no model of the server"):
        parse_stage(server.url, processor="tiny")


def test_a_sequence_without_a_base_is_audited_by_the_answers_of_a_scored_run(done: RunDir) -> None:
    workspace = done.config.workspace
    sequence = find_sequence("outside", workspace)
    row = base_row(sequence, workspace, workspace / "runs", answer=None, console=Console(quiet=True))
    assert row.run is not None and row.run.config.scored
    assert row.cell("tiny-facts") == row.run.cells()[0, "tiny-facts"]
    longer = sequence.model_copy(update={"version": 2})
    other = base_row(longer, workspace, workspace / "runs", answer=None, console=Console(quiet=True))
    assert other.run is None and "no scored run" in other.reason


def test_what_needs_a_trained_run_refuses_one_that_only_scored(done: RunDir) -> None:
    with pytest.raises(InputError, match="trained elsewhere, and holds none"):
        restored(done)
    with pytest.raises(InputError, match="names no base"):
        request = Request(done.config.workspace, sequence="outside", methods=("lora",), seeds=(0, 1))
        plan(Search(request, budget=2))
