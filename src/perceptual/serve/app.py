"""The endpoints of the service, as a FastAPI application."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, TypeVar

import torch
from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException

from perceptual.apply import Stylizer
from perceptual.config import ServeConfig, StylizeRequest, UpscaleRequest
from perceptual.devices import choose_device
from perceptual.errors import ConfigError
from perceptual.serve.body import left, read_body
from perceptual.serve.formats import MEDIA, choose_ending
from perceptual.serve.guard import Guard, reply_of
from perceptual.serve.metrics import CONTENT_TYPE, Metrics
from perceptual.serve.networks import Listed, Networks
from perceptual.serve.options import options_from, parameters
from perceptual.serve.queue import Job, Queue
from perceptual.serve.refusals import Error, Refused, as_options
from perceptual.serve.work import Load, Made, check_header, convert
from perceptual.web import App

log = logging.getLogger("perceptual.serve")
logging.getLogger("python_multipart").setLevel(logging.ERROR)  # it warns of each damaged form

R = TypeVar("R", StylizeRequest, UpscaleRequest)

PATHS = {
    *("/stylize", "/upscale", "/styles", "/upscalers", "/metrics", "/openapi.json"),
    *("/health", "/health/live", "/health/ready"),
}
STATUSES = {
    400: "The picture is damaged, or the form is, or there is none.",
    401: "The token is missing or wrong.",
    403: "The request comes from a page of another site.",
    404: "There is no such style, network or path.",
    406: "Accept names no format that can be written.",
    408: "The picture did not arrive in time.",
    413: "The file or the picture is too large.",
    415: "This is not a picture of a known format.",
    422: "An option is unknown or out of range.",
    503: "The queue is full, the service stops, or the time is over. Retry-After says when to try again.",
}


@dataclass(frozen=True)
class Health:
    """The state of the service. live: it answers. ready: it accepts pictures. queue: number of accepted requests."""

    live: bool
    ready: bool
    queue: int


class Service:
    """The networks, the queue and the numbers of one running service."""

    def __init__(self, config: ServeConfig) -> None:
        self.config = config
        self.networks = Networks(config.networks, device=str(choose_device(config.device)))
        self.queue = Queue(config.max_queue)
        self.metrics = Metrics(lambda: self.queue.length)
        self._warm = False
        self.queue.soon(self._warm_up)

    def health(self) -> Health:
        """The state now."""
        return Health(True, self._warm and not self.queue.stopping, self.queue.length)

    def close(self) -> None:
        """Accept no further request, and wait until all accepted ones are answered."""
        self.queue.close()

    async def answer(self, request: Request, kind: type[R], find: Callable[[R], Load]) -> Response:
        """Answer a request for a picture. kind: its options. find: checks the names in them, and finds the network."""
        until = time.monotonic() + self.config.max_seconds
        with self.queue.slot():
            data, given = await read_body(request, most=self.config.max_bytes, until=until)
            options = options_from(kind, given)
            try:
                load = find(options)
            except ConfigError as error:
                raise Refused(422, "option", as_options(str(error), set(vars(options)))) from error
            header = await asyncio.to_thread(check_header, data, self.config.max_pixels)
            ending = choose_ending(options.format, request.headers.get("accept", ""), header.ending)

            def work(job: Job) -> Made:
                began = time.monotonic()
                made = convert(job, data, load, most=self.config.max_pixels, ending=ending, quality=options.quality)
                seconds = time.monotonic() - began
                self.metrics.worked(request.url.path, seconds, made.pixels_in, made.pixels_out)
                return made

            made = await self.queue.run(work, until=until, left=lambda: left(request))
            return Response(made.data, media_type=MEDIA[ending])

    def style(self, options: StylizeRequest) -> Load:
        """What loads the network for a painting, and the options of its call."""
        blend = self.networks.blend(options.style)
        return lambda: self.networks.stylizer(blend, options)

    def upscaler(self, options: UpscaleRequest) -> Load:
        """What loads the network that enlarges, and the options of its call."""
        name = self.networks.name_of_upscaler(options)
        return lambda: (self.networks.upscaler(name, options), options.options)

    def _warm_up(self) -> None:
        """Load the gallery and paint a small picture, so that the first request is quick. An error is logged."""
        try:
            self._paint_once()
        except Exception:
            log.exception("the gallery could not be loaded, so the service is not ready")

    def _paint_once(self) -> None:
        model, options = self.networks.stylizer({StylizeRequest.style: 1.0}, StylizeRequest())
        assert isinstance(model, Stylizer)
        model.stylize(torch.zeros(1, 3, 64, 64, dtype=torch.uint8), options)
        self._warm = True


def application(service: Service) -> App:
    """The service as an ASGI application, with `Guard` as its middleware."""
    app = FastAPI(
        title="perceptual",
        version=version("perceptual"),
        summary="Paints photos and enlarges pictures.",
        docs_url=None,  # these pages load scripts from the internet
        redoc_url=None,
        redirect_slashes=False,  # an unknown path is an error, with JSON as its body
    )
    _add_pictures(app, service)
    _add_lists(app, service)
    _add_health(app, service)
    _add_errors(app, service)
    config = service.config
    return Guard(app, service.metrics, token=config.token, host=config.host, limit=config.max_bytes, paths=PATHS)


def _add_pictures(app: FastAPI, service: Service) -> None:
    errors: dict[int | str, dict[str, Any]] = {
        code: {"model": Error, "description": STATUSES[code]} for code in STATUSES
    }
    errors[200] = {"description": "The result.", "content": {media: {"schema": _FILE} for media in MEDIA.values()}}
    settings: dict[str, Any] = {"responses": errors, "response_class": Response, "tags": ["pictures"]}

    @app.post("/stylize", openapi_extra=_described(StylizeRequest), **settings)
    async def stylize(request: Request) -> Response:
        """Paint a picture in a style. The body is the file of the picture."""
        return await service.answer(request, StylizeRequest, service.style)

    @app.post("/upscale", openapi_extra=_described(UpscaleRequest), **settings)
    async def upscale(request: Request) -> Response:
        """Enlarge a picture. The body is the file of the picture."""
        return await service.answer(request, UpscaleRequest, service.upscaler)


_FILE = {"type": "string", "format": "binary"}


def _described(kind: Any) -> dict[str, Any]:
    """The parameters and the body of a request for a picture, for the OpenAPI document."""
    form = {"type": "object", "properties": {"picture": _FILE}, "required": ["picture"]}
    content = {"image/*": {"schema": _FILE}, "multipart/form-data": {"schema": form}}
    return {"parameters": parameters(kind), "requestBody": {"required": True, "content": content}}


def _add_lists(app: FastAPI, service: Service) -> None:
    @app.get("/styles", tags=["lists"])
    async def styles() -> list[Listed]:
        """The names for the option style of /stylize."""
        return service.networks.styles()

    @app.get("/upscalers", tags=["lists"])
    async def upscalers() -> list[Listed]:
        """The names for the option network of /upscale."""
        return service.networks.upscalers()


def _add_health(app: FastAPI, service: Service) -> None:
    @app.get("/health/live", tags=["state"])
    async def live() -> Health:
        """Status 200 as long as the service answers."""
        return service.health()

    @app.get("/health", tags=["state"], responses={503: {"model": Health}})
    @app.get("/health/ready", tags=["state"], responses={503: {"model": Health}})
    async def ready(response: Response) -> Health:
        """Status 200 if the service accepts pictures, else 503: it is starting or stopping."""
        health = service.health()
        response.status_code = 200 if health.ready else 503
        return health

    @app.get("/metrics", tags=["state"], response_class=Response)
    async def metrics() -> Response:
        """Numbers for Prometheus: requests, seconds, length of the queue, pixels and errors by kind."""
        return Response(service.metrics.text(), media_type=CONTENT_TYPE)


def _add_errors(app: FastAPI, service: Service) -> None:
    def reply(refusal: Refused) -> Response:
        service.metrics.refused(refusal.kind)
        return reply_of(refusal)

    @app.exception_handler(Refused)
    async def refused(request: Request, error: Refused) -> Response:
        return reply(error)

    @app.exception_handler(HTTPException)
    async def not_found(request: Request, error: HTTPException) -> Response:
        path = request.url.path[:80]
        if error.status_code == 405:
            allowed = (error.headers or {}).get("Allow", "")
            sentence = f"{path} takes no {request.method}: use {allowed or 'another method'}."
            return reply(Refused(405, "method", sentence, allow=allowed))
        return reply(Refused(404, "not_found", f"There is no {path!r}: GET /openapi.json lists all paths."))

    @app.exception_handler(Exception)
    async def bug(request: Request, error: Exception) -> Response:
        log.error("Unexpected error at %s, please report it.", request.url.path, exc_info=error)
        return reply(Refused(500, "bug", "The service failed on this request: its log says why."))
