"""The service before the first request, and requests that no browser sends."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from pathlib import Path
from unittest.mock import AsyncMock, Mock

import pytest
from test_serve import ask, png, port, serving_here

from perceptual.config import ServeConfig, StudioConfig
from perceptual.errors import ConfigError
from perceptual.serve.app import Service
from perceptual.web import _server, listen

__all__ = ["port"]


def test_a_device_that_is_not_there_is_refused_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="There is no device 'cuda:99' on this computer"):
        Service(ServeConfig(device="cuda:99"))
    pytest.importorskip("gradio")
    from perceptual.studio.studio import Studio

    with pytest.raises(ConfigError, match="There is no device 'cuda:99' on this computer"):
        Studio.open(StudioConfig(folder=tmp_path / "studio", device="cuda:99"))


def test_a_network_that_cannot_be_loaded_at_the_start_is_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(service: Service) -> None:
        raise MemoryError("too little")

    monkeypatch.setattr(Service, "_paint_once", fail)
    with serving_here() as (service, _):
        until = time.monotonic() + 10
        while "could not be loaded" not in caplog.text and time.monotonic() < until:
            time.sleep(0.01)
        assert not service.health().ready
    assert "the gallery could not be loaded, so the service is not ready" in caplog.text
    assert "too little" in caplog.text


@pytest.mark.parametrize("path", ["/styles", "/stylize"])
def test_an_origin_that_is_no_address_is_refused(port: int, path: str) -> None:
    reply = ask(port, path, png() if path == "/stylize" else None, Origin="http://[")
    assert reply.status == 403
    assert json.loads(reply.body)["kind"] == "site"


def test_a_path_with_a_slash_too_many_is_an_error_in_json(port: int) -> None:
    reply = ask(port, "/stylize/", png())
    assert reply.status == 404
    assert json.loads(reply.body)["error"]


def test_a_port_that_only_the_administrator_may_open_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def bind(self: socket.socket, address: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket.socket, "bind", bind)
    with pytest.raises(ConfigError, match="This user may not open the port 81: choose one above 1023"):
        listen("127.0.0.1", 81)


def test_connections_that_are_left_at_the_end_are_closed() -> None:
    server, connection = _server(AsyncMock(), 0), Mock()
    server.servers, server.lifespan = [], AsyncMock()
    server.server_state.connections.add(connection)  # a browser opened it after the others were told to end
    asyncio.run(server.shutdown())
    connection.transport.abort.assert_called_once_with()
