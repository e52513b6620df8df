"""The tasks and sequences that ship with the package."""

import io
import re
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from rich.table import Table

from moextend.bench.data import Item, prompt_text
from moextend.bench.run.plan import Request, resolve
from moextend.bench.run.preview import describe, preview
from moextend.bench.scorers import own_answer
from moextend.bench.sequence import read_sequence
from moextend.bench.task import read_task
from moextend.bench.workspace import catalogue
from moextend.bench.workspace.catalogue import tables
from moextend.util import content

TASKS = content.names("tasks", Path("nowhere"))
SEQUENCES = content.names("registry", Path("nowhere"))
HUB_FILES = Path(__file__).parents[2] / "fixtures" / "hub_files.yaml"
PUBLISHED = {
    "coin": ["scienceqa", "textvqa", "imagenet", "gqa", "vizwiz", "grounding", "vqav2", "ocrvqa"],
    "ucit": ["imagenet-r", "arxivqa", "vizwiz-captions", "iconqa", "clevr-math", "flickr30k"],
    "mllm-cl-dcl": ["remote-sensing", "medical", "driving", "science", "finance"],
    "trigap": ["pmc-vqa", "docvqa", "chartqa", "iconqa", "infographicvqa", "arxivqa", "roadside",
               "chemvqa", "floodnet", "clevr"],
    "trace": ["c-stance", "fomc", "meetingbank", "py150", "scienceqa", "numglue-cm", "numglue-ds", "20minuten"],
}  # fmt: skip


@pytest.mark.parametrize("name", TASKS)
def test_every_task_says_what_it_is_and_how_it_is_scored(name: str) -> None:
    task = read_task(TASKS[name])
    assert task.task == name
    assert task.description and task.source and task.licence
    assert task.non_commercial or not any(word in task.licence for word in ("NC", "research", "not stated)"))
    if task.kind == "text":
        return
    columns = {value for value in task.columns.model_dump().values() if value}
    own = task.layout.more()
    item = Item((), "What?", ("A",), ("one", "two"), id="1", fields=dict.fromkeys(own, "some text"))
    assert own_answer(task.scorer, item), "the scorer is known"
    shown = prompt_text(task, item)
    assert ("{" not in shown and "some text" in shown) or not own
    assert columns, "something is read"


def test_a_line_that_names_an_empty_column_is_left_out() -> None:
    task = read_task(TASKS["scienceqa"])
    item = Item((), "What?", ("A",), ("one", "two"), id="1", fields={"hint": ""})
    assert prompt_text(task, item).splitlines()[0] == "What?"
    item = Item((), "What?", ("A",), ("one", "two"), id="1", fields={"hint": "Look."})
    assert prompt_text(task, item).splitlines()[:2] == ["Context: Look.", "What?"]


@pytest.mark.parametrize("name", [name for name in TASKS if name.startswith(("coin-", "ucit-"))])
def test_tasks_of_data_that_are_copied_from_the_hub_name_its_files(name: str) -> None:
    task, listed = read_task(TASKS[name]), yaml.safe_load(HUB_FILES.read_text(encoding="utf-8"))
    assert task.data is not None
    hub = task.source.removeprefix("hub ").partition(";")[0]
    files = listed[hub][task.data.path.partition("/")[2]]
    assert {task.data.train, task.data.test} <= {f"{file}.json" for file in files}
    assert hub in task.data.prepare


