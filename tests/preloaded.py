"""A process with all imports of a worker that forks one for each client: a worker in 0.1 s instead of 5.

Run as `preloaded.py serve SOCKET`, it waits for clients. Run as `preloaded.py worker SOCKET`, or `script SOCKET FILE`
with arguments, it is a client: it hands its standard streams, folder and environment over, lives as long as the forked
process, and ends as that one ends.
What is forked runs the true worker, the true command line with such clients as its workers, or a script.
"""

import contextlib
import fcntl
import gc
import glob
import importlib
import json
import os
import runpy
import select
import signal
import socket
import socketserver
import subprocess
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator
from typing import Any

STREAMS = 3
IMPORTS = (
    "moextend.bench.methods.lora", "moextend.bench.methods.moextend", "moextend.bench.run.runner",
    "moextend.bench.run.worker", "moextend.bench.score.text.harness", "moextend.cli.runs",
    "moextend.extension.learning", "open_clip", "transformers.models.mixtral.modeling_mixtral",
)  # fmt: skip
"""What a worker and a command line import at some time. Imported by name: a linter removes imports that nobody uses."""


def unsynced(file: object) -> None:
    """Stands for os.fsync in tests, whose machine loses no power."""


def connect(path: str, order: dict[str, Any], streams: tuple[int, ...]) -> socket.socket:
    """A connection to the server that has forked a process for `order`; it ends with the process, and the reverse."""
    client = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    client.connect(path)
    socket.send_fds(client, [json.dumps(order).encode()], streams)
    return client


def pid_of(client: socket.socket) -> int:
    """The process that was forked."""
    return int(client.recv(64))


def status_of(client: socket.socket) -> int:
    """Waits until the forked process has ended; its exit status, negative for a signal."""
    return int(client.recv(64) or b"-9")


def order(kind: str, *arguments: str, **environment: str) -> dict[str, object]:
    """What to fork: "worker", "cli" with its arguments ("armed": one that kills itself), or "script" with its path."""
    return {
        "kind": kind,
        "arguments": arguments,
        "folder": os.getcwd(),  # noqa: PTH109
        "environment": {**os.environ, **environment},
    }


def run(path: str, folder: str, output: str, *arguments: str, **environment: str) -> int:
    """Runs `moextend ARGUMENTS` in a folder to its end; the exit status. What it prints is added to a file."""
    with open(output, "ab") as stream:  # noqa: PTH123
        client = connect(
            path,
            {**order("cli", *arguments, **environment), "folder": folder},
            (0, stream.fileno(), stream.fileno()),
        )
    pid_of(client)
    return status_of(client)


@contextlib.contextmanager
def serving(path: str, **environment: str) -> Iterator[str]:
    """A server at the socket `path`, which imports with this environment; yields the path."""
    process = _started(path, subprocess.PIPE, **environment)
    assert process.stdin
    yield path
    process.stdin.close()
    process.wait(timeout=60)
    os.unlink(path)  # noqa: PTH108


@contextlib.contextmanager
def joined(folder: str) -> Iterator[str]:
    """The server of all processes that name this folder: the first one starts it, and it ends with the last one."""
    path, pipe = f"{folder}/socket", f"{folder}/clients"
    os.makedirs(folder, exist_ok=True)  # noqa: PTH103
    with open(f"{folder}/lock", "w") as lock:  # noqa: PTH123
        fcntl.flock(lock, fcntl.LOCK_EX)
        with contextlib.suppress(FileExistsError):
            os.mkfifo(pipe)
        try:
            held = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:  # nobody reads the pipe: the server is not there yet, or has ended
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)  # noqa: PTH108
            end = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
            held = os.open(pipe, os.O_WRONLY)
            _started(path, end).returncode = 0  # nobody waits for it: it may outlive this process
            os.close(end)
    yield path
    os.close(held)


def _started(path: str, clients: int, **environment: str) -> subprocess.Popen[bytes]:
    """A server that is ready, and ends with its standard input."""
    own = {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **environment}
    process = subprocess.Popen(
        [sys.executable, __file__, "serve", path],
        stdin=clients,
        stdout=subprocess.PIPE,
        env={**os.environ, **own},
    )
    assert process.stdout and process.stdout.readline() == b"ready\n"
    return process


def be_client(kind: str, path: str, *arguments: str) -> None:
    """Stands for the forked worker or script: passes interrupts on, and ends as it ends."""
    client = connect(path, order(kind, *arguments), (0, 1, 2))
    pid = pid_of(client)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda received, _: os.kill(pid, received))
    for stream in range(STREAMS):  # the ends of pipes belong to the worker alone
        os.dup2(os.open(os.devnull, os.O_RDWR), stream)
    code = status_of(client)
    if code < 0:
        os.kill(os.getpid(), -code)
    sys.exit(code)


