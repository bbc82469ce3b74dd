"""The HTTP server of the page."""

from __future__ import annotations

import contextlib
import inspect
import os
import secrets
from collections.abc import Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from perceptual.config import StudioConfig
from perceptual.errors import ConfigError
from perceptual.web import App, listen, serving, url_of

if TYPE_CHECKING:
    from perceptual.studio.studio import Studio

SETTINGS = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "GRADIO_ANALYTICS_CACHE_FREQUENCY": "1000000000",  # no statistics of all events after each event
    "GRADIO_ANALYTICS_MAX_EVENTS": "100",
    "HF_HUB_OFFLINE": "1",
}
"""Environment variables for gradio: no analytics and no requests to other computers."""
PORTS = 20
"""Number of further ports that are tried if the port is used already."""


@dataclass(frozen=True)
class Address:
    """The address of the page. url: the URL to open; it contains the token if there is one. port: the TCP port."""

    url: str
    port: int


def application(studio: Studio, *, token: str | None) -> App:
    """The page as an ASGI application, with `Guard` as its middleware. token: the secret, or None."""
    os.environ.update(SETTINGS, GRADIO_TEMP_DIR=str(studio.folder.uploads))
    import fastapi
    import gradio as gr

    from perceptual.studio import page
    from perceptual.studio.guard import Guard

    config = studio.config
    blocks = page.build(studio)
    blocks.queue(default_concurrency_limit=2, max_size=400)
    app = fastapi.FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    gr.mount_gradio_app(
        app, blocks, path="/", server_name=config.host, footer_links=[], ssr_mode=False, pwa=False,
        max_file_size=config.max_upload * 1_000_000, allowed_paths=[str(studio.folder.results)], show_error=True,
        enable_monitoring=False, theme=page.theme(), css=page.CSS, js=page.PASTE,
    )  # fmt: skip
    return Guard(app, host=config.host, token=token, limit=config.max_upload * 1_000_000 + 1_000_000)


@contextlib.contextmanager
def running(config: StudioConfig) -> Generator[Address, None, None]:
    """Run the server in a thread until the `with` block ends. Then the jobs save their states, and uploads are deleted.

    Raises:
        ConfigError: gradio is not installed, no port is free, or the host is not an address of this computer.
        ConfigError, WeightsError: `config.weights` names an unknown network or a file that is missing.
        OutputError: the folder cannot be written to.
    """
    try:
        with _without_stubs():
            import gradio  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise ConfigError("The studio needs gradio: pip install 'perceptual[studio]'.") from error
    from perceptual.studio.studio import Studio

    token = config.token or (None if config.is_local else secrets.token_urlsafe(24))
    with contextlib.closing(listen(config.host, config.port, further=PORTS)) as listening:
        url = f"{url_of(config.host, listening)}{f'?token={token}' if token else ''}"
        with (
            contextlib.closing(Studio.open(config)) as studio,
            serving(application(studio, token=token), listening, wait=3),
        ):
            yield Address(url, listening.getsockname()[1])


@contextlib.contextmanager
def _without_stubs() -> Generator[None, None, None]:
    """Stop gradio from writing a .pyi file for each of its components at import. This saves a second."""
    getfile = inspect.getfile

    def only_others(thing: Any) -> str:
        if isinstance(thing, type) and thing.__module__.startswith("gradio."):
            raise OSError  # gradio then makes no file
        return getfile(thing)

    inspect.getfile = only_others  # type: ignore[assignment]
    try:
        yield
    finally:
        inspect.getfile = getfile
