"""Tasks with sounds, with several media, and with media of a plug-in."""

import base64
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest

from moextend.bench.data import check_task, data_digest, open_items, prompt_text
from moextend.bench.task import Data, TaskSpec
from moextend.data import modalities
from moextend.data.examples import Columns
from moextend.data.media import MediaRef
from moextend.data.modalities import ModalityType, register_modality
from moextend.data.sounds import AudioRef
from moextend.errors import InputError, SpecError
from tests.data.small import WriteJsonl, png, wav

ASK = "<audio>\n{question}"
WHERE = {"word": r"(?P<first>[a-z])[a-z]*", "loud": "true"}


@dataclass(frozen=True)
class CurveRef(MediaRef):
    """Numbers, one per line."""

    modality: ClassVar[str] = "curve"
    noun: ClassVar[str] = "the curve"

    def open(self) -> list[float]:
        return [float(line) for line in self.read().split()]


@pytest.fixture
def curve(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modalities, "_TYPES", dict(modalities._TYPES))
    register_modality(ModalityType(CurveRef))


@pytest.fixture
def heard(workspace: Path) -> Any:
    """A task that reads JSON lines or parquet with sounds."""

    def make(path: Path, prompt: str = ASK, columns: dict[str, Any] | None = None, **data: Any) -> TaskSpec:
        named = {"audio": "clip", "question": "ask", "answer": "reply", **(columns or {})}
        source = Data(path=str(path), **{"train": "all", "test": "all", **data})
        return TaskSpec(
            task="mini", version=1, kind="vqa", data=source, columns=Columns(**named), prompt=prompt,
            path=workspace / "tasks" / "mini.yaml",
        )  # fmt: skip

    return make


def row(i: int, **changes: Any) -> dict[str, Any]:
    return {"clip": f"s{i}.wav", "ask": f"what is {i}", "reply": ["low", "high"][i % 2], **changes}


CELLS = {
    "a path": "s0.wav",
    "base64": base64.b64encode(wav(0)).decode(),
    "a data URL": "data:audio/wav;base64," + base64.b64encode(wav(0)).decode(),
    "bytes and path": {"bytes": None, "path": "s0.wav"},
    "an array": {"array": [0.0, 0.5, -0.5, 0.25], "sampling_rate": 8000, "path": None},
    "a list": ["s0.wav", "s1.wav"],
}


@pytest.mark.parametrize("kind", CELLS)
def test_cells_hold_sounds(kind: str, heard: Any, recordings: Path, write_jsonl: WriteJsonl) -> None:
    path = write_jsonl(recordings / "all.jsonl", [row(0, clip=CELLS[kind])])
    (item,) = open_items(heard(path), "test", recordings)
    count = 2 if kind == "a list" else 1
    assert [type(medium) for medium in item.media] == [AudioRef] * count
    assert item.media[0].open().rate == 8000
    assert prompt_text(heard(path), item) == "<audio>" * count + "\nwhat is 0"


@pytest.mark.parametrize(
    ("prompt", "order"),
    [
        ("<image> <audio> {question}", ["image", "audio"]),
        ("<audio> {question} <image>", ["audio", "image"]),
        ("<image> or <audio> or <image>?", ["image", "audio", "image"]),
        ("<audio> <image>", ["audio", "image", "image"]),
    ],
)
def test_media_are_in_the_order_of_the_marks(
    prompt: str, order: list[str], heard: Any, recordings: Path, write_jsonl: WriteJsonl
) -> None:
    pictures = [f"p{i}.png" for i in range(order.count("image"))]
    for i, name in enumerate(pictures):
        (recordings / name).write_bytes(png(i))
    path = write_jsonl(recordings / "all.jsonl", [row(0, view=pictures)])
    task = heard(path, prompt, {"image": "view"})
    (item,) = open_items(task, "test", recordings)
    assert [medium.modality for medium in item.media] == order
    assert [
        medium.path.name for medium in item.media if medium.modality == "image" and medium.path
    ] == pictures
    text = prompt_text(task, item)
    assert [word for word in text.replace(">", "> ").split() if word in ("<image>", "<audio>")] == [
        f"<{name}>" for name in order
    ]