QUICK = ("tiny", "coin", "ucit", "trace")


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.long) for name in SEQUENCES]
)
def test_every_sequence_tells_offline_what_it_would_need(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.HfApi.repo_info", lambda *args, **kwargs: 1 / 0)
    request = Request(tmp_path, sequence=name)
    configs = resolve(request)
    found = preview(request, configs)
    words = describe(found)
    tasks = [read_task(TASKS[re.sub(r"-visit\d+$", "", task["task"])]) for task in found["tasks"]]
    for task in tasks:
        if task.data is not None and task.data.path.startswith("data:"):
            assert task.data.prepare, "data that is put in place by hand says how"
            assert str(tmp_path / "data" / task.data.path.removeprefix("data:")) in words
        assert not task.non_commercial or (f"{task.task}: " in words and "NON-COMMERCIAL" in words)
    if not name.startswith(("tiny", "real-")):
        assert "Downloads:\n  model " in words


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sequences_are_in_the_order_of_their_papers(name: str) -> None:
    prefix = {"mllm-cl-dcl": "dcl"}.get(name, name)
    stages = [stage.task for stage in read_sequence(SEQUENCES[name]).stages]
    assert stages == [f"{prefix}-{task}" for task in PUBLISHED[name]]


def test_trace_has_the_epochs_of_its_paper() -> None:
    steps = [stage.steps for stage in read_sequence(SEQUENCES["trace"]).stages]
    assert steps == [round(epochs * 5000 / 128) for epochs in (5, 3, 7, 5, 3, 5, 5, 7)]


def test_keys_that_are_not_set_leave_a_tasks_record_as_it_was() -> None:
    task = read_task(TASKS["tiny-counting"])
    record = task.model_dump(mode="json")
    assert task.reading() == {}
    assert not {"open_prompt", "answer_as", "needs"} & set(record) and not {"each", "absent"} & set(
        record["data"]
    )
    assert read_task(TASKS["mmbench"]).reading() == {"absent": ("nan",), "answer_as": "letter"}


@pytest.mark.parametrize("name", [name for name in TASKS if (read_task(TASKS[name]).lm_eval or None)])
def test_text_tasks_are_lm_evals_own_with_that_metric(name: str) -> None:
    text = read_task(TASKS[name]).lm_eval
    assert text is not None
    if text.path is not None:
        return
    root = find_spec("lm_eval")
    assert root is not None and root.origin is not None
    family = text.task.partition("_")[0]
    folder = Path(root.origin).parent / "tasks" / {"social": "siqa"}.get(family, family)
    named = re.compile(rf"^(task|group): *[\"']?{re.escape(text.task)}[\"']?$", re.MULTILINE)
    own = [path for path in folder.rglob("*.yaml") if named.search(path.read_text(encoding="utf-8"))]
    assert own, "a task or group of the installed lm-eval"
    assert any(text.metric in path.read_text(encoding="utf-8") for path in folder.rglob("*yaml"))
    unsafe = any("unsafe_code: true" in path.read_text(encoding="utf-8") for path in own)
    assert text.runs_code == unsafe


def test_the_list_says_which_tasks_need_a_judge(tmp_path: Path) -> None:
    found = catalogue.catalogue(tmp_path)
    judged = sorted(task["name"] for task in found["tasks"] if task["needs"] == "judge")
    chat = [f"air-bench-chat-{part}" for part in ("mixed", "music", "sound", "speech")]
    assert judged == [*chat, "alpaca-audio", "clotho-asqa", "mmvet", "openhermes-audio", "wavcaps"]
    table = tables(found)[2]
    assert isinstance(table, Table)
    cells = [str(cell) for column in table.columns for cell in column.cells]
    assert sum(cell.startswith("(needs a judge)") for cell in cells) == len(judged)


def test_a_task_says_which_published_numbers_it_is_comparable_with(tmp_path: Path) -> None:
    found = catalogue.details("coin-gqa", tmp_path, example=False)
    assert found["comparable_with"] == "CoIN rows"
    words = catalogue.describe(found)
    assert "# its scorer is comparable with: CoIN rows\n" in words and "comparable_with" not in words
    assert "comparable_with" not in catalogue.details("arc-easy", tmp_path, example=False)


@pytest.mark.parametrize("width", [80, 120])
def test_names_are_never_cut(tmp_path: Path, width: int) -> None:
    from rich.console import Console

    out = io.StringIO()
    for table in tables(catalogue.catalogue(tmp_path), width):
        Console(file=out, width=width).print(table)
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= width and not any("…" in line for line in lines)
    first = [line.split(" ")[0] for line in lines]
    assert set(TASKS) | set(SEQUENCES) <= set(first)


@pytest.mark.parametrize(("name", "asked"), [("textvqa", "What does nasa say?"), ("vizwiz", "What does nasa say?"),
                                             ("textvqa-ocr", "what does NASA say?")])  # fmt: skip
def test_questions_about_text_begin_as_in_lmms_eval(name: str, asked: str) -> None:
    item = Item((), "what does NASA say?", ("A",), id="1", fields={"ocr_tokens": "x"})
    assert asked in prompt_text(read_task(TASKS[name]), item).splitlines()
