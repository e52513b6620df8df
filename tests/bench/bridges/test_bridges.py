"""A run's model in lm-eval and lmms-eval gives the numbers of the run's own table."""

import json
import shlex
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from typer.testing import CliRunner

import moextend
from moextend.bench.bridges.opened import opened
from moextend.bench.data import open_items
from moextend.bench.run.models import restored
from moextend.bench.run.rundir import RunDir
from moextend.errors import InputError
from tests.bench.small import finished, small_workspace

LIMIT = 40


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory, small_world: None) -> Path:
    stages = ["tiny-attributes", "tiny-counting"]
    return small_workspace(
        tmp_path_factory.mktemp("bridges"), stages, ["tiny-textqa"], limit=LIMIT, steps=8, batch_size=8
    )


@pytest.fixture(scope="module")
def run(workspace: Path) -> RunDir:
    return finished(workspace, "lora")


@pytest.mark.slow
def test_a_stage_is_restored_bit_for_bit(run: RunDir) -> None:
    ids = torch.tensor([[1, 20, 30, 40, 50]])
    with torch.no_grad():
        logits = [restored(run, stage=stage).lm(ids).logits for stage in (0, 1, 2, 2)]
    assert not torch.equal(logits[0], logits[1]) and not torch.equal(logits[1], logits[2])
    assert torch.equal(logits[2], logits[3])
    assert torch.equal(logits[0], moextend.load("tiny").lm(ids).logits)
    with pytest.raises(InputError, match="the run has stages 0 to 2, not 3"):
        restored(run, stage=3)


def test_arguments_that_name_no_model_are_refused() -> None:
    with pytest.raises(InputError, match="give exactly one of run and pretrained"):
        opened()
    with pytest.raises(InputError, match="not a run folder"):
        opened(run="nowhere")


def printed() -> list[str]:
    """The words of the lm-eval command in docs/serving.md."""
    text = (Path(__file__).parents[3] / "docs" / "serving.md").read_text(encoding="utf-8")
    (line,) = (line for line in text.splitlines() if line.startswith("moextend lm-eval "))
    return shlex.split(line, comments=True)