@pytest.mark.parametrize(
    ("text", "kept"),
    [("<image>", "<image>"), ("<audio>", ""), ("<au<audio>dio>", ""), ("<i<audio>mage>", "<image>")],
)
def test_data_do_not_smuggle_marks(
    text: str, kept: str, heard: Any, recordings: Path, write_jsonl: WriteJsonl
) -> None:
    found = row(0, ask=f"is {text} here?", options=[f"one {text}", "low"], more=f"{text} more")
    path = write_jsonl(recordings / "all.jsonl", [found])
    task = heard(path, "<audio> {question} {choices} {more}", {"choices": "options"})
    shown = prompt_text(task, open_items(task, "test", recordings)[0])
    assert shown.count("<audio>") == 1 and shown.startswith(f"<audio> is {kept} here? A. one {kept}")


def test_rows_that_match(heard: Any, recordings: Path, write_jsonl: WriteJsonl) -> None:
    words = ["low", "High", "tone", "two words", None]
    values = [row(i, word=word, loud=True) for i, word in enumerate(words)] + [
        row(5, word="mute", loud=False)
    ]
    path = write_jsonl(recordings / "all.jsonl", values)
    task = heard(path, columns={"answer": "first", "kind": "word"}, where=WHERE)
    items = open_items(task, "test", recordings)
    assert [(item.answers, item.kind, item.question) for item in items] == [
        (("l",), "low", "what is 0"), (("t",), "tone", "what is 2"),
    ]  # fmt: skip
    assert items[1].row.endswith("all.jsonl:3") and check_task(task, recordings).items == {
        "train": 2,
        "test": 2,
    }
    assert task.reading() == {"where": WHERE}
    plain = heard(path, columns={"answer": "word"})
    assert "where" not in plain.model_dump()["data"]
    assert data_digest(task, "test", recordings) != data_digest(plain, "test", recordings)


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ({"wrd": "x"}, r"data\.where: no column 'wrd' in .* Did you mean 'word'\?"),
        ({"word": "x"}, r"data\.where: none of the 1 rows of .* matches\. .*the whole cell"),
        ({"word": "(?P<ask>.*)"}, r"data\.where: the group 'ask' has the name of a column"),
    ],
)
def test_patterns_that_do_not_fit_the_data(
    where: dict[str, str], message: str, heard: Any, recordings: Path, write_jsonl: WriteJsonl
) -> None:
    path = write_jsonl(recordings / "all.jsonl", [row(0, word="low")])
    with pytest.raises(InputError, match=message):
        open_items(heard(path, where=where), "test", recordings)


@pytest.mark.parametrize("where", [{"word": "("}, {"word": "(?P<a>.)", "ask": "(?P<a>.)"}])
def test_wrong_patterns_are_refused(where: dict[str, str]) -> None:
    with pytest.raises(
        SpecError, match=r"where: ('\(' is not a regular expression|the group 'a' occurs twice)"
    ):
        Data(path="x", where=where)


@pytest.mark.usefixtures("curve")
def test_media_of_a_plug_in(heard: Any, tmp_path: Path, write_jsonl: WriteJsonl) -> None:
    (tmp_path / "a.csv").write_text("1\n2.5\n")
    path = write_jsonl(tmp_path / "all.jsonl", [row(0, curve="a.csv", ask="<curve>up?")])
    task = heard(path, "<curve>\n{question}", {"audio": None, "media": {"curve": "curve"}})
    (item,) = open_items(task, "test", tmp_path)
    assert item.media[0].open() == [1.0, 2.5] and prompt_text(task, item) == "<curve>\nup?"
    assert task.modalities == ("curve",)
