"""`moextend serve`: a base and its extensions behind OpenAI's protocol."""

from __future__ import annotations

import os
import re
import select
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NoReturn

import typer
from typer import Option

from moextend.cli import options
from moextend.cli.command import grouped
from moextend.cli.opening import ExtendedBase, check_extensions, weighed
from moextend.errors import InputError
from moextend.util import files
from moextend.util.listening import check_packages, is_loopback, listen, url_of
from moextend.util.lookup import MOST_TOKENS

if TYPE_CHECKING:
    from moextend.serving.engine import Engine, Options
    from moextend.serving.vllm import VllmEngine

PACKAGES = ("fastapi", "uvicorn")
KEY = "MOEXTEND_API_KEY"


@grouped
def serve(
    base: ExtendedBase,
    extension: Annotated[
        list[str] | None,
        Option(
            "--extension", "-e", metavar="[NAME=]FOLDER[:STRENGTH]",
            help="Folder or hub id (also with @revision) of an extension, with a name for clients (default: its own) "
            "and a strength from 0 (the base) to 1 (default); repeatable, oldest first.",
        ),
    ] = None,
    host: Annotated[
        str, Option(metavar="ADDRESS", help="Where to listen. A key is required unless it is a loopback address.")
    ] = "127.0.0.1",
    port: Annotated[int, Option(min=0, max=65535, help="Port; 0 chooses a free one.")] = 8000,
    vllm: Annotated[
        str | None,
        Option(
            metavar="URL", help="Put this server before vLLM, for images, sounds and auto: BASE is the folder that it "
            "serves, URL its address (http://HOST:PORT), or 'start' to start it.",
        ),
    ] = None,
    max_batch: Annotated[int, Option(min=1, max=4096, help="Maximum number of rows per forward pass.")] = 16,
    max_new_tokens: Annotated[
        int, Option(min=1, max=MOST_TOKENS, help="Maximum number of tokens per answer.")
    ] = 1024,
    api_key: Annotated[
        str | None,
        Option(envvar=KEY, help="Key that clients must send; best in the environment, where others do not see it."),
    ] = None,
    admin: Annotated[
        bool | None,
        Option(
            "--admin/--no-admin",
            help="Clients may attach and detach extensions in folders here. Default: only on a loopback address.",
        ),
    ] = None,
    access_log: Annotated[
        Literal["text", "json"] | None, Option(help="Write a line per request to standard error. Default: none.")
    ] = None,
) -> None:  # fmt: skip
    """Serve a base, or an exported model, and extensions over OpenAI's protocol: the model name selects the extension.

    SIGTERM or Ctrl-C stops the server after the open requests, which get ten seconds.
    """
    check_packages(PACKAGES, where="serve")
    if api_key and not re.fullmatch(r"[!-~]+", api_key):
        hint = "Use letters, digits and '-': openssl rand -hex 32 makes one."
        raise InputError("no header can carry this key.", where=f"--api-key ({KEY})", hint=hint)
    if vllm is None:
        base.check()
        extensions = _extensions(base, extension or ())
    else:
        _check_vllm(base, {"-e": extension, "--admin": admin})
    with listen(host, port) as place, ExitStack() as stack:
        address, port = place.getsockname()[:2]
        local = is_loopback(str(address))
        if not (local or api_key):
            raise InputError(
                "everyone on the network could use the server.", where=f"--host {host}",
                hint=f"Set {KEY} to a key that clients must send.",
            )  # fmt: skip
        before = signal.signal(signal.SIGTERM, signal.SIG_DFL)  # an exception may be lost within an import
        from moextend.serving.engine import Answers, Options
        from moextend.serving.server import Server

        signal.signal(signal.SIGTERM, before)
        allowed = local if admin is None else admin
        how = Options(host, api_key or None, allowed, access_log, max_batch, max_new_tokens)
        engine: Answers
        if vllm is None:
            engine = _engine(base, extensions, how)
        else:
            engine = stack.enter_context(_before_vllm(vllm, Path(base.base), how))
        made = Server(engine, place)

        def ready() -> None:
            models = ", ".join(engine.catalogue.known.models())
            options.echo(f"{url_of(host, port)}v1 serves {models}   (process {os.getpid()}; Ctrl-C stops it)")

        made.ready = ready
        made.run(sockets=[place])
    _leave()


Extensions = Sequence[tuple[Path, str | None, float]]
"""Folder of each extension, its name for clients (None: its own), and its strength."""


def _extensions(base: ExtendedBase, given: Sequence[str]) -> Extensions:
    """Those of an extended base, and the given ones."""
    named = [_split_name(value) for value in given]
    folders, strengths = weighed([value for _, value in named])
    names = [name for name, _ in named]
    own = [(folder, None, strength) for folder, strength in base.extensions.items()]
    found = [*own, *zip(folders, names, strengths, strict=True)]
    check_extensions([folder for folder, _, _ in found])
    return found


def _engine(base: ExtendedBase, extensions: Extensions, how: Options) -> Engine:
    """The engine that computes in this process."""
    import torch

    from moextend.serving.catalogue import Catalogue
    from moextend.serving.engine import Engine

    model = base.open_for([folder for folder, _, _ in extensions])
    # Threads that wait for each other and for the one that reads requests would compute little.
    torch.set_num_threads(max(1, torch.get_num_threads() - 1))
    catalogue = Catalogue(model)
    for folder, name, strength in extensions:
        catalogue.attach(folder, name, strength)
    return Engine(catalogue, how)


def _check_vllm(base: ExtendedBase, here: dict[str, object]) -> None:
    """Refuses a base that is no folder, and options of an engine in this process (`here`: those besides the base's)."""
    if not Path(base.base, "config.json").is_file():
        hint = "Name a folder of moextend export --as vllm, or of a base."
        raise InputError(f"'{base.base}' holds no config.json.", where="BASE", hint=hint)
    options.refuse_except_with(
        "computing in this process (no --vllm)",
        here | {"--dtype": base.dtype, "--quantize": base.quantize},
    )


@contextmanager
def _before_vllm(url: str, folder: Path, how: Options) -> Iterator[VllmEngine]:
    """Context with the engine that asks vLLM at an address, or one that is started."""
    from moextend.serving.vllm import START, VllmEngine, started

    with started(folder) if url == START else nullcontext(url) as address:
        yield VllmEngine(address, folder, how)


def _split_name(value: str) -> tuple[str | None, str]:
    """The name in NAME=FOLDER, and the folder; a folder that has the sign in its own name is taken as it is."""
    name, sign, folder = value.partition("=")
    if not sign or "/" in name or files.exists(value):
        return None, value
    return name, folder


def _leave() -> NoReturn:
    """Ends the process at once.

    A thread may be in a long computation, which nothing can interrupt, and the interpreter takes seconds to remove what
    was imported.
    """
    with suppress(OSError, ValueError):
        if select.select([], [sys.stderr], [], 1)[1]:  # a full pipe that nobody reads would block
            typer.echo("stopped.", err=True)
    os._exit(0)
