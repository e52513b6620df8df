"""The command line of a user whose hub is the one of the tests: forked processes with a cache of their own."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests import preloaded
from tests.hub.contents import VQA
from tests.hub.server import Hub

SETTINGS = {
    **dict.fromkeys(("HF_HUB_DISABLE_TELEMETRY", "HF_HUB_DISABLE_PROGRESS_BARS", "HF_HUB_DISABLE_UPDATE_CHECK"), "1"),
    **dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), ""),
    "HF_TOKEN": "", "HUGGING_FACE_HUB_TOKEN": "", "COLUMNS": "100", "HUB_PAUSES": "0.05",
}  # fmt: skip


SCIENCE = """\
task: science
dataset_path: allenai/ai2_arc
dataset_name: ARC-Easy
output_type: multiple_choice
training_split: train
validation_split: validation
test_split: test
doc_to_text: "Question: {{question}}\\nAnswer:"
doc_to_target: "{{choices.label.index(answerKey)}}"
doc_to_choice: "{{choices.text}}"
metric_list: [{metric: acc}]
"""
"""lm-eval's arc_easy in a folder of its own, which spares the index of lm-eval's tasks: 7 seconds per process."""


@dataclass(frozen=True)
class Ended:
    """How a command ended, and what it printed to both streams."""

    code: int
    text: str

    @property
    def error(self) -> str:
        """The one line that starts with "error:"."""
        lines = [line for line in self.text.splitlines() if line.startswith("error:")]
        assert len(lines) == 1, self.text
        return lines[0]


@dataclass(frozen=True)
class Server:
    """A process that forks commands."""

    path: str
    home: Path


class User:
    """A workspace, and a cache of downloads that only this user has."""

    def __init__(self, hub: Hub, server: Server, folder: Path) -> None:
        self.hub, self._server, self.folder = hub, server, folder
        self.workspace, self.cache = folder / "workspace", folder / "home"
        self.home, self._output = server.home, folder / "output"
        for path in (self.workspace, self.cache):
            path.mkdir(parents=True)
        self.use()

    def use(self, cache: Path | None = None) -> None:
        """Makes HF_HOME of all commands this user's, or another folder."""
        self.home.unlink(missing_ok=True)
        self.home.symlink_to(cache or self.cache)

    def sequence(
        self, name: str = "shop", *, base: str = "model: org/olmoe", text: bool = False, steps: int = 3
    ) -> None:
        """Writes a sequence about signs, and its task if there is none; `text`: with science questions, only scored."""
        for folder in ("registry", "tasks/science"):
            (self.workspace / folder).mkdir(parents=True, exist_ok=True)
        (self.workspace / f"registry/{name}.yaml").write_text(
            f"sequence: {name}\nversion: 1\nbase: {{{base}, vision: tiny}}\nstages: [{{task: signs}}]\n"
            f"retention: [{'science' if text else ''}]\nmethods: [lora]\nscoring: {{batch_size: 4, limit: 4}}\n"
            f"train: {{steps: {steps}, batch_size: 2, learning_rate: 5.0e-3, checkpoint_steps: 1}}\n"
        )
        signs = self.workspace / "tasks/signs.yaml"
        if not signs.exists():
            signs.write_text(
                f"task: signs\nversion: 1\nkind: vqa\ndata: {{path: {VQA}, train: train, test: validation}}\n"
                "columns: {id: question_id, image: image, question: question, answer: answers, group: image_id}\n"
                'prompt: "<image>\\n{question}\\nAnswer the question using a single word or phrase."\n'
                "scorer: evalai@1\nmax_new_tokens: 4\n"
            )
        (self.workspace / "tasks/science.yaml").write_text(
            "task: science\nversion: 1\nkind: text\nlm_eval: {task: science, path: science}\n"
        )
        (self.workspace / "tasks/science/science.yaml").write_text(SCIENCE)

    def start(self, *arguments: str, offline: bool = False, **environment: str) -> socket.socket:
        """Starts `moextend ...`; the connection, which `end` waits for."""
        settings = self.settings(offline=offline) | environment
        order = preloaded.order("cli", *arguments, **settings)
        with self._output.open("wb") as output:
            streams = (0, output.fileno(), output.fileno())
            return preloaded.connect(self._server.path, {**order, "folder": str(self.workspace)}, streams)

    def settings(self, *, offline: bool) -> dict[str, str]:
        """The environment of commands."""
        return SETTINGS | environment_of(self.hub, self.home, offline=offline)

    def end(self, client: socket.socket) -> Ended:
        """Waits for a command that was started."""
        code = preloaded.status_of(client)
        return Ended(code, self._output.read_text())

    def __call__(self, *arguments: str, offline: bool = False, **environment: str) -> Ended:
        """Runs `moextend ...` to its end."""
        client = self.start(*arguments, offline=offline, **environment)
        preloaded.pid_of(client)
        return self.end(client)

    def run(self, name: str = "shop", **how: Any) -> Ended:
        """`moextend bench run NAME -q`."""
        return self("bench", "run", name, **how)

    def folder_of(self, name: str = "shop", seed: int = 0) -> Path:
        """Folder of a run."""
        return self.workspace / "runs" / name / f"lora-s{seed}"

    def blobs(self, repository: str = "models--*") -> list[Path]:
        """Files of repositories in the cache, whole and incomplete."""
        return sorted(path for path in (self.cache / "hub").glob(f"{repository}/blobs/*") if path.is_file())


def environment_of(hub: Hub, home: Path, *, offline: bool) -> dict[str, str]:
    """What has to be set before huggingface_hub is imported."""
    found = {"HF_ENDPOINT": hub.address, "HF_HOME": str(home), "HF_HUB_OFFLINE": str(int(offline))}
    return found | {"XDG_CACHE_HOME": str(home / "xdg"), "HF_HUB_DISABLE_XET": "1"}


@contextlib.contextmanager
def forking(hub: Hub, folder: Path) -> Iterator[Server]:
    """A process that forks commands, whose HF_HOME is a link to a user's folder."""
    home = folder / "home"
    settings = SETTINGS | environment_of(hub, home, offline=False)
    with preloaded.serving(str(folder / "socket"), **settings) as path:
        yield Server(path, home)
