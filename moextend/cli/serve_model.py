"""`moextend serve`: a base and its extensions behind OpenAI's protocol."""

from __future__ import annotations

import os
import re
import select
import sys
from contextlib import suppress
from typing import Annotated, NoReturn

import typer
from typer import Argument, Option

from moextend.cli import options
from moextend.cli.opening import (
    Audio,
    BaseAsked,
    Projector,
    Vision,
    check_extensions,
    encoders_of,
    weighed,
)
from moextend.errors import InputError
from moextend.util import files
from moextend.util.lookup import MOST_TOKENS

PACKAGES = ("fastapi", "uvicorn")
KEY = "MOEXTEND_API_KEY"
QUEUE = 256
"""Prompts that wait; more are refused (429)."""
TIMEOUT = 600.0
"""Seconds from a request to its last token."""
GRACE = 10.0
"""Seconds that open requests get after SIGTERM or Ctrl-C."""
BODY = 32 << 20
"""Bytes of the body of a request, images included."""


def serve(
    base: Annotated[
        str,
        Argument(
            metavar="BASE",
            help="A folder, a .gguf file, a hub id, tiny or smollm2; or what 'export --as moextend' wrote.",
        ),
    ],
    extension: Annotated[
        list[str] | None,
        Option(
            "--extension",
            "-e",
            metavar="[NAME=]FOLDER[:STRENGTH]",
            help="Folder or hub id (also with @revision) of an extension, with a name for clients (default: its own) "
            "and a strength from 0 (the base) to 1 (default); repeatable, oldest first.",
        ),
    ] = None,
    host: Annotated[
        str,
        Option(
            metavar="ADDRESS", help="Address to listen on. A key is required unless it is a loopback address."
        ),
    ] = "127.0.0.1",
    port: Annotated[int, Option(min=0, max=65535, help="Port; 0 chooses a free one.")] = 8000,
    max_batch: Annotated[int, Option(min=1, max=4096, help="Maximum number of rows per forward pass.")] = 16,
    max_new_tokens: Annotated[
        int, Option(min=1, max=MOST_TOKENS, help="Maximum number of tokens per answer.")
    ] = 1024,
    api_key: Annotated[
        str | None,
        Option(
            envvar=KEY,
            show_envvar=True,
            help="Key that clients must send. Set it in the environment: other users can see command lines.",
        ),
    ] = None,
    admin: Annotated[
        bool | None,
        Option(
            "--admin/--no-admin",
            help="Clients may attach and detach extensions in folders of this machine. Default: only on a "
            "loopback address.",
        ),
    ] = None,
    vision: Vision = None,
    audio: Audio = None,
    projector: Projector = None,
    dtype: Annotated[
        str | None,
        Option(
            help="Number type of the base: float32 (default), bfloat16, or auto (the checkpoint's). "
            "Of an exported model: that of the training."
        ),
    ] = None,
    device: options.Device = "auto",
) -> None:
    """Serve a base and its extensions over the OpenAI protocol: the model name selects the extension.

    SIGTERM or Ctrl-C stops the server after the open requests, which get ten seconds.
    """
    from moextend.util.listening import check_packages, is_loopback, listen, url_of

    check_packages(PACKAGES, where="serve")
    _check_key(api_key)
    asked = BaseAsked(base, encoders_of(vision, audio), projector, dtype, device, may_be_extended=True)
    asked.check()
    named = [_split_name(value) for value in extension or ()]
    folders, strengths = weighed([value for _, value in named])
    names = [*[None] * len(asked.extensions), *(name for name, _ in named)]
    folders, strengths = [*asked.extensions, *folders], [*asked.extensions.values(), *strengths]
    check_extensions(folders)
    place = listen(host, port)
    with place:
        address, port = place.getsockname()[:2]
        local = is_loopback(str(address))
        if not (local or api_key):
            raise InputError(
                "everyone on the network could use the server.", where=f"--host {host}",
                hint=f"Set {KEY} to a key that clients must send.",
            )  # fmt: skip
        model = asked.open_for(folders)
        import torch

        from moextend.serving import server
        from moextend.serving.app import Options
        from moextend.serving.engine import Limits

        # Threads that wait for each other and for the one that reads requests would compute little.
        torch.set_num_threads(max(1, torch.get_num_threads() - 1))
        access = server.Access(host, api_key or None, BODY)
        own = Options(TIMEOUT, max_new_tokens, local if admin is None else admin)
        made, engine = server.server_of(model, place, access, Limits(max_batch, QUEUE), own, grace=GRACE)
        for folder, name, strength in zip(folders, names, strengths, strict=True):
            engine.catalogue.attach(folder, name, strength)

        def ready() -> None:
            models = ", ".join(engine.catalogue.known.models())
            options.echo(f"{url_of(host, port)}v1 serves {models}   (process {os.getpid()}; Ctrl-C stops it)")

        with made.signals():
            server.serve(made, engine, place, ready)
            _leave()


def _split_name(value: str) -> tuple[str | None, str]:
    """The name in NAME=FOLDER, and the folder; a folder that has the sign in its own name is taken as it is."""
    name, sign, folder = value.partition("=")
    if not sign or "/" in name or files.exists(value):
        return None, value
    return name, folder


def _check_key(key: str | None) -> None:
    """Raises InputError for a key that a header cannot carry."""
    if key and not re.fullmatch(r"[!-~]+", key):
        raise InputError(
            "the key has a space, or another character than printable ASCII, and no client could send it.",
            where=f"--api-key ({KEY})", hint="Use letters, digits and '-': openssl rand -hex 32 makes one.",
        )  # fmt: skip


def _leave() -> NoReturn:
    """Ends the process at once.

    A thread may be in a long computation, which nothing can interrupt, and the interpreter takes seconds to remove what
    was imported.
    """
    with suppress(OSError, ValueError):
        if select.select([], [sys.stderr], [], 1)[1]:  # a full pipe that nobody reads would block
            typer.echo("stopped.", err=True)
    os._exit(0)