class Handler(socketserver.BaseRequestHandler):
    """Forks a process for a client, in a process of its own, and tells the client how it ended."""

    request: socket.socket

    def handle(self) -> None:
        """Serves the client until one of both is gone."""
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        message, streams, _, _ = socket.recv_fds(self.request, 1 << 20, STREAMS)
        pid = os.fork()
        if not pid:
            for stream, fd in enumerate(streams):
                os.dup2(fd, stream)
                os.close(fd)
            self.request.close()
            _become(json.loads(message), str(self.server.server_address))
        for fd in streams:
            os.close(fd)
        self.request.send(str(pid).encode())
        threading.Thread(target=self.kill_with_client, args=(pid,), daemon=True).start()
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        with contextlib.suppress(OSError):  # nobody may ask any more
            self.request.send(str(code).encode())

    def kill_with_client(self, pid: int) -> None:
        """A client says nothing: what is received is its end."""
        with contextlib.suppress(OSError):
            self.request.recv(1)
            os.kill(pid, signal.SIGKILL)


class Server(socketserver.ForkingMixIn, socketserver.UnixStreamServer):
    """Forks for every client, whose process ends with the client."""

    socket_type = socket.SOCK_SEQPACKET
    request_queue_size = 16
    block_on_close = False


def serve(path: str) -> None:
    """Forks for every client until the standard input ends."""
    for name in IMPORTS:
        importlib.import_module(name)
    vars(os)["fsync"] = unsynced
    if "HUB_PAUSES" in os.environ:
        _shorten_pauses(float(os.environ["HUB_PAUSES"]))
    with Server(path, Handler) as server:
        gc.collect()
        gc.freeze()  # else every child looks through all that was imported, at the end of each training
        print("ready", flush=True)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for what it forks
        while 0 not in select.select([0, server.fileno()], [], [])[0]:
            server.handle_request()


def _shorten_pauses(share: float) -> None:
    """Has huggingface_hub wait for a share of its time before it asks again: up to half a minute."""
    from huggingface_hub.utils import _http

    impatient = {**vars(time), "sleep": lambda seconds: time.sleep(share * seconds)}
    vars(_http)["time"] = types.SimpleNamespace(**impatient)


def _become(order: dict[str, Any], path: str) -> None:
    """Runs the worker or the command line in this process, and ends it."""
    code = 1
    try:
        os.setpgid(0, 0)
        os.chdir(order["folder"])
        os.environ.clear()
        os.environ.update(order["environment"])
        if order["environment"].get("HF_HUB_OFFLINE") == "1":
            _go_offline()
        if order["kind"] == "worker":
            _arm()
            from moextend.bench.run.worker import main

            sys.argv = ["moextend-worker", *order["arguments"]]  # not those of the server
            main()
        elif order["kind"] == "script":
            sys.argv = order["arguments"]
            runpy.run_path(sys.argv[0], run_name="__main__")
        else:
            from moextend.bench.run import launch
            from moextend.cli.main import run

            launch.WORKER, launch.TICK = client_command(path), 0.02
            if order["kind"] == "armed":
                _arm()
            sys.argv = ["moextend", *order["arguments"]]
            run()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(bool(end.code))
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _go_offline() -> None:
    """Does what HF_HUB_OFFLINE does before these packages are imported."""
    import datasets
    from huggingface_hub import constants

    vars(constants)["HF_HUB_OFFLINE"] = True
    vars(datasets.config).update(HF_HUB_OFFLINE=True, HF_DATASETS_OFFLINE=True)


def _arm() -> None:
    """Has this process kill itself: at the file operation KILL_AT, or once a file like KILL_WHEN is there."""
    at, when = int(os.environ.get("KILL_AT", "0")), os.environ.get("KILL_WHEN")
    if not at and not when:
        return
    count = 0

    def counted(operation: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **more: object) -> object:
            nonlocal count
            count += 1
            if count == 2 * at - 1:
                os.kill(os.getpid(), signal.SIGKILL)
            found = operation(*arguments, **more)
            count += 1
            if count == 2 * at or (when and glob.glob(when)):  # noqa: PTH207
                os.kill(os.getpid(), signal.SIGKILL)
            return found

        return call

    for name in ("replace", "rename", "fsync", "unlink", "rmdir", "truncate", "ftruncate"):
        setattr(os, name, counted(getattr(os, name)))


def client_command(path: str, *script: str) -> tuple[str, ...]:
    """The command of a client, as a worker's, or as that of a script with its arguments."""
    return (sys.executable, "-I", "-S", __file__, "script" if script else "worker", path, *script)


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2])
    else:
        be_client(*sys.argv[1:])
