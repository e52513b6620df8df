"""Methods and scorers of a workspace and of other packages are found, run, and reported if broken."""

import hashlib
import importlib
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from moextend.bench import methods, plugins, scorers
from moextend.bench.run.inputs import code_parts, refuse_other_inputs
from moextend.bench.run.opening import open_run
from moextend.bench.run.plan import Request, resolve
from moextend.bench.run.rundir import RunDir
from moextend.bench.scorers import Answered, find_scorer, own_answer, score_set
from moextend.bench.workspace import new_plugin
from moextend.errors import InputError, RunConflict, UnknownName
from tests.bench.cells import cell_of

EXAMPLE = Path(__file__).parents[3] / "examples" / "methods" / "lora_l2.py"
SCORER = """
from moextend.bench.scorers import Scorer

FIRST = Scorer("starts@1", rule="the prediction starts like the answer", item=lambda output, gold: float(
    gold.answers[0].startswith(output[:1])))
SECOND = Scorer("starts@2", rule="always right", item=lambda output, gold: 1.0)
"""
BROKEN = {
    "def broken(:\n": r"methods/mine.py:1: cannot be imported \(SyntaxError",
    "import json\nimport no_such_module\n": r"methods/mine.py:2: cannot be imported \(ModuleNotFoundError",
    "x = 1\n": r"methods/mine.py: holds no subclass of Method",
    "raise ValueError('a\\nb')\n": r"methods/mine.py:1: cannot be imported \(ValueError: a b\)",
    "from moextend.bench.methods import Method\nclass A(Method): pass\n": "'A' does not implement learn, restore, save",
    "from moextend.bench.methods import Trained\nclass A(Trained): pass\nclass B(Trained): pass\n": "holds 2 methods",
    "from moextend.bench.methods import OneAdapter as B\nclass A(B):\n class Config: 0\n": "the Config of 'A'",
}  # fmt: skip


