"""Checks every request to the page, before any other code reads it."""

from __future__ import annotations

import ipaddress
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs

from fastapi.responses import PlainTextResponse, RedirectResponse

from perceptual.config.checks import LOCAL
from perceptual.web import (
    App,
    Message,
    Receive,
    Scope,
    Send,
    headers_of,
    host_name,
    origin_of,
    same_token,
    with_headers,
)

COOKIE = "perceptual-studio"
POLICY = (
    "default-src 'self' data: blob:; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; connect-src 'self' data: blob:; frame-ancestors 'none'; form-action 'self'; "
    "base-uri 'self'; object-src 'none'"
)
"""The page loads nothing from other computers, and no other page can show it in a frame."""
DISCARDED = 50_000_000
"""Bytes of a body that is too large that are read before the answer."""
HEADERS = [
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
]


class Guard:
    """ASGI middleware. It refuses requests that are from other sites, without the token, or too large.

    app: the application behind it. host: the address that the server listens on. token: the secret, or None.
    limit: largest body of a request, in bytes.

    - Host must be an address of this server. Otherwise another site could point its own name at this computer (DNS
      rebinding).
    - Origin, if there is one, must be that same host. Requests that another site starts are refused.
    - With a token, the first address must contain ?token=... Later requests have it in a cookie.
    """

    def __init__(self, app: App, *, host: str, token: str | None, limit: int) -> None:
        self.app, self.host, self.token, self.limit = app, host, token, limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request: refuse it, or pass it to the application."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        headers = headers_of(scope)
        refusal = self._refusal(headers)
        if refusal is None and self.token is not None and not self._knows_token(headers):
            query = parse_qs(scope.get("query_string", b"").decode("latin-1"))
            if scope["type"] == "http" and self._is_token((query.get("token") or [""])[0]):
                await self._redirect(scope, receive, send)
                return
            refusal = (401, "Open the page with the address that the command printed: it contains the token.")
        if refusal is not None:
            if refusal[0] == 413:
                await _discard(receive)
            await _refuse(scope, receive, send, *refusal)
            return
        await self.app(scope, _limited(receive, self.limit), with_headers(send, HEADERS))

    def _refusal(self, headers: dict[str, str]) -> tuple[int, str] | None:
        """(HTTP status, sentence) if the request must be refused, with or without the token; else None."""
        host = host_name(headers.get("host", ""))
        if not self._is_own(host):
            return 403, "This name is not an address of this page: open the address that the command printed."
        origin = headers.get("origin")
        if origin is not None and origin_of(origin) != headers["host"]:
            return 403, "Requests from other sites are refused."
        if headers.get("sec-fetch-site") == "cross-site" and headers.get("sec-fetch-mode") != "navigate":
            return 403, "Requests from other sites are refused."
        length = headers.get("content-length", "0")
        if not length.isdecimal():
            return 400, "The Content-Length of the request is not a number."
        if int(length[:20]) > self.limit:
            return 413, f"The file is larger than {self.limit / 1e6:.0f} MB: start the page with a larger --max-upload."
        return None

    def _is_own(self, host: str) -> bool:
        if host in LOCAL or host == self.host:
            return True
        if self.host in LOCAL or self.token is None:
            return False
        try:
            ipaddress.ip_address(host)  # DNS rebinding needs a name, not an IP address
        except ValueError:
            return False
        return True

    def _knows_token(self, headers: dict[str, str]) -> bool:
        try:
            cookie = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
        except CookieError:
            return False
        return cookie is not None and self._is_token(cookie.value)

    def _is_token(self, text: str) -> bool:
        return self.token is not None and same_token(text, self.token)

    async def _redirect(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Store the token in a cookie and open the page without it in the address."""
        response = RedirectResponse("/", 303)
        response.set_cookie(COOKIE, self.token or "", httponly=True, samesite="strict")
        await response(scope, receive, send)


async def _discard(receive: Receive) -> None:
    """Read the first megabytes of a body. A client that is still sending might not see the answer."""
    left = DISCARDED
    while left > 0:
        message = await receive()
        left -= len(message.get("body", b""))
        if not message.get("more_body"):
            return


async def _refuse(scope: Scope, receive: Receive, send: Send, status: int, sentence: str) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008, "reason": sentence[:120]})
        return
    await PlainTextResponse(sentence, status)(scope, receive, send)


def _limited(receive: Receive, limit: int) -> Receive:
    """Wrap `receive`, to end a request with a body of more than `limit` bytes. Its Content-Length may be missing."""
    seen = 0

    async def counted() -> Message:
        nonlocal seen
        message = await receive()
        if message["type"] == "http.request":
            seen += len(message.get("body", b""))
            if seen > limit:
                return {"type": "http.disconnect"}
        return message

    return counted
