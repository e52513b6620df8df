"""Code of a task, its folder or a model runs only with permission."""

from collections.abc import Callable
from pathlib import Path

import pytest

from moextend.bench.score.records import Cell
from moextend.bench.task import find_task
from moextend.errors import InputError, RunFailed
from tests.bench.score.text.conftest import MakeTask


def test_code_that_a_model_writes_runs_only_where_it_is_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from moextend.bench.score.text.cell import load_task

    monkeypatch.delenv("HF_ALLOW_CODE_EVAL", raising=False)
    task = find_task("mbpp", tmp_path)
    with pytest.raises(
        InputError, match=r"mbpp.yaml: lm_eval: runs code that the model writes. .*--allow-code"
    ):
        assert task.lm_eval
        load_task(task, tmp_path)


def test_an_own_task_that_runs_code_needs_permission(
    score: Callable[..., Cell], make_task: MakeTask, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_ALLOW_CODE_EVAL", raising=False)
    path = workspace / "tasks" / "lm" / "says.yaml"
    path.write_text(path.read_text() + "unsafe_code: true\n")
    with pytest.raises(InputError, match="runs code that the model writes"):
        score(make_task("says", metric="exact_match"))
    monkeypatch.setenv("HF_ALLOW_CODE_EVAL", "1")
    assert score(make_task("says", metric="exact_match")).n == 20


CODE = {
    "a function": (
        "process_docs: !function own.run\n",
        r"lm/evil\.yaml:14: runs Python code \(!function own\.run\)",
    ),
    "a metric that is fetched": ("", r"lm/evil\.yaml:12: runs Python code \(metric: elsewhere/metric\)"),
    "a metric of evaluate": ("", r"lm/evil\.yaml:12: runs Python code \(hf_evaluate: true\)"),
    "pickles": ("", r"lm/evil\.yaml:3: runs Python code \(dataset_path: pandas\)"),
    "an included function": (
        "include: {include}\n",
        r"tasks/hidden:1: runs Python code \(!function lm\.own\.run\)",
    ),
}


@pytest.fixture
def evil(workspace: Path) -> Callable[..., Path]:
    """A task of a folder that writes a file as soon as its code runs."""
    folder = workspace / "tasks" / "lm"
    text = (folder / "says.yaml").read_text().replace("task: says", "task: evil")

    def make(what: str = "a function") -> Path:
        own = text
        if what == "a metric that is fetched":
            own = own.replace("metric: exact_match", "metric: elsewhere/metric")
        if what == "a metric of evaluate":
            own = own.replace("metric: exact_match,", "metric: exact_match, hf_evaluate: true,")
        if what == "pickles":
            own = own.replace("dataset_path: json", "dataset_path: pandas")
        (folder / "evil.yaml").write_text(own + CODE[what][0].format(include=folder.parent / "hidden"))
        (folder / "own.py").write_text(
            f"open({str(workspace / 'executed')!r}, 'w').close()\ndef run(docs):\n    return docs\n"
        )
        (folder.parent / "hidden").write_text("process_docs: !function lm.own.run\n")
        return folder

    return make


@pytest.mark.parametrize("what", CODE)
def test_code_of_a_folder_is_refused(what: str, evil: Callable[..., Path], workspace: Path) -> None:
    from moextend.bench.workspace.new_task import check, new_task

    task = new_task("text", str(evil(what)), workspace, name="evil", columns={}, scorer=None)
    with pytest.raises(InputError, match=CODE[what][1]) as caught:
        check(task, workspace)
    assert "--trust-remote-code" in str(caught.value) and not (workspace / "executed").exists()


def test_code_that_is_trusted_runs_and_the_task_says_so(
    evil: Callable[..., Path], workspace: Path, score: Callable[..., Cell]
) -> None:
    from moextend.bench.workspace.new_task import check, new_task, write_task

    task = new_task("text", str(evil()), workspace, name="evil", columns={}, scorer=None, trust_code=True)
    assert check(task, workspace)["items"] == {"test": 20}
    assert (workspace / "executed").exists()
    assert "trust_remote_code: true" in write_task(task).read_text()
    kept = find_task("evil", workspace)
    assert kept.lm_eval and kept.lm_eval.trust_remote_code
    with pytest.raises(InputError, match="runs Python code"):  # a run asks the same of a task written by hand
        untrusted = kept.lm_eval.model_copy(update={"trust_remote_code": False})
        score(kept.model_copy(update={"lm_eval": untrusted}))


def test_templates_are_rendered_in_a_sandbox(
    workspace: Path, make_task: MakeTask, score: Callable[..., Cell]
) -> None:
    path = workspace / "tasks" / "lm" / "says.yaml"
    reach = "{{ ''.__class__.__mro__[1].__subclasses__() }}"
    path.write_text(path.read_text().replace('"{{context}}"', f'"{reach}"'))
    with pytest.raises(RunFailed, match=r"SecurityError|unsafe"):
        score(make_task("says", metric="exact_match"))