@pytest.fixture
def add(tmp_path: Path) -> Callable[..., Path]:
    """Writes a file of the workspace."""

    def write(name: str, text: str, folder: str = "methods") -> Path:
        path = tmp_path / folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return path

    return write


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Puts a package with entry points on the path."""

    def install(
        points: dict[str, str], source: str = "", name: str = "other_package", group: str = "moextend.methods"
    ) -> None:
        site = tmp_path / "site"
        info = site / f"{name}-1.2.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
        lines = [f"[{group}]", *(f"{key} = {value}" for key, value in points.items())]
        (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
        (site / f"{name}_code.py").write_text(source)
        monkeypatch.syspath_prepend(str(site))
        monkeypatch.delitem(sys.modules, f"{name}_code", raising=False)
        importlib.invalidate_caches()

    return install


def test_a_file_of_the_workspace_is_a_method(add: Callable[..., Path], tmp_path: Path) -> None:
    add("lora_l2.py", EXAMPLE.read_text())
    found = methods.parse("lora-l2:strength=0.5,rank=2", {"lora-l2": {"strength": 3, "alpha": 1}}, tmp_path)
    assert found.config.model_dump().items() >= {"strength": 0.5, "rank": 2, "alpha": 1}.items()
    assert (found.source.origin, found.source.place) == ("workspace", "methods/lora_l2.py")
    assert len(found.source.sha256) == 64
    assert found.make().task_identity == "none" and found.role is None
    with pytest.raises(InputError, match="method 'lora-l2:strength=-1': strength"):
        methods.parse("lora-l2:strength=-1", workspace=tmp_path)
    with pytest.raises(UnknownName, match=r"no method 'lora-l3'\. Did you mean 'lora-l2'"):
        methods.parse("lora-l3", workspace=tmp_path)
    with pytest.raises(UnknownName):
        methods.parse("lora-l2")


def test_plug_ins_share_files_of_their_folder(add: Callable[..., Path], tmp_path: Path) -> None:
    source = "from ._shared import RANK\nfrom moextend.bench.methods import OneAdapter as B\nclass A(B):\n r = RANK\n"
    add("mine.py", source)
    add("other.py", source)
    with pytest.raises(InputError, match=r"methods/mine.py:1: cannot be imported \(ModuleNotFoundError"):
        methods.parse("mine", workspace=tmp_path)
    found = []
    for rank in ("3", "4"):
        add("_shared.py", f"class RANK:\n  value = {rank}\n")
        mine, other = (methods.parse(name, workspace=tmp_path) for name in ("mine", "other"))
        assert mine.kind is not other.kind and vars(mine.kind)["r"] is vars(other.kind)["r"]
        found.append((vars(mine.kind)["r"].value, mine.source.sha256))
    (first, digest), (second, changed) = found
    assert (first, second) == (3, 4) and digest != changed
    assert [each.name for each in methods.KNOWN.listed(tmp_path) if each.origin == "workspace"] == [
        "mine",
        "other",
    ]
    for broken in ("\n= 3\n", "\nraise OSError\n"):
        add("_shared.py", broken)
        with pytest.raises(InputError, match=r"methods/_shared.py:2: cannot be imported \("):
            methods.parse("mine", workspace=tmp_path)


@pytest.mark.parametrize("source", BROKEN)
def test_a_broken_plug_in_is_named_in_one_line_and_the_rest_works(
    add: Callable[..., Path], tmp_path: Path, source: str
) -> None:
    add("mine.py", source)
    add("lora_l2.py", EXAMPLE.read_text())
    with pytest.raises(InputError, match=BROKEN[source]) as found:
        methods.parse("mine", workspace=tmp_path)
    assert "\n" not in str(found.value)
    output: list[str] = []
    configs = resolve(Request(tmp_path, methods=("all",)), None, output.append)
    assert output == [str(found.value)]
    names = [config.method for config in configs if config.mode == "sequence"]
    assert names == [*methods.OWN, "lora-l2"]


def test_a_plug_in_cannot_replace_a_name_of_the_package(add: Callable[..., Path], tmp_path: Path) -> None:
    add("lora.py", EXAMPLE.read_text())
    add("joint.py", EXAMPLE.read_text())
    output: list[str] = []
    (config,) = resolve(Request(tmp_path, methods=("lora",)), None, output.append)
    (line,) = output
    assert "methods/lora.py: 'lora' is the name of a method of the package" in line
    assert config.method_spec.source == plugins.PACKAGE
    resolve(Request(tmp_path, methods=("ewc",)), None, output.append)
    assert len(output) == 1, "another method is none of its business"
    problems = {each.name: str(each.problem) for each in methods.KNOWN.listed(tmp_path) if each.problem}
    assert "stands for something else" in problems["joint"]


def test_an_entry_point_is_a_method(installed: Callable[..., None]) -> None:
    installed(
        {"theirs": "other_package_code:LoraL2", "bad": "other_package_code:Nothing", "worse": "nowhere:X"},
        EXAMPLE.read_text(),
    )
    assert methods.parse("theirs:rank=4").source.record() == {
        "from": "other_package 1.2",
        "place": "other_package_code:LoraL2",
        "sha256": hashlib.sha256(EXAMPLE.read_bytes()).hexdigest(),
    }
    listed = {each.name: str(each.problem) for each in methods.KNOWN.listed(None) if each.problem}
    assert "bad = other_package_code:Nothing (other_package 1.2): cannot be imported" in listed["bad"]
    assert "No module named 'nowhere'" in listed["worse"]


def test_a_run_notes_its_plug_ins_and_is_refused_when_one_changed(
    add: Callable[..., Path], tmp_path: Path
) -> None:
    path = add("lora_l2.py", EXAMPLE.read_text())
    (config,) = resolve(Request(tmp_path, methods=("lora-l2",)))
    run = open_run(config, tmp_path / "runs")
    noted = code_parts(run.config)
    assert list(noted) == ["code of method 'lora-l2'"]
    run.append_cell(cell_of(1, "tiny-counting", 50.0, inputs=noted))
    refuse_other_inputs(run, {})
    path.write_text(path.read_text() + "\n# changed\n")
    with pytest.raises(RunConflict, match="the code of method 'lora-l2' changed after this run began"):
        refuse_other_inputs(RunDir(run.folder), {})
    (config,) = resolve(Request(tmp_path, methods=("lora",)))
    assert code_parts(config) == {}


def test_scorers_of_the_workspace(add: Callable[..., Path], tmp_path: Path) -> None:
    add("starts.py", SCORER, "scorers")
    scorers.search(tmp_path)
    answered = [Answered("1", "reddish", ("red",)), Answered("2", "blue", ("red",))]
    assert score_set("starts@1", answered).items == (1.0, 0.0)
    assert score_set("starts@2", answered).value == 1.0
    assert own_answer("starts@1", answered[0]) == "red"
    assert scorers.source_of("starts@1", tmp_path).place == "scorers/starts.py"
    with pytest.raises(UnknownName, match=r"no scorer 'starts@3'\. Did you mean 'starts@"):
        find_scorer("starts@3")
    with pytest.raises(UnknownName, match="no scorer 'begins@1'"):
        find_scorer("begins@1")
    scorers.search(tmp_path / "elsewhere")
    with pytest.raises(UnknownName):
        find_scorer("starts@1")


@pytest.mark.parametrize(
    ("name", "source", "message"),
    [
        ("mine.py", "x = 1\n", "scorers/mine.py: holds no Scorer"),
        ("mine.py", SCORER, "holds starts@1, starts@2, and no scorer called mine@VERSION"),
        (
            "mine.py",
            "from moextend.bench.scorers import Scorer\nS = Scorer('mine@1', 'a')\n",
            "either 'item' or",
        ),
        ("exact.py", SCORER, "'exact' is the name of a scorer of the package"),
    ],
)
def test_broken_scorers_are_named(
    add: Callable[..., Path], tmp_path: Path, name: str, source: str, message: str
) -> None:
    add(name, source, "scorers")
    listed = [each for each in scorers.KNOWN.listed(tmp_path) if each.problem]
    assert message in str(listed[0].problem)
    assert find_scorer("exact@1").rule
    scorers.search(tmp_path)
    if name == "mine.py":
        with pytest.raises(InputError, match="mine"):
            find_scorer("mine@1")


@pytest.mark.parametrize("name", ["mine", "my-rule"])
@pytest.mark.parametrize("kind", ["method", "scorer"])
def test_a_written_template_runs_without_changes(tmp_path: Path, kind: str, name: str) -> None:
    path, _ = new_plugin.write_new(kind, name, tmp_path)
    assert path == tmp_path / f"{kind}s" / f"{name.replace('-', '_')}.py"
    if kind == "method":
        assert (
            methods.parse(f"{name}:strength=0.5", workspace=tmp_path).config.model_dump()["strength"] == 0.5
        )
    else:
        scorers.search(tmp_path)
        found = score_set(f"{name}@1", [Answered("1", "a red thing", ("red cube",))])
        assert found.value == 0.5


def test_nothing_is_overwritten_and_names_are_checked(tmp_path: Path) -> None:
    new_plugin.write_new("method", "mine", tmp_path)
    (tmp_path / "methods" / "mine.py").write_text("# mine\n")
    for name in ("mine", "lora", "all", "1st", "a b", "a/b", ""):
        with pytest.raises(InputError, match=r"bench new method: '.*' is (taken|not a name)"):
            new_plugin.write_new("method", name, tmp_path)
    with pytest.raises(InputError, match="bench new scorer: 'exact' is taken"):
        new_plugin.write_new("scorer", "exact", tmp_path)
    with pytest.raises(UnknownName, match=r"no kind 'methd'\. Did you mean 'method'"):
        new_plugin.write_new("methd", "x", tmp_path)
    assert [path.name for path in tmp_path.rglob("*.py")] == ["mine.py"]
    assert (tmp_path / "methods" / "mine.py").read_text() == "# mine\n"
