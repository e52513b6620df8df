"""A leaderboard of packs: its numbers are those of the report; it is small, and opens from a disk without a network."""

import base64
import json
import re
import zlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from moextend.bench.report.collect import collect
from moextend.bench.report.packs import packs_in
from moextend.bench.report.page.data import parts
from moextend.bench.report.page.leaderboard import build
from moextend.bench.run.pack import pack
from moextend.bench.run.rundir import find_runs
from moextend.errors import InputError, RunConflict
from tests.bench import ledger
from tests.bench.report.page.conftest import WIDTHS, OpenPage, count_of, until
from tests.bench.report.page.test_access import AXE

SHAPE = ledger.Shape(stages=3, texts=1, items=60)
METHODS = {
    "lora": ledger.Kind(keeps=0.3, run_sd=0.02),
    "replay": ledger.Kind(keeps=0.9, run_sd=0.02),
    "mine:rate=0.5": ledger.Kind(),
}
PUBLISHED = Path(__file__).parents[4] / "docs" / "results" / "packs"
MakePack = Callable[..., Path]
"""Writes the runs of these seeds, and packs them as NAME; `predictions`, `methods`, `sequence`."""


def packed(folder: Path, name: str, seeds: Sequence[int], *, predictions: bool = True, **more: Any) -> Path:
    runs = folder / f"runs of {name}"
    made = ledger.write_runs(runs, SHAPE, more.get("methods", METHODS), seeds)
    for run in made:
        run.write_facts(task_identity="given" if run.config.method.startswith("mine") else "none")
    out = folder / f"{name}.tar.zst"
    pack(find_runs(runs), out, predictions=predictions)
    return out


