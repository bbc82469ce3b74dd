"""What the page in the browser and the HTTP service share: a listening socket, uvicorn, and checks of requests."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
import threading
from collections.abc import Awaitable, Callable, Generator, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from perceptual.errors import ConfigError, OutputError

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


def listen(host: str, port: int, *, further: int = 0) -> socket.socket:
    """A listening socket. port: 0 for any free one. further: number of further ports to try if this one is used.

    Raises:
        ConfigError: no port is free or allowed, or the host is not an address of this computer.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for each in range(port, min(port + further, 65_535) + 1) if port else (0,):
        listening = socket.socket(family, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((host, each))
            listening.listen(128)
        except OSError as error:
            listening.close()
            if isinstance(error, PermissionError) and each < 1024:
                raise ConfigError(f"This user may not open the port {each}: choose one above 1023.") from error
            if isinstance(error, socket.gaierror) or error.errno not in (98, 13, 48, 10048, 10013):
                raise ConfigError(f"{host} is not an address of this computer: choose another --host.") from error
        else:
            return listening
    taken = f"The ports from {port} on are" if further else f"The port {port} is"
    raise ConfigError(f"{taken} used already: choose another --port, or 0 for any free port.")


def url_of(host: str, listening: socket.socket) -> str:
    """The address for a browser, such as http://127.0.0.1:8000/."""
    return f"http://{f'[{host}]' if ':' in host else host}:{listening.getsockname()[1]}/"


@contextlib.contextmanager
def serving(
    app: App, listening: socket.socket, *, wait: int | None, before_stop: Callable[[], object] = lambda: None
) -> Generator[threading.Thread, None, None]:
    """Run an ASGI application by uvicorn, in a thread, until the `with` block ends. Yields the thread.

    wait: seconds that running requests have at the end, or None for as long as they need. before_stop: called at the
    end of the block, before uvicorn stops. After an exception in the block, uvicorn stops at once.

    Raises:
        OutputError: the server did not start.
    """
    server = _server(app, wait)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, name="server", daemon=True)
    thread.start()
    try:
        while not server.started:
            thread.join(0.02)
            if not thread.is_alive():
                raise OutputError("The server did not start: choose another --port.")
        yield thread
        before_stop()
    except BaseException:  # such as a second Ctrl-C
        server.force_exit = True
        raise
    finally:
        server.should_exit = True
        thread.join(None if wait is None else wait + 7)


def _server(app: App, wait: int | None) -> Any:
    """The server of uvicorn. At its end it also closes connections that a browser opened at the last moment."""
    import uvicorn

    class Server(uvicorn.Server):
        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            await super().shutdown(sockets)
            for connection in list(self.server_state.connections):
                connection.transport.abort()
            await asyncio.sleep(0.01)  # until the transports are closed

    return Server(uvicorn.Config(app, log_level="critical", access_log=False, timeout_graceful_shutdown=wait))


def same_token(text: str, token: str) -> bool:
    """Whether a text is the token. The time that it takes does not depend on the text."""
    return secrets.compare_digest(text.encode(), token.encode())


def host_name(host: str) -> str:
    """The name in a Host header, without its port."""
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""


def origin_of(origin: str) -> str:
    """The host and port of an Origin header; "" if it is no address."""
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return ""


def headers_of(scope: Scope) -> dict[str, str]:
    """The headers of a request: {name in lower case: value}."""
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}


def with_headers(send: Send, headers: list[tuple[bytes, bytes]]) -> Send:
    """Wrap `send`, to add headers to every response."""

    async def added(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", []), *headers]}
        await send(message)

    return added
