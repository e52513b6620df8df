"""The command line of a user whose hub is the one of the tests: forked processes with a cache of their own."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests import preloaded
from tests.hub.server import Hub

SETTINGS = {
    **dict.fromkeys(("HF_HUB_DISABLE_TELEMETRY", "HF_HUB_DISABLE_PROGRESS_BARS", "HF_HUB_DISABLE_UPDATE_CHECK"), "1"),
    **dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), ""),
    "HF_TOKEN": "", "HUGGING_FACE_HUB_TOKEN": "", "COLUMNS": "100",
}  # fmt: skip


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


class User:
    """A workspace, and a cache of downloads that only this user has."""

    def __init__(self, hub: Hub, servers: tuple[str, str], home: Path, folder: Path) -> None:
        self.hub, self._servers, self.folder = hub, servers, folder
        self.workspace, self.cache = folder / "workspace", folder / "home"
        self._home, self._output = home, folder / "output"
        for path in (self.workspace, self.cache):
            path.mkdir(parents=True)
        self.use()

    def use(self, cache: Path | None = None) -> None:
        """Makes HF_HOME of all commands this user's, or another folder."""
        self._home.unlink(missing_ok=True)
        self._home.symlink_to(cache or self.cache)

    def start(self, *arguments: str, offline: bool = False, **environment: str) -> socket.socket:
        """Starts `moextend ...`; the connection, which `end` waits for."""
        settings = self.settings(offline=offline) | environment
        order = preloaded.order("cli", *arguments, **settings)
        with self._output.open("wb") as output:
            streams = (0, output.fileno(), output.fileno())
            return preloaded.connect(self._servers[offline], {**order, "folder": str(self.workspace)}, streams)

    def settings(self, *, offline: bool) -> dict[str, str]:
        """The environment of commands."""
        return SETTINGS | environment_of(self.hub, self._home, offline=offline)

    def end(self, client: socket.socket) -> Ended:
        """Waits for a command that was started."""
        code = preloaded.status_of(client)
        return Ended(code, self._output.read_text())

    def __call__(self, *arguments: str, offline: bool = False, **environment: str) -> Ended:
        """Runs `moextend ...` to its end."""
        client = self.start(*arguments, offline=offline, **environment)
        preloaded.pid_of(client)
        return self.end(client)

    def blobs(self, repository: str = "models--*") -> list[Path]:
        """Files of repositories in the cache, whole and incomplete."""
        return sorted(path for path in (self.cache / "hub").glob(f"{repository}/blobs/*") if path.is_file())


def environment_of(hub: Hub, home: Path, *, offline: bool) -> dict[str, str]:
    """What has to be set before huggingface_hub is imported."""
    found = {"HF_ENDPOINT": hub.address, "HF_HOME": str(home), "HF_HUB_OFFLINE": str(int(offline))}
    return found | {"XDG_CACHE_HOME": str(home / "xdg"), "HF_HUB_DISABLE_XET": "1"}


@contextlib.contextmanager
def servers(hub: Hub, folder: Path) -> Iterator[tuple[tuple[str, str], Path]]:
    """Processes that fork commands, one online and one offline; and where their HF_HOME is."""
    home = folder / "home"
    with contextlib.ExitStack() as stack:
        paths = [
            stack.enter_context(
                preloaded.serving(
                    str(folder / name), **SETTINGS, **environment_of(hub, home, offline=name == "offline")
                )
            )
            for name in ("online", "offline")
        ]
        yield (paths[0], paths[1]), home


