"""The HTTP server of the service."""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Generator
from dataclasses import dataclass

from perceptual.config import ServeConfig
from perceptual.errors import ConfigError
from perceptual.fast import prepare_kernels
from perceptual.web import listen, serving, url_of


@dataclass(frozen=True)
class Address:
    """The address of the service. url: such as http://127.0.0.1:8000/. port: the TCP port."""

    url: str
    port: int
    thread: threading.Thread

    @property
    def alive(self) -> bool:
        """Whether the server runs."""
        return self.thread.is_alive()


@contextlib.contextmanager
def running(config: ServeConfig, *, compile_here: bool = False) -> Generator[Address, None, None]:
    """Run the service in a thread until the `with` block ends. Then every accepted request is answered first.

    compile_here: as in `fast.prepare_kernels`.

    Raises:
        ConfigError: a package is missing, the port is used, the host is not an address of this computer, or
            `networks` is wrong.
        CheckpointError: a file in `networks` cannot be used.
        OutputError: the server did not start.
    """
    try:
        import fastapi  # noqa: F401
        import prometheus_client  # noqa: F401
        import python_multipart  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise ConfigError(f"The service needs {error.name}: pip install 'perceptual[serve]'.") from error
    from perceptual.serve.app import Service, application

    prepare_kernels(compile_here=compile_here)
    with contextlib.closing(listen(config.host, config.port)) as listening:
        service = Service(config)
        seconds = math.ceil(config.max_seconds)
        with serving(application(service), listening, wait=seconds, before_stop=service.close) as thread:
            yield Address(url_of(config.host, listening), listening.getsockname()[1], thread)
