"""The core library from the shell: align, extend, generate."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from PIL import Image

import moextend
from moextend.sharing.hub import pushed
from moextend.sharing.model_card import model_card
from tests.cli.conftest import Cli

COLORS = {"red": (255, 0, 0), "blue": (0, 0, 255)}


def test_a_dtype_reaches_the_base(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    load = Mock(wraps=moextend.load)
    monkeypatch.setattr(moextend, "load", load)
    question = ("generate", "tiny", "--prompt", "anna lives in", "--max-new-tokens", "1", "--device", "cpu")
    assert cli(*question, "--dtype", "auto").code == 0
    assert load.call_args.kwargs["dtype"] == "auto"
    refused = cli(*question, "--dtype", "bfloat61")
    assert refused.code == 2 and "'--dtype': 'bfloat61' is not one of 'auto', 'float32'" in refused.err


def test_text_is_learned_generated_and_described(cli: Cli, tmp_path: Path) -> None:
    rows = [("carl works as", "poet"), ("anna lives in", "oslo"), ("bob owns a", "goat")]
    table = [{"question": question, "answer": answer} for question, answer in rows]
    (tmp_path / "facts.json").write_text(json.dumps(table))
    made = cli("extend", "tiny", "--data", "facts.json", "--name", "facts", "--out", "out", "--template", "{question}",
               "--layers", "0,3", "--steps", "25", "--learning-rate", "5e-3", "--json")  # fmt: skip
    assert made.code == 0, made.err
    assert made.json()["plan"].keys() == {"0", "3"} and made.json()["conversations"] == 3
    assert made.json()["prompt"] == "carl works as"
    question = ("generate", "tiny", "--prompt", "carl works as", "--max-new-tokens", "3")
    assert cli(*question, "--extension", "out").out.strip() == "poet"
    assert cli(*question, "--extension", "out", "--auto").out.strip() == "poet"
    assert cli(*question).out.strip() != "poet"
    record = json.loads((tmp_path / "out/extension.json").read_text())
    assert (record["name"], record["mode"], record["beside"]) == ("facts", "exact", [])
    again = cli("extend", "tiny", "--data", "facts.json", "--name", "b", "--out", "out")
    assert again.code == 2 and "already holds an extension" in again.err
    wrong = cli("extend", "tiny", "--data", "facts.json", "--name", "b", "--out", "new", "--layers", "some")
    assert wrong.code == 2 and "layers: name probe, all" in wrong.err


@pytest.mark.slow  # loads, attaches and trains once per routing
@pytest.mark.parametrize(
    "plan",
    [
        ("--layers", "0,2", "--experts", "3", "--width", "0.43"),
        ("--layers", "all", "--routing", "paper", "--scope", "own"),
        ("--layers", "random", "--share", "0.25", "--routing", "slot", "--scope", "own"),
    ],
    ids=["exact", "paper", "slot"],
)
def test_a_dry_run_names_the_parameters_that_extend_trains(
    plan: tuple[str, ...], cli: Cli, tmp_path: Path
) -> None:
    rows = [{"question": f"who is {i}", "answer": "anna"} for i in range(6)]
    (tmp_path / "facts.json").write_text(json.dumps(rows))
    command = [
        *["extend", "tiny", "--data", "facts.json", "--name", "facts", "--out", "out", "--steps", "1"],
        *plan,
    ]
    found = cli(*command, "--dry-run", "--json")
    assert found.code == 0 and sorted(path.name for path in tmp_path.iterdir()) == [".cache", "facts.json"]
    estimate = found.json()
    assert estimate["steps"] == 1 and estimate["peak_gb"] > estimate["weights_gb"] > 0 < estimate["hours"]
    made = cli(*command, "--json").json()
    assert made["parameters"] == estimate["parameters"]


def test_extend_says_that_several_layers_forget_more_with_scope_all(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "facts.json").write_text(json.dumps([{"text": "anna lives in oslo"}] * 3))

    def noted(name: str, *more: str) -> bool:
        made = cli(
            "extend", "tiny", "--data", "facts.json", "--name", name, "--out", name, "--steps", "1", *more
        )
        assert made.code == 0, made.err
        return "new experts in several layers" in made.out and "--retention latent" in made.out

    assert noted("two", "--scope", "all", "--layers", "1,2")
    assert not noted("latent", "--scope", "all", "--layers", "1,2", "--retention", "latent")
    assert (tmp_path / "latent" / "latents.safetensors").is_file()
    then = ("extend", "tiny", "--data", "facts.json", "--steps", "1", "-e", "latent", "--scope", "all",
            "--layers", "1,2")  # fmt: skip
    assert cli(*then, "--name", "b", "--out", "b", "--retention", "latent").code == 0
    own = cli("extend", "tiny", "--data", "facts.json", "--name", "c", "--out", "c", "--retention", "latent")
    assert own.code == 2 and "--retention: requires --scope all, and the scope is auto" in own.err
    for retention, error in (
        ("output", "'latent' is active and has no router-input memory"),
        ("all", "retention: Input should be 'none', 'memory', 'output' or 'latent'"),
    ):
        wrong = cli(*then, "--name", "c", "--out", "c", "--retention", retention)
        assert wrong.code == 2 and error in wrong.err and not (tmp_path / "c").exists()


def test_the_command_of_the_model_card_makes_the_same_weights(cli: Cli, tmp_path: Path) -> None:
    rows = [{"q": f"{name} lives in", "city": "oslo", "note": "x"} for name in ("anna", "bob", "carl")]
    (tmp_path / "facts.json").write_text(json.dumps(rows))
    first = cli("extend", "tiny", "--data", "facts.json", "--name", "first", "--out", "first", "--scope", "all",
                "--columns", "question=q,answer=city", "--steps", "2")  # fmt: skip
    assert first.code == 0, first.err
    made = cli("extend", "tiny", "--data", "facts.json", "--name", "facts", "--out", "facts", "--layers", "0,3",
               "--columns", "question=q,answer=city", "--template", "Who's there? {question}", "-e", "first",
               "--scope", "all", "--licence", "mit", "--steps", "3", "--seed", "4")  # fmt: skip
    assert made.code == 0, made.err
    card = model_card(pushed(tmp_path / "facts"), "me/facts")
    command, config = re.findall(r"^```(?:sh|yaml)\n(.*?)^```$", card, re.DOTALL | re.MULTILINE)
    assert "--template 'Who'" in command and "-e" not in shlex.split(command), command
    (tmp_path / "config.yaml").write_text(config)
    (tmp_path / "facts").rename(tmp_path / "former")
    again = cli(*shlex.split(command)[1:])
    assert again.code == 0, again.err
    old, new = (json.loads((tmp_path / name / "extension.json").read_text()) for name in ("former", "facts"))
    assert old["sha256"] == new["sha256"] and old["made"]["options"] == new["made"]["options"]


def test_extend_says_what_changed_and_keeps_a_log(cli: Cli, tmp_path: Path) -> None:
    table = [{"question": f"carl works as {i}", "answer": "poet"} for i in range(20)]
    (tmp_path / "facts.json").write_text(json.dumps(table))
    (tmp_path / "own.yaml").write_text(
        "settings: {steps: 99, learning_rate: 5.0e-3, schedule: constant, betas: [0.9, 0.95],\n"
        "  gradient_accumulation: 2, checkpoint_steps: 5}\n"
        "recipe: {layers: [0, 3], scope: own, calibration: false}\n"
    )
    call = ("extend", "tiny", "--data", "facts.json", "--name", "facts", "--template", "{question}")
    more = ("--steps", "12", "--licence", "CC0-1.0")
    made = cli(*call, "--out", "out", "--config", "own.yaml", "--batch-size", "4", *more)
    assert made.code == 0, made.err
    assert [line.split("  ")[1] for line in made.out.splitlines()[2:6]] == [
        "loss", "held-out likelihood", "held-out exact", "what else changed",
    ]  # fmt: skip
    assert "+0.000" in made.out.splitlines()[5], "the base answers inputs that are not the extension's"
    log = [json.loads(line) for line in (tmp_path / "out/log.jsonl").read_text().splitlines()]
    assert {entry["phase"] for entry in log} == {"train"} and log[-1]["step"] == 12
    card = json.loads((tmp_path / "out/extension.json").read_text())["made"]
    assert (card["base"], card["data"], card["licence"]) == ("tiny", "facts.json", "CC0-1.0")
    assert card["conversations"] == 20 and card["loss_last"] == log[-1]["loss"] < card["loss_first"]
    assert (card["version"], len(card["data_digest"])) == (moextend.__version__, 32) and card["date"][
        :2
    ] == "20"
    expected = {
        key: card["settings"][key] for key in ("steps", "batch_size", "gradient_accumulation", "schedule")
    }
    assert expected == {"steps": 12, "batch_size": 4, "gradient_accumulation": 2, "schedule": "constant"}
    assert card["settings"]["betas"] == [0.9, 0.95] and card["settings"]["epsilon"] == 1e-8
    assert card["recipe"]["layers"] == [0, 3] and card["recipe"]["calibration"] is False
    for text, message in (
        ("settings: {stepss: 3}", "own.yaml: settings: stepss: no such key. Did you mean 'steps'?"),
        ("settings: {betas: [0.9, 1.5]}", "own.yaml: settings: betas[1]: Input should be less than 1"),
        ("settings: [1]", "own.yaml: settings: "),
        ("setings: {steps: 3}", "own.yaml: setings: no such key. Did you mean 'settings'?"),
        ("recipe: {layers: [a]}", "own.yaml: recipe: layers"),
        ("settings: {report_to: nothing}", "report_to: "),
    ):
        (tmp_path / "own.yaml").write_text(text)
        refused = cli(*call, "--out", "new", "--config", "own.yaml")
        assert refused.code == 2 and message in refused.err.replace("\n", " "), refused.err


def test_a_text_file_is_learned_as_it_is(cli: Any, tmp_path: Any) -> None:
    (tmp_path / "own.txt").write_text("carl works as poet\nanna lives in oslo\nbob owns a goat\n")
    made = cli("extend", "tiny", "--data", "own.txt", "--name", "own", "--out", "out", "--layers", "0,3",
               "--steps", "25", "--learning-rate", "5e-3")  # fmt: skip
    assert made.code == 0, made.err
    assert made.out.startswith("3 texts, the first: 'carl works as poet'\n")
    assert "(log-likelihood per token, 1 held-out texts)" in made.out and "held-out exact" not in made.out
    question = ("generate", "tiny", "--prompt", "carl works as", "--max-new-tokens", "1")
    assert cli(*question, "--extension", "out", "--auto").out.strip() == "poet"
    assert cli(*question).out.strip() != "poet"


def test_images_without_an_encoder_are_refused_before_a_model_is_loaded(
    cli: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(moextend, "load", None)
    Image.new("RGB", (8, 8)).save(tmp_path / "0.png")
    (tmp_path / "captions.csv").write_text("image,caption\n" + "0.png,a thing\n" * 20)
    found = cli("extend", "tiny", "--data", "captions.csv", "--name", "x", "--out", "x")
    assert found.code == 2 and "captions.csv: row 1: column 'image'" in found.err
    assert "there is no image encoder. Name one: --vision" in found.err
    own = ("--vision", "tiny", "--data", "captions.csv", "--name", "x", "--out", "x")
    for more in ((), ("--dry-run",)):
        found = cli("extend", "tiny", *own, *more)
        assert found.code == 2 and not (tmp_path / "x").exists(), found.err
        assert (
            "--projector: none is given for the image encoder" in found.err and "moextend align" in found.err
        )


def test_images_are_aligned_learned_and_asked_about(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "tiny").mkdir()  # the base and the encoder are those of the package all the same
    table = []
    for i, (color, rgb) in enumerate([*COLORS.items()] * 4):
        Image.new("RGB", (32, 32), rgb).save(tmp_path / f"{i}.png")
        table.append({"image": f"{i}.png", "question": "Q what color is it A:", "answer": color})
    (tmp_path / "colors.json").write_text(json.dumps(table))
    own = [
        "--template",
        "<image> {question}",
        *["--data", "colors.json", "--steps", "15", "--learning-rate", "5e-3"],
    ]
    found = cli("align", "tiny", "--vision", "tiny", *own, "--out", "projector")
    assert found.code == 0 and "wrote projector" in found.out, found.err
    sees = ("--vision", "tiny", "--projector", "projector")
    found = cli("extend", "tiny", *sees, *own, "--name", "colors", "--out", "colors", "--layers", "all")
    assert found.code == 0 and "8 conversations, the first prompt: '<image> Q what color" in found.out, (
        found.err
    )
    asked = ("--prompt", "<image> Q what color is it A:", "--image", "0.png", "--max-new-tokens", "1")
    for carried_or_named in ((), sees):
        found = cli("generate", "tiny", *carried_or_named, "--extension", "colors", *asked)
        assert found.out.strip() == "red", found.err
    found = cli("certify", "colors", "--base", "tiny", *own[:4], "--items", "4", "--scope", "own")
    assert found.code == 0 and "proved       unload" in found.out, found.out + found.err
    assert cli("export", "colors", "--base", "tiny", "--as", "moextend", "--out", "whole").code == 0
    (photo,) = moextend.load_model("whole").modalities
    assert photo == "image"
    assert json.loads(Path("whole/config.json").read_text())["base"] == "tiny"
    assert json.loads(Path("colors/modality-image.json").read_text())["encoder"] == "tiny"