@pytest.mark.long  # 24 s
def test_the_lm_eval_command_of_the_page_gives_the_numbers_of_the_table(
    run: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it is printed, on a task that needs no network and with where to find it and to write."""
    from moextend.cli.main import app

    packaged = Path(moextend.__file__).parent / "content" / "tasks" / "tiny" / "lm_eval"
    folder = packaged.resolve()
    (tmp_path / "tasks").mkdir()
    for path in folder.glob("*.yaml"):
        (tmp_path / "tasks" / path.name).write_text(path.read_text().replace("{folder}", str(folder)))
    words = ["tiny_textqa" if word == "arc_easy" else word for word in printed()]
    (named,) = (word.removeprefix("run=") for word in words if word.startswith("run="))
    (tmp_path / named).parent.mkdir(parents=True)
    (tmp_path / named).symlink_to(run.folder.resolve())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    where = ["--include_path", "tasks", "--limit", str(LIMIT), "--batch_size", "10", "--output_path", "out"]
    done = CliRunner().invoke(app, words[1:] + where, catch_exceptions=False)
    assert done.exit_code == 0 and "tiny_textqa" in words
    (path,) = (tmp_path / "out").rglob("results*.json")
    found = json.loads(path.read_text())["results"]["tiny_textqa"]["acc,none"]
    assert 100 * found == pytest.approx(run.cells()[2, "tiny-textqa"].value)


def test_what_lm_eval_needs_is_supplied_where_it_is_not_given() -> None:
    from moextend.bench.bridges.lm_eval import completed

    device = "cuda" if torch.cuda.is_available() else "cpu"
    given = ["--model_args", "run=x", "--tasks", "y"]
    assert completed(given) == [*given, "--model", "moextend", "--device", device]
    assert completed(["run", *given, "--device=cpu"]) == [
        "run",
        *given,
        "--device=cpu",
        "--model",
        "moextend",
    ]
    for whole in (["ls", "tasks"], ["validate", "--tasks", "y"], ["--help"], ["--config", "c.yaml"], []):
        assert completed(whole) == whole
    assert completed(["-M", "hf", "--device", "cpu"]) == ["-M", "hf", "--device", "cpu"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--tasks arc_esay --model_args pretrained=tiny", "Did you mean 'arc_easy'?"),
        ("--tasks arc_esay --model hf --model_args pretrained=gpt2", "--tasks: no lm-eval task 'arc_esay'."),
        ("--model_args pretrained=tiny", "--tasks: no task is named."),
        ("--tasks arc_easy", "model_args: give exactly one of run and pretrained."),
        (
            "--tasks arc_easy --model_args run=nowhere,stage=1",
            "model_args: run: 'nowhere' is not a run folder",
        ),
        ("--tasks arc_easy --model_args=pretrained=tinny", "model_args: pretrained: no model 'tinny'."),
    ],
)
def test_wrong_arguments_of_lm_eval_are_refused_in_one_line(
    arguments: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from moextend.bench.bridges import lm_eval

    def asked() -> None:
        raise ValueError("Tasks not found: arc_esay")

    monkeypatch.setattr("lm_eval.__main__.cli_evaluate", asked)
    names = ["arc_easy", *(f"task{i}" for i in range(500))]
    monkeypatch.setattr("lm_eval.tasks.TaskManager", lambda: SimpleNamespace(all_tasks=names))
    before = sys.argv
    with pytest.raises(InputError) as error:
        lm_eval.main(arguments.split())
    assert message in str(error.value) and len(str(error.value)) < 300
    assert sys.argv is before


@pytest.fixture
def lmms_task(run: RunDir, workspace: Path, tmp_path: Path) -> Path:
    """A task of the generated world as lmms-eval reads one: a data set on disk and a YAML."""
    from datasets import Dataset, Features, Image, Value

    pytest.importorskip("lmms_eval", reason="lmms-eval is not installed")
    task = run.config.task_spec("tiny-counting")
    rows = [
        {
            "image": {"bytes": item.media[0].read(), "path": None},
            "question": item.question,
            "answer": item.answers[0],
        }
        for item in open_items(task, "test", workspace, LIMIT)
    ]
    features = Features({"image": Image(), "question": Value("string"), "answer": Value("string")})
    (tmp_path / "data").mkdir()
    Dataset.from_list(rows, features=features).to_parquet(tmp_path / "data" / "test.parquet")
    folder = tmp_path / "tasks"
    folder.mkdir()
    (folder / "utils.py").write_text(
        "def visual(doc):\n    return [doc['image'].convert('RGB')]\n\n\n"
        "def text(doc, kwargs=None):\n    return '<image> Q ' + doc['question'] + ' A:'\n\n\n"
        "def score(doc, results):\n"
        "    return {'right': float(results[0].strip().lower() == doc['answer'].lower())}\n"
    )
    config = {
        "task": "world_counting", "dataset_path": "parquet", "test_split": "test", "output_type": "generate_until",
        "dataset_kwargs": {"data_files": {"test": str(tmp_path / "data" / "test.parquet")}},
        "doc_to_target": "answer", "generation_kwargs": {"max_new_tokens": 3, "do_sample": False, "until": ["\n\n"]},
        "metric_list": [{"metric": "right", "aggregation": "mean", "higher_is_better": True}],
    }  # fmt: skip
    functions = "doc_to_visual: !function utils.visual\ndoc_to_text: !function utils.text\n"
    functions += "process_results: !function utils.score\n"
    (folder / "world_counting.yaml").write_text(yaml.safe_dump(config) + functions)
    return folder


def test_lmms_eval_passes_images_and_sounds(tmp_path: Path) -> None:
    import numpy as np
    from PIL import Image

    from tests.data.small import wav

    pytest.importorskip("lmms_eval", reason="lmms-eval is not installed")
    from moextend.bench.bridges.lmms_eval import MoextendLMM

    (tmp_path / "a.wav").write_bytes(wav())
    array = {"array": np.zeros(800, np.float32), "sampling_rate": 8000, "path": "a.wav"}
    decoder = SimpleNamespace(
        get_all_samples=lambda: SimpleNamespace(data=torch.zeros(2, 800), sample_rate=16000)
    )
    shown = [array, Image.new("RGB", (2, 2)), decoder, str(tmp_path / "a.wav")]
    adapter = MoextendLMM.__new__(MoextendLMM)
    adapter.task_dict = {"t": {"test": [{"shown": shown}]}}
    where = (lambda doc: doc["shown"], 0, "t", "test")
    text, media = adapter._asked("<image> or <audio>?", where)
    assert text == "<audio><audio>\n<image> or <audio>?"
    assert [medium.modality for medium in media] == ["audio", "audio", "image", "audio"]
    assert [medium.open().rate for medium in media if medium.modality == "audio"] == [8000, 16000, 8000]
    assert adapter._asked("same?", where)[0] == "<audio><image><audio><audio>\nsame?"
    adapter.task_dict = {"t": {"test": [{"shown": [3]}]}}
    with pytest.raises(InputError, match="has int media, and only images and sounds"):
        adapter._asked("same?", where)


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """lmms-eval makes file locks of one path one lock, and has PIL accept cut images: not after these tests."""
    import filelock
    from PIL import ImageFile

    kind = type(filelock.FileLock)
    monkeypatch.setattr(kind, "__call__", kind.__call__)
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", ImageFile.LOAD_TRUNCATED_IMAGES)


@pytest.mark.slow
@pytest.mark.usefixtures("alone")
def test_lmms_eval_gives_the_numbers_of_the_table(run: RunDir, lmms_task: Path) -> None:
    from lmms_eval.evaluator import simple_evaluate
    from lmms_eval.models import get_model
    from lmms_eval.tasks import TaskManager

    assert get_model("moextend").__name__ == "MoextendLMM", "found by its entry point"
    found = simple_evaluate(
        model="moextend", model_args=f"run={run.folder}", tasks=["world_counting"], batch_size=10, device="cpu",
        task_manager=TaskManager(include_path=str(lmms_task), include_defaults=False), bootstrap_iters=0,
        process_docs_parallel=1, verbosity="ERROR",
    )  # fmt: skip
    assert 100 * found["results"]["world_counting"]["right,none"] == pytest.approx(
        run.cells()[2, "tiny-counting"].value
    )


@pytest.mark.slow
def test_lmms_eval_scores_choices(run: RunDir, lmms_task: Path) -> None:
    """The likelihood of an answer, against the model's own loss on it."""
    from types import SimpleNamespace

    from moextend.bench.bridges.lmms_eval import MoextendLMM
    from moextend.data.conversations import Conversation
    from moextend.model.batches import Collator

    adapter = MoextendLMM(run=str(run.folder))
    adapter.task_dict = {"t": {"test": [{"text": "plain"}]}}
    asked = [("anna lives in", answer, None, 0, "t", "test") for answer in ("oslo .", "two")]
    found = adapter.loglikelihood([SimpleNamespace(args=args) for args in asked])
    model = adapter.model
    for (value, _), (prompt, answer, *_) in zip(found, asked, strict=True):
        batch = Collator.of(model)([Conversation(((prompt, answer),))])
        with torch.no_grad():
            out = model(**batch)
        assert value == pytest.approx(-float(out["loss"]) * len(out["logits"]), abs=1e-4)
