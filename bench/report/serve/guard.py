"""What a request must have before anything is answered: a method that reads, a known host, and the token."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from moextend.util.listening import is_answered

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; media-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
"""Headers of every answer. No Access-Control-Allow-Origin: no other site reads an answer."""
READS = ("GET", "HEAD")


@dataclass(frozen=True)
class Guard:
    """An application behind the checks. Query strings are never logged, as one may hold the token."""

    app: ASGIApp
    token: str | None
    """None: no token is needed."""
    hosts: tuple[str, ...] | None
    """Names in the Host header that are answered, against DNS rebinding. None: any, as the token protects."""
    cookie: str = "moextend"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request, or refuses it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        answer = self._answer(Request(scope)) or self.app
        await answer(scope, receive, send_with_headers)

    def _answer(self, request: Request) -> Response | None:
        """A refusal, or the end of a login; None: the application answers."""
        if request.method not in READS:
            return _text("This server only reads.", 405, Allow=", ".join(READS))
        if not is_answered(request.headers.get("host", ""), self.hosts):
            return _text(
                "This server does not answer requests for this host name. Open the address that it printed.",
                403,
            )
        if self.token is None:
            return None
        if request.scope["path"] == "/" and _same(request.query_params.get("token", ""), self.token):
            return self._logged_in(self.token)
        scheme, _, bearer = request.headers.get("authorization", "").partition(" ")
        given = bearer if scheme.lower() == "bearer" else request.cookies.get(self.cookie, "")
        if not _same(given, self.token):
            return _text("A token is needed. Open the address that the server printed, with its token.", 401)
        return None

    def _logged_in(self, token: str) -> Response:
        """Keeps the token in a cookie, and takes it out of the address."""
        answer = RedirectResponse("/", 303)
        answer.set_cookie(self.cookie, token, httponly=True, samesite="lax", path="/")
        return answer


def _same(given: str, token: str) -> bool:
    """Whether two texts are equal, in a time that does not depend on where they differ."""
    return secrets.compare_digest(given.encode("utf-8", "surrogatepass"), token.encode())


def _text(text: str, status: int, **headers: str) -> Response:
    return PlainTextResponse(text + "\n", status, headers)