@pytest.fixture
def make_pack(tmp_path: Path) -> MakePack:
    return partial(packed, tmp_path)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a site: two seeds with answers, and one without."""
    folder = tmp_path_factory.mktemp("site")
    packed(folder, "a", (0, 1))
    packed(folder, "b", (2,), predictions=False)
    build([folder], folder / "out")
    return folder / "out"


def part(site: Path, name: str) -> Any:
    """What a file of the site hands to the page."""
    text = (site / "parts" / f"{name}.js").read_text()
    found = re.fullmatch(r'moextendPart\("(.*?)","(.*?)"\)\n', text)
    assert found and found[1] == name
    return json.loads(zlib.decompress(base64.b64decode(found[2])))


def first(site: Path) -> Any:
    """What the first view shows."""
    text = (site / "index.html").read_text()
    return json.loads(re.findall(r'id="part-site">(.*?)</script>', text)[0])


def test_the_numbers_are_those_of_the_report(site: Path) -> None:
    (pages,) = collect(find_runs(site.parent / "runs of a") + find_runs(site.parent / "runs of b"))[:1]
    wanted = parts([pages]).values["report"]["experiments"][0]
    shown = part(site, "e0")
    flat = {row[0][0]: row for section in shown["summary"]["sections"] for row in section}
    assert flat == {row[0][0]: row for section in wanted["summary"]["sections"] for row in section}
    assert {one["label"] for one in shown["methods"] if one["best"]} == {"replay", "mine:rate=0.5"}
    acc = [one["key"] for one in shown["summary"]["columns"]].index("acc")
    (index,) = first(site)["sequences"]
    assert index["best"] == {
        "given": ["mine:rate=0.5", flat["mine:rate=0.5"][acc][0]], "none": ["replay", flat["replay"][acc][0]],
    }  # fmt: skip
    assert (index["key"], index["methods"], index["seeds"]) == ("ledger@1", 3, [0, 1, 2])
    assert {one["baseline"] for one in shown["comparisons"]} == {"replay", "mine:rate=0.5"}


def test_a_row_has_its_provenance(site: Path) -> None:
    runs = find_runs(site.parent / "runs of a") + find_runs(site.parent / "runs of b")
    made, experiment = part(site, "e0.runs"), part(site, "e0")
    by_id = {run.id: run for run in runs}
    assert [one["id"] for one in made["runs"]] and {one["id"] for one in made["runs"]} == set(by_id)
    for one, shown in zip(made["runs"], experiment["runs"], strict=True):
        run = by_id[one["id"]]
        assert (run.folder.name, run.config.seed) == (shown["name"], shown["seed"])
        assert f"--method {run.config.method}" in one["command"] and "--workspace" not in one["command"]
        (environment,) = [made["environments"][place] for place in one["environments"]]
        assert environment["packages"] and environment["python"]
        assert len(one["costs"]) == SHAPE.stages and one["source"]
    history = first(site)["history"]
    assert [(one["packs"], one["seeds"]) for one in history] == [(["a.tar.zst", "b.tar.zst"], [0, 1, 2])]
    assert {one["name"]: bool(one["description"]) for one in first(site)["methods"]} == {
        "lora": True, "replay": True, "mine": False,
    }  # fmt: skip


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_equal_packs_make_equal_bytes_and_a_run_counts_once(
    site: Path, make_pack: MakePack, tmp_path: Path
) -> None:
    first_one, second = sorted(site.parent.glob("*.tar.zst"))
    again = tmp_path / "bare.tar.zst"
    pack(find_runs(site.parent / "runs of a"), again, predictions=False)
    built = build([again, second, first_one, second], tmp_path / "out")
    assert (built.packs, built.runs, built.sequences) == (3, 9, 1)
    assert files_of(tmp_path / "out") == files_of(site)
    assert built.bytes == sum(map(len, files_of(site).values()))
    assert not [text for text in files_of(site).values() if str(tmp_path.parent).encode() in text]


def test_other_results_of_the_same_run_are_refused(make_pack: MakePack, tmp_path: Path) -> None:
    mine = make_pack("mine", (0,))
    (tmp_path / "x").mkdir()
    theirs = packed(tmp_path / "x", "theirs", (0,), methods={"lora": ledger.Kind(keeps=0.9)})
    with pytest.raises(RunConflict, match="lora-s0 are not those of") as error:
        build([mine, theirs], tmp_path / "out")
    assert {str(mine), str(theirs)} == {
        error.value.where,
        error.value.what.split(" of ")[-1].rstrip(".").split("those of ")[-1],
    }
    assert not (tmp_path / "out").exists()


def test_two_versions_of_a_sequence_are_two_pages(
    make_pack: MakePack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, config = make_pack("old", (0,)), ledger.config

    def newer(*args: Any, **more: Any) -> Any:
        made = config(*args, **more)
        return made.model_copy(update={"sequence": {**made.sequence, "version": 2}})

    monkeypatch.setattr(ledger, "config", newer)
    build([old, make_pack("new", (0,))], tmp_path / "out")
    assert [one["key"] for one in first(tmp_path / "out")["sequences"]] == ["ledger@2", "ledger@1"]


def test_packs_are_found_in_folders(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no pack"):
        packs_in([tmp_path / "empty"])


def test_the_first_view_is_small_and_loads_no_part(open_page: OpenPage, site: Path) -> None:
    tab = open_page("", url=(site / "index.html").as_uri())
    loaded = tab.eval_on_selector_all(
        "[src], link[href^=page]", "all => all.map(own => (own.src || own.href).split('/').pop())"
    )
    assert sorted(loaded) == ["page.css", "page.js"]
    assert sum((site / name).stat().st_size for name in ("index.html", *loaded)) < 150_000
    assert "ledger@1" in tab.inner_text("main") and tab.title() == "Sequences, moextend leaderboard"


def test_numbers_lead_to_runs_and_items_from_the_disk(open_page: OpenPage, site: Path) -> None:
    tab = open_page("", url=(site / "index.html").as_uri())
    tab.evaluate("location.hash = '#/overview?x=gone%401'")
    tab.wait_for_selector("main p:has-text('no sequence “gone@1”')")
    tab.go_back()
    tab.click("main a:has-text('ledger@1')")
    tab.wait_for_selector("section[aria-labelledby=methods] table")
    labels = tab.eval_on_selector_all(
        "section[aria-labelledby=methods] tr.label", "rows => rows.map(row => row.textContent)"
    )
    assert labels == ["References", "Task id given", "No task id"]
    ranked = tab.eval_on_selector_all(
        "section[aria-labelledby=methods] tbody:last-of-type tr:not(.label) th",
        "all => all.map(one => one.textContent)",
    )
    assert ranked == ["replay", "lora"]
    tab.click("tr:has(th:has-text('replay')) td.number a >> nth=1")
    tab.wait_for_selector("section[aria-labelledby=runs] tbody tr")
    shown, made = tab.inner_text("main"), part(site, "e0.runs")["runs"]
    own = [one for one in made if "--method replay" in one["command"]]
    assert len(own) == 3 and all(one["id"] in shown and one["command"] in shown for one in own)
    tab.click("a:has-text('Its items')")
    assert count_of(tab) == 60
    assert "object 7" in tab.inner_text(".virtual")
    tab.click("header a:has-text('leaderboard')")
    tab.wait_for_selector("main h1:has-text('What methods learn')")


def test_filters_are_in_the_address(open_page: OpenPage, site: Path) -> None:
    tab = open_page("overview?x=ledger%401&g=none&q=RE", url=(site / "index.html").as_uri())
    rows = "section[aria-labelledby=methods] tbody tr:not(.label)"
    assert tab.eval_on_selector_all(rows, "all => all.map(row => row.cells[0].textContent)") == ["replay"]
    tab.keyboard.press("/")
    until(tab, "document.activeElement.type === 'search'")
    tab.keyboard.press("ControlOrMeta+a")
    tab.keyboard.type("nothing like that")
    until(tab, f"document.querySelectorAll('{rows}').length === 0")
    tab.keyboard.press("ControlOrMeta+a")
    tab.keyboard.press("Delete")
    until(tab, f"document.querySelectorAll('{rows}').length === 2")
    tab.select_option("label:has-text('Seeds') select", "3")
    until(tab, f"location.hash.includes('n=3') && document.querySelectorAll('{rows}').length === 2")


SITE_VIEWS = [
    "sequences",
    "methods",
    "history",
    "method?m=lora",
    "overview?x=ledger%401",
    "row?x=ledger%401&m=lora",
]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_view_fits_a_phone(open_page: OpenPage, site: Path, scheme: str) -> None:
    for view in SITE_VIEWS:
        tab = open_page(view, "phone", url=(site / "index.html").as_uri(), color_scheme=scheme)
        tab.wait_for_selector("main table")
        assert tab.evaluate("document.documentElement.scrollWidth") <= WIDTHS["phone"][0], view
        paper = tab.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, paper[4:-1].split(","))) < 120) == (scheme == "dark")


def enter(tab: Any, name: str, most: int) -> None:
    """Goes to a link by the tab key alone, and follows it."""
    for _ in range(most):
        tab.keyboard.press("Tab")
        if tab.evaluate("document.activeElement.textContent") == name:
            tab.keyboard.press("Enter")
            return
    raise AssertionError(f"'{name}' is not reached in {most} steps")


def test_a_keyboard_goes_from_the_index_to_a_row(open_page: OpenPage, site: Path) -> None:
    tab = open_page("", url=(site / "index.html").as_uri())
    enter(tab, "ledger@1", 20)
    tab.wait_for_selector("section[aria-labelledby=methods] table")
    enter(tab, "replay", 60)
    tab.wait_for_selector("section[aria-labelledby=runs]")


@pytest.mark.slow  # six views, each looked at by axe
def test_axe_finds_no_barrier(open_page: OpenPage, site: Path) -> None:
    if not AXE.exists():
        pytest.skip("axe-core is not here: make page fetches it")
    for view in SITE_VIEWS:
        tab = open_page(view, url=(site / "index.html").as_uri(), bypass_csp=True)
        tab.wait_for_selector("main table")
        tab.evaluate(AXE.read_text())
        found = tab.evaluate(
            "axe.run(document, {resultTypes: ['violations'], preload: false}).then(found => found.violations)"
        )
        assert [(one["id"], one["nodes"][0]["html"]) for one in found] == [], view


@pytest.mark.long  # all published runs are collected and compared, which takes minutes
def test_the_site_of_the_published_packs_is_small_and_quick(open_page: OpenPage, tmp_path: Path) -> None:
    built = build([PUBLISHED], tmp_path / "out")
    assert built.bytes < 10_000_000
    tab = open_page("", url=built.index.as_uri())
    assert tab.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime") < 1000
    assert tab.locator("main tbody tr >> nth=0").is_visible()
    for one in first(tmp_path / "out")["sequences"]:
        tab.evaluate("key => { location.hash = `#/overview?x=${encodeURIComponent(key)}` }", one["key"])
        tab.wait_for_selector(f"header select:has(option:checked:has-text('{one['key']}'))")
        tab.wait_for_selector("section[aria-labelledby=methods] table")
