"""Tasks of lmms-eval, imported from its own YAMLs without running its code."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from moextend.bench.data import open_items, prompt_text
from moextend.bench.task import TaskSpec, find_task
from moextend.bench.workspace.new_task import check, lmms_task
from moextend.errors import InputError
from tests.bench.data.hub_rows import Hub

FOLDER = Path(__file__).parents[2] / "fixtures" / "lmms"

Imported = Callable[..., tuple[TaskSpec, tuple[str, ...]]]
"""Imports a task of lmms-eval by name; its other arguments are columns."""


@pytest.fixture
def imported(hub: Hub, workspace: Path) -> Imported:
    def call(what: str, include: Path | None = FOLDER, **columns: Any) -> tuple[TaskSpec, tuple[str, ...]]:
        return lmms_task(
            f"lmms:{what}", workspace, name="mine", include=include, columns=columns, scorer=None
        )

    return call


@pytest.mark.parametrize(
    ("what", "same"), [("chartqa", "chartqa"), ("docvqa_val", "docvqa"), ("vqav2_val", "vqav2")]
)
def test_a_task_is_the_catalogues_own(what: str, same: str, imported: Imported, workspace: Path) -> None:
    task, notes = imported(what)
    own = find_task(same, workspace)
    assert task.data and own.data
    for key in ("path", "config", "test"):
        assert getattr(task.data, key) == getattr(own.data, key)
    assert (task.prompt, task.scorer, task.max_new_tokens) == (own.prompt, own.scorer, own.max_new_tokens)
    for key in ("image", "question", "answer"):
        assert getattr(task.columns, key) == getattr(own.columns, key)
    assert check(task, workspace)["items"]["test"] == 5
    assert any(note.startswith("doc_to_visual: !function utils.") for note in notes)


def test_captions_and_choices(imported: Imported, workspace: Path) -> None:
    task, notes = imported("flickr30k_test")
    assert (task.kind, task.scorer, task.columns.answer) == ("caption", "cider@1", "caption")
    task, notes = imported("ai2d")
    assert prompt_text(task, open_items(task, "test", workspace)[0]) == (
        "<image>\nWhat does the frog eat?\nA. grass\nB. insects\nC. hawk\nD. sun\n"
        "Answer with the option's letter from the given choices directly."
    )
    assert any("filter_list: answers are not filtered" in note for note in notes)
    assert any("gpt4v, qwen_vl, xcomposer2_4khd: only the default is used" in note for note in notes)


@pytest.mark.parametrize(
    ("what", "message"),
    [
        (
            "gqa",
            r"changes its rows by code \(process_docs: !function utils.gqa_process_docs\), which is not run",
        ),
        (
            "mmvet",
            r"needs a judge .* for gpt_eval_score, and moextend has none. Score a run's model in lmms-eval",
        ),
        ("docvqa", r"is a group of tasks. Import its tasks one by one"),
    ],
)
def test_what_cannot_be_imported_is_reported(what: str, message: str, imported: Imported) -> None:
    with pytest.raises(InputError, match=message):
        imported(what)


def write(folder: Path, text: str) -> Path:
    folder.mkdir()
    (folder / "own.yaml").write_text(
        "task: own\ndataset_path: lmms-lab-encoder/ChartQA\ntest_split: test\n" + text
    )
    return folder


def test_templates_of_plain_columns_are_imported(imported: Imported, tmp_path: Path) -> None:
    task, _ = imported(
        "own",
        write(tmp_path / "a", 'doc_to_text: "Q {x}: {{question}} ({{type}})"\ndoc_to_target: "{{answer}}"\n'),
    )
    assert (task.prompt, task.columns.answer) == ("<image>\nQ {{x}}: {question} ({type})", "answer")
    with pytest.raises(InputError, match="has a template that does more than name columns"):
        imported("own", write(tmp_path / "b", 'doc_to_text: "{{question.strip()}}"\n'))


REST = "dataset_path: lmms-lab-encoder/ChartQA\ntest_split: test\ndoc_to_text: question\n"


@pytest.mark.parametrize(
    "named",
    ["task: own  # a comment", '"task": own', 'task: "own" # quoted', "group: many\ntag:\n- a\n- b\ntask: own"],
)  # fmt: skip
def test_names_are_read_as_yaml(named: str, imported: Imported, tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(f"{named}\n{REST}")
    (tmp_path / "broken.yaml").write_text("task: [\ngroup:x\n\ntag: !include x\n")
    assert imported("own", tmp_path)[0].columns.question == "question"


def test_groups_and_tags_are_named_as_such(imported: Imported, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(f"task: a\ngroup: [many]  # of two\ntag: old\n{REST}")
    (tmp_path / "b.yaml").write_text(f"task: b\ngroup: many\n{REST}")
    (tmp_path / "c.yaml").write_text("group: both\ntask:\n  - a\n  - task: b\n")
    for name in ("many", "old", "both"):
        with pytest.raises(InputError, match=r"is a group of tasks\. Import its tasks one by one"):
            imported(name, tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("include: own.yaml\n", r"own.yaml: includes itself \(through own.yaml\)"),
        ("include: other\n", r"other: includes itself \(through own.yaml\)"),
        ("include: [a, b]\n", "includes several files or code; only one file is supported"),
        ("doc_to_text: !include x.txt\n", "own.yaml: uses the tag !include, which is not supported"),
        (
            "lmms_eval_specific_kwargs: !function utils.x\n",
            r"sets lmms_eval_specific_kwargs by code \(!function utils.x\), which is not run",
        ),
        ("generation_kwargs: !function utils.x\n", "sets generation_kwargs by code"),
        ("dataset_kwargs: !function utils.x\n", "sets dataset_kwargs by code"),
        ("metric_list: !function utils.x\n", "sets metric_list by code"),
    ],
)
def test_invalid_yaml_is_one_clear_error(text: str, message: str, imported: Imported, tmp_path: Path) -> None:
    folder = write(tmp_path / "d", text)
    (folder / "other").write_text("include: own.yaml\n")
    with pytest.raises(InputError, match=message):
        imported("own", folder)


def test_no_code_of_the_folder_is_run(imported: Imported, tmp_path: Path) -> None:
    folder = write(tmp_path / "c", "doc_to_text: !function utils.doc_to_text\n")
    (folder / "utils.py").write_text("raise SystemExit('this was run')\n")
    (folder / "evil.yaml").write_text("task: evil\nx: !!python/object/apply:os.system ['true']\n")
    with pytest.raises(InputError, match="not valid YAML"):
        imported("evil", folder)
    assert imported("own", folder)[0].columns.question == "question"


def test_from_the_command_line(
    hub: Hub, workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from moextend.cli import main

    arguments = ["bench", "add-task", "lmms:chartqa", "--include-path", str(FOLDER), "--name", "charts"]
    monkeypatch.setattr(sys, "argv", ["moextend", *arguments, "--workspace", str(workspace)])
    with pytest.raises(SystemExit) as ended:
        main.run()
    assert ended.value.code == 0
    output = capsys.readouterr().out
    assert (
        "charts (vqa): 5 test items" in output and "not imported: doc_to_visual: !function utils." in output
    )
    written = find_task("charts", workspace)
    assert written.data
    assert (written.scorer, written.data.path) == ("relaxed@1", "lmms-lab-encoder/ChartQA")
    assert check(written, workspace)["items"] == {"test": 5}
