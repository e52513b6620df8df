"""From the hub to a report: add-task, dry run, run, report; then the same without the hub."""

from __future__ import annotations

import json
import re

import pytest

from tests.hub.commands import User
from tests.hub.contents import ARC, VQA
from tests.hub.server import Hub
from tests.robustness.test_damages import results

SHARDS = {f"model-0000{number}-of-00004.safetensors" for number in (1, 2, 3, 4)}
METADATA = {"config.json", "README.md"}


def test_from_the_hub_to_a_report_and_again_without_it(user: User, hub: Hub) -> None:
    assert user("bench", "new", "sequence", "shop", "--base", "org/olmoe", "--vision", "tiny").code == 0
    added = user("bench", "add-task", "vqa", "--data", VQA, "--name", "signs", "-s", "shop")
    assert added.code == 0 and "20 train, 20 test items" in added.text, added.text
    assert "answer: stop (scores 1 by vqa@2)" in added.text
    user.sequence(text=True)  # as short as a test has to be
    hub.recover()

    dry = user("bench", "run", "shop", "--dry-run", "--json")
    assert dry.code == 0, dry.text
    (model,) = json.loads(dry.text)["downloads"]
    files = next(iter(hub.repositories["models", "org/olmoe"].commits.values()))
    size = sum(len(file.content) for name, file in files.items() if name != "README.md")
    assert model["what"] == "model org/olmoe from the hub" and model["problem"] is None
    assert model["mb"] == pytest.approx(size / 1e6)
    assert set(hub.bodies()) <= METADATA, "weights were downloaded by a dry run"
    assert not [blob for blob in user.blobs("models--*") if blob.stat().st_size > 10_000]

    ran = user.run()
    assert ran.code == 0 and "Traceback" not in ran.text, ran.text
    assert set(hub.bodies()) >= SHARDS and len(hub.bodies()) == len(set(hub.bodies())), "each file once"
    assert user("bench", "run", "shop", "--dry-run").text.count("Downloads: none.") == 1
    report = user("bench", "report", "shop")
    assert report.code == 0 and re.search(r"^ lora ", report.text, re.MULTILINE), report.text
    facts = json.loads((user.folder_of() / "facts.json").read_text())
    assert facts["models"]["base"] == {"org/olmoe": hub.repositories["models", "org/olmoe"].refs["main"]}
    assert facts["revisions"] == {"signs": hub.repositories["datasets", VQA].refs["main"]}
    assert facts["text_data"] == {"science": {ARC: hub.repositories["datasets", ARC].refs["main"]}}

    hub.recover()
    hub.fail(".", status=503)
    again = user("bench", "run", "shop", offline=True)
    assert again.code == 0 and "1 of 1 run was done before." in again.text, again.text
    assert hub.asked == [], "offline, nothing is asked"


@pytest.mark.long
def test_a_run_that_trains_without_the_hub_has_the_same_results(user: User, hub: Hub) -> None:
    command = ("bench", "add-task", "vqa", "--data", VQA, "--name", "signs", "-s", "shop")
    assert user("bench", "new", "sequence", "shop", "--base", "org/olmoe", "--vision", "tiny").code == 0
    assert user(*command).code == 0
    user.sequence(text=True)
    assert user.run().code == 0
    hub.recover()
    hub.fail(".", status=503)
    user.sequence("second", text=True)
    second = user.run("second", offline=True, MOEXTEND_SHARING="off")  # trains itself
    assert second.code == 0, second.text
    assert results(user.folder_of("second")) == results(user.folder_of())
    assert hub.asked == [], "offline, nothing is asked"
