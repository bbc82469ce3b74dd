"""Checks every request before any other code reads it, and counts the answers."""

from __future__ import annotations

import json
import time
from collections.abc import Collection

from starlette.responses import Response

from perceptual.config.checks import LOCAL
from perceptual.serve.body import drain, too_large
from perceptual.serve.metrics import Metrics
from perceptual.serve.refusals import Refused
from perceptual.web import App, Message, Receive, Scope, Send, headers_of, host_name, origin_of, same_token

OPEN = "/health"
"""Paths that begin with this need no token."""
HEADERS = [(b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store")]


class Guard:
    """ASGI middleware. It refuses requests without the token, from pages of other sites, or with a body too large.

    app: the application behind it. token: the secret, or None. host: the address that the server listens on; if only
    this computer can reach it, requests must name it, and pages of other sites may not send requests (DNS rebinding).
    limit: largest body in bytes. paths: the paths that the metrics name; others are counted as "other".
    """

    def __init__(
        self, app: App, metrics: Metrics, *, token: str | None, host: str, limit: int, paths: Collection[str]
    ) -> None:
        self.app, self.metrics, self.token, self.host, self.limit = app, metrics, token, host, limit
        self.paths = frozenset(paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request: refuse it, or pass it to the application."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)  # there are no WebSockets
            return
        began, took, status, unread = time.monotonic(), None, 499, True

        async def counted() -> Message:
            nonlocal unread
            message = await receive()
            unread = bool(message.get("more_body", False))
            return message

        async def answer(message: Message) -> None:
            nonlocal status, took
            if message["type"] == "http.response.start":
                status, took = message["status"], time.monotonic() - began
                message = {**message, "headers": [*message.get("headers", []), *HEADERS]}
            elif status >= 400 and unread and not message.get("more_body", False):
                await send({**message, "more_body": True})  # the whole reply: a client may read it while it sends
                await drain(counted)
                message = {"type": "http.response.body"}
            await send(message)

        try:
            refusal = self._refusal(scope["path"], headers_of(scope))
            if refusal is not None:
                self.metrics.refused(refusal.kind)
                await reply_of(refusal)(scope, counted, answer)
            else:
                await self.app(_with_get(scope), counted, answer)
        finally:
            path = scope["path"] if scope["path"] in self.paths else "other"
            self.metrics.answered(path, status, time.monotonic() - began if took is None else took)

    def _refusal(self, path: str, headers: dict[str, str]) -> Refused | None:
        if self.host in LOCAL:
            own = headers.get("host", "")
            if host_name(own) not in LOCAL:
                return Refused(403, "site", "This name is not an address of this service: use 127.0.0.1.")
            origin = headers.get("origin")
            if origin is not None and origin_of(origin) != own:
                return Refused(403, "site", "Requests from other sites are refused.")
        if self.token is not None and not path.startswith(OPEN):
            kind, _, given = headers.get("authorization", "").partition(" ")
            if kind.lower() != "bearer" or not same_token(given.strip(), self.token):
                sentence = "The token is missing or wrong: send it in the header Authorization: Bearer TOKEN."
                return Refused(401, "token", sentence, www_authenticate="Bearer")
        length = headers.get("content-length", "0")
        if not length.isdecimal():
            return Refused(400, "body", "The Content-Length of the request is not a number.")
        return too_large(self.limit) if int(length[:20]) > self.limit else None


def _with_get(scope: Scope) -> Scope:
    """HEAD is answered as GET. uvicorn sends the headers alone."""
    return {**scope, "method": "GET"} if scope["method"] == "HEAD" else scope


def reply_of(refusal: Refused) -> Response:
    """The reply to a refused request."""
    body = json.dumps({"kind": refusal.kind, "error": str(refusal)})
    return Response(body, refusal.status, {"content-type": "application/json", **refusal.headers})
