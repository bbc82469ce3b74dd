"""The HTTP service: pictures in and out, refusals, limits, and its end."""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import io
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from fastapi.openapi.models import OpenAPI
from PIL import Image, ImageCms

import perceptual
from perceptual import Stylizer, Upscaler, checkpoints, images
from perceptual.apply import Work, convert_files
from perceptual.config import ServeConfig, StylizeRequest, UpscaleRequest
from perceptual.errors import CheckpointError, ConfigError
from perceptual.networks import TransformationNetwork
from perceptual.serve import body, running
from perceptual.serve.app import Service, application
from perceptual.serve.formats import choose_ending
from perceptual.serve.options import options_from, parameters
from perceptual.serve.refusals import Refused, as_options
from perceptual.web import listen, serving

TOKEN = "0123456789abcdef"


class Reply(SimpleNamespace):
    """status, body, headers (names in lower case)."""

    status: int
    body: bytes
    headers: dict[str, str]

    @property
    def error(self) -> str:
        """The sentence of a refusal. Its form is checked too."""
        found = json.loads(self.body)
        assert set(found) == {"kind", "error"}
        assert found["error"].endswith(".")
        assert "Traceback" not in found["error"]
        assert self.headers["content-type"] == "application/json"
        for place in (Path.home(), Path(perceptual.__file__).parent, Path.cwd()):
            assert str(place) not in found["error"]
        return str(found["error"])


def ask(port: int, path: str, body: Any = None, *, method: str = "", **headers: str) -> Reply:
    """One request on a connection of its own. Names of headers have _ in place of -."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        connection.request(method or ("GET" if body is None else "POST"), path, body, names)
        reply = connection.getresponse()
        found = {name.lower(): value for name, value in reply.getheaders()}
        return Reply(status=reply.status, body=reply.read(), headers=found)
    finally:
        connection.close()


@contextlib.contextmanager
def serving_here(**settings: Any) -> Iterator[tuple[Service, int]]:
    """A service in this process, and its port."""
    config = ServeConfig(port=0, device="cpu", **settings)
    service = Service(config)
    with contextlib.closing(listen(config.host, 0)) as listening:
        app = application(service)
        with serving(app, listening, wait=10, before_stop=service.close):
            yield service, listening.getsockname()[1]


@pytest.fixture(scope="module")
def port(tiny_style: Path) -> Iterator[int]:
    """The port of a service with a network of the test."""
    with running(ServeConfig(port=0, networks=(f"tiny={tiny_style}",), max_megapixels=0.2)) as address:
        yield address.port


def png(width: int = 40, height: int = 30) -> bytes:
    """A small picture, light at the bottom: networks with norms paint all pictures of one colour alike."""
    buffer = io.BytesIO()
    Image.linear_gradient("L").resize((width, height)).convert("RGB").save(buffer, "PNG")
    return buffer.getvalue()


def form(picture: bytes, **fields: str) -> tuple[bytes, str]:
    """The body of a form with a file, and its content type."""
    parts = [f'--x\r\nContent-Disposition: form-data; name="{k}"\r\n\r\n{v}\r\n'.encode() for k, v in fields.items()]
    head = b'--x\r\nContent-Disposition: form-data; name="picture"; filename="a.png"\r\n\r\n'
    return b"".join(parts) + head + picture + b"\r\n--x--\r\n", "multipart/form-data; boundary=x"


# pictures


def save_jpeg(photo: Image.Image, path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "on its side"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    photo.save(path, exif=exif, icc_profile=profile, dpi=(300, 300))


def save_alpha(photo: Image.Image, path: Path) -> None:
    photo = photo.convert("RGBA")
    photo.putalpha(Image.linear_gradient("L").resize(photo.size))
    photo.save(path)


def save_deep(photo: Image.Image, path: Path) -> None:
    picture = images.Picture(images.from_any(photo) * 0.7, bit_depth=16)
    images.write(path, picture)


KINDS: dict[str, Callable[[Image.Image, Path], None]] = {
    "turned.jpg": save_jpeg,
    "alpha.png": save_alpha,
    "deep.png": save_deep,
    "deep.tiff": save_deep,
    "plain.webp": lambda photo, path: photo.save(path),
    "few_colours.gif": lambda photo, path: photo.save(path),
    "plain.bmp": lambda photo, path: photo.save(path),
}


@pytest.mark.parametrize("name", KINDS)
def test_a_picture_comes_back_as_the_commands_write_it(
    port: int, tmp_path: Path, photograph: Image.Image, tiny_style: Path, name: str
) -> None:
    source = tmp_path / name
    KINDS[name](photograph.resize((90, 60)), source)
    target = (tmp_path / "out").with_suffix(".png" if source.suffix == ".gif" else source.suffix)
    stylizer, upscaler = Stylizer.load(tiny_style, device="cpu"), Upscaler.load("x4_srcnn", device="cpu")
    for model, path in ((stylizer, "/stylize?style=tiny&strength=0.5"), (upscaler, "/upscale?loss=srcnn&scale=2.5")):
        changes: dict[str, float] = {"strength": 0.5} if model is stylizer else {"scale": 2.5}
        options = model.options(**changes)
        (outcome,) = convert_files(
            [(source, target)],
            Work(
                partial(model.apply, options=options),
                partial(model.size, options=options),
                partial(model.apply_alpha, options=options),
            ),
        )
        assert outcome.error is None
        replies = [ask(port, path, source.read_bytes()) for _ in range(2)]
        assert [reply.status for reply in replies] == [200, 200]
        assert replies[0].body == replies[1].body == target.read_bytes()
        assert replies[0].headers["content-type"].removeprefix("image/") in ("png", "jpeg", "webp", "tiff", "bmp")


def test_a_compressed_picture_gets_the_photo_network_by_default(port: int, photograph: Image.Image) -> None:
    file = io.BytesIO()
    photograph.resize((120, 80)).save(file, "JPEG", quality=15)
    bodies = {
        path: ask(port, f"{path}&format=png", file.getvalue()).body
        for path in ("/upscale?scale=2", "/upscale?scale=2&loss=photo", "/upscale?scale=2&loss=pixel")
    }
    assert bodies["/upscale?scale=2"] == bodies["/upscale?scale=2&loss=photo"]
    assert bodies["/upscale?scale=2"] != bodies["/upscale?scale=2&loss=pixel"]


def test_it_paints_as_the_python_api(port: int, photograph: Image.Image) -> None:
    buffer = io.BytesIO()
    photograph.save(buffer, "PNG")
    text, levels = "starry_night:0.7,wave:0.3", torch.from_numpy(np.array(photograph)).permute(2, 0, 1)[None]
    reply = ask(port, f"/stylize?style={text}&keep_colors=true", buffer.getvalue())
    expected = Stylizer.load(text, device="cpu").stylize(levels, keep_colors=True)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(reply.body))), expected[0].permute(1, 2, 0).numpy())


def test_styles_of_several_files_are_blended_as_by_the_python_api(tmp_path: Path, photograph: Image.Image) -> None:
    network, card = checkpoints.load(checkpoints.find_style("gallery")[0], task="style")
    state, file, buffer = network.state_dict(), tmp_path / "mine.safetensors", io.BytesIO()
    own = TransformationNetwork(replace(network.config, styles=1))
    own.load_state_dict(state | {name: state[name][2:3] * 1.1 for name in network.style_parameters()})
    card = replace(card, network=own.config, styles=("wave",), titles={}, base=checkpoints.body_digest(network))
    checkpoints.save(file, own, card)
    photograph.save(buffer, "PNG")
    levels = torch.from_numpy(np.array(photograph)).permute(2, 0, 1)[None]
    with running(ServeConfig(port=0, networks=(f"mine={file}",))) as address:
        reply = ask(address.port, "/stylize?style=mine:1,the_scream:1", buffer.getvalue())
        expected = Stylizer.load(f"{file}:1,the_scream:1", device="cpu").stylize(levels)
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(reply.body))), expected[0].permute(1, 2, 0).numpy())
        for other in ("starry_night_solo", "gallery_video"):
            refused = ask(address.port, f"/stylize?style={other}:1,wave:1", png())
            assert (refused.status, "blended" in refused.error) == (422, True)


def test_names_of_styles_may_be_spelled_otherwise_and_own_ones_chosen(port: int) -> None:
    one, other = (ask(port, f"/stylize?style={name}", png()) for name in ("starry_night", "Starry%20Night"))
    assert one.body == other.body
    assert ask(port, "/stylize", png()).body == one.body
    first, named, second = (
        ask(port, f"/stylize?style={name}", png()).body for name in ("tiny", "tiny/one", "tiny/two")
    )
    assert first == named != second


def test_a_form_gives_the_same_picture_and_its_fields_are_options(port: int) -> None:
    body, kind = form(png(), style="tiny", strength="0.5", format="bmp")
    reply = ask(port, "/stylize", body, Content_Type=kind)
    assert reply.status == 200
    assert reply.headers["content-type"] == "image/bmp"
    assert reply.body == ask(port, "/stylize?style=tiny&strength=0.5&format=bmp", png()).body


def test_a_body_in_chunks_is_read(port: int) -> None:
    data = png()
    pieces = iter([data[:50], data[50:]])
    assert ask(port, "/stylize?style=tiny", pieces).body == ask(port, "/stylize?style=tiny", data).body


@pytest.mark.parametrize(
    ("wanted", "accept", "ending"),
    [
        (None, "", ".jpg"),
        (None, "*/*", ".jpg"),
        (None, "text/html,image/*;q=0.8", ".jpg"),
        (None, "image/png", ".png"),
        (None, "image/jpeg;q=0.5, image/webp", ".webp"),
        (None, "image/jpeg;q=0.1, image/*", ".png"),
        ("tiff", "image/png", ".tiff"),
    ],
)
def test_the_format_is_the_wanted_one_else_an_accepted_one_else_the_same(
    wanted: str | None, accept: str, ending: str
) -> None:
    assert choose_ending(wanted, accept, ".jpg") == ending


# lists, state, and the OpenAPI document


def test_the_lists_name_everything_that_a_request_can_choose(port: int) -> None:
    styles = {entry["name"]: entry for entry in json.loads(ask(port, "/styles").body)}
    assert {"starry_night", "wave", "gallery", "tiny", "tiny/one", "tiny/two"} <= set(styles)
    assert "Hokusai" in styles["wave"]["title"]
    upscalers = {entry["name"]: entry["scale"] for entry in json.loads(ask(port, "/upscalers").body)}
    assert (upscalers["x4_pixel"], upscalers["x8_feature"]) == (4, 8)


def test_health_says_whether_pictures_are_accepted() -> None:
    with serving_here() as (service, port):
        while not service.health().ready:
            time.sleep(0.02)
        assert ask(port, "/health").status == ask(port, "/health/ready").status == 200
        service.queue.stop()
        assert (ask(port, "/health/live").status, ask(port, "/health/ready").status) == (200, 503)
        assert json.loads(ask(port, "/health").body) == {"live": True, "ready": False, "queue": 0}
        reply = ask(port, "/stylize", png())
        assert (reply.status, reply.headers["retry-after"]) == (503, "5")
        assert reply.error == "The service is stopping: try again soon."


def test_metrics_count_requests_pixels_and_errors() -> None:
    with serving_here() as (_, port):
        ask(port, "/stylize", png(40, 30))
        ask(port, "/upscale?loss=srcnn", png(40, 30))
        ask(port, "/stylize?strength=2", png())
        ask(port, "/no/such/path")
        text = ask(port, "/metrics").body.decode()
    for line in (
        'perceptual_requests_total{path="/stylize",status="200"} 1.0',
        'perceptual_requests_total{path="/stylize",status="422"} 1.0',
        'perceptual_requests_total{path="other",status="404"} 1.0',
        'perceptual_pixels_total{direction="in",path="/upscale"} 1200.0',
        'perceptual_pixels_total{direction="out",path="/upscale"} 19200.0',
        'perceptual_errors_total{kind="option"} 1.0',
        'perceptual_work_seconds_count{path="/stylize"} 1.0',
        'perceptual_request_seconds_count{path="/stylize"} 2.0',
        "perceptual_queue_length 0.0",
    ):
        assert line in text.splitlines()


def test_the_openapi_document_is_valid_and_has_every_option(port: int) -> None:
    reply = ask(port, "/openapi.json").body
    document = json.loads(reply)
    OpenAPI.model_validate(document)
    schemas = document["components"]["schemas"]
    assert set(re.findall(r'"#/components/schemas/([^"]+)"', reply.decode())) <= set(schemas)
    names = [each["operationId"] for path in document["paths"].values() for each in path.values()]
    assert len(names) == len(set(names))
    for path, kind in (("/stylize", StylizeRequest), ("/upscale", UpscaleRequest)):
        found = {each["name"]: each for each in document["paths"][path]["post"]["parameters"]}
        assert set(found) == {field.name for field in dataclasses.fields(kind)}
        assert all(each["description"] for each in found.values())
        assert "--" not in json.dumps(found)
    strength = next(each for each in parameters(StylizeRequest) if each["name"] == "strength")
    assert strength["schema"] == {"type": "number", "minimum": 0, "maximum": 1, "default": 1.0}


# refusals


@pytest.mark.parametrize(
    ("path", "body", "status", "sentence"),
    [
        ("/stylize?style=wav", png(), 404, "There is no style 'wav' (did you mean wave?): GET /styles lists them."),
        ("/stylize?style=/etc/passwd", png(), 404, "There is no style '/etc/passwd': GET /styles lists them."),
        ("/stylize?style=wave:x,", png(), 422, "is not a blend of styles"),
        ("/upscale?network=../x", png(), 404, "There is no network '../x': GET /upscalers lists them."),
        ("/nothing", None, 404, "There is no '/nothing': GET /openapi.json lists all paths."),
        ("/stylize", None, 405, "/stylize takes no GET: use POST."),
        ("/stylize", b"", 400, "The request has no picture: send its file as the body, or in a form."),
        ("/stylize", png()[:60], 400, "The picture is damaged or incomplete"),
        ("/stylize", b"plain text", 415, "The picture is not an image of a known format"),
        ("/stylize", png(1000, 201), 413, "The picture has 1000 x 201 px, and 200,000 pixels are allowed"),
        ("/stylize?size=1000", png(40, 30), 422, "The result has 1000 x 750 px, and 200,000 pixels are allowed"),
        ("/upscale", png(200, 100), 422, "The result has 800 x 400 px"),
        ("/stylize?strength=2", png(), 422, "strength is 2.0; it must be a number from 0 to 1."),
        ("/stylize?strength=a", png(), 422, "strength is 'a'; it must be a number from 0 to 1."),
        ("/stylize?size=1.5", png(), 422, "size is '1.5'; it must be a whole number from 1 to 100,000."),
        ("/stylize?keep_colors=x", png(), 422, "keep_colors is 'x'; it must be true or false."),
        ("/stylize?strenght=1", png(), 422, "There is no option 'strenght' (did you mean strength?)"),
        ("/stylize?size=9&size=9", png(), 422, "The option size is given twice: leave one of them out."),
        ("/stylize?format=gif", png(), 422, "format is 'gif'; choose one of png, jpg, webp, tiff, bmp."),
        ("/upscale?scale=9", png(), 422, "scale is 9; the shipped networks with the loss pixel enlarge up to 8 times."),
        ("/upscale?scale=5&network=x4_pixel", png(), 422, "scale is 5; this network enlarges up to 4 times"),
        ("/upscale?network=x4_pixel&loss=feature", png(), 422, "loss has no effect together with network"),
    ],
)
def test_a_wrong_request_gets_a_fitting_status_and_one_sentence(
    port: int, path: str, body: bytes | None, status: int, sentence: str
) -> None:
    reply = ask(port, path, body)
    assert reply.status == status
    assert sentence in reply.error


def test_an_accept_that_names_no_picture_is_refused(port: int) -> None:
    reply = ask(port, "/stylize", png(), Accept="text/html")
    assert reply.status == 406
    assert "Accept names no format that can be written" in reply.error


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"not a form", "The form is damaged or too long"),
        (form(png())[0] + form(png())[0], "The form is damaged or too long"),
        (form(png())[0].replace(b'; filename="a.png"', b""), "The request has no picture"),
        (form(png(), **{f"field{number}": "" for number in range(50)})[0], "The form is damaged or too long"),
    ],
    ids=["no form", "two files", "no file", "too many fields"],
)
def test_a_damaged_form_is_refused(port: int, body: bytes, sentence: str) -> None:
    body = body.replace(b"--x--\r\n--x", b"--x")
    reply = ask(port, "/stylize", body, Content_Type="multipart/form-data; boundary=x")
    assert reply.status == 400
    assert sentence in reply.error


def test_sentences_spell_options_as_requests_do() -> None:
    text = as_options("keep-colors or --style-scale, a well-known style", {"keep_colors", "style_scale", "style"})
    assert text == "keep_colors or style_scale, a well-known style"
    with pytest.raises(Refused, match="style_scale is 99"):
        options_from(StylizeRequest, [("style_scale", "99")])


def test_a_bug_shows_nothing_of_its_cause(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise KeyError("/secret/path")

    with serving_here() as (_, port):
        monkeypatch.setattr("perceptual.images.read_bytes", fail)
        reply = ask(port, "/stylize", png())
    assert reply.status == 500
    assert reply.error == "The service failed on this request: its log says why."
    assert "/secret/path" in caplog.text


# limits


@pytest.mark.parametrize("size", [3_000_000, 30_000_000])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_that_is_too_large_is_refused_and_the_client_reads_why(chunked: bool, size: int) -> None:
    with serving_here(max_upload=1) as (_, port):
        body = bytes(size)
        reply = ask(port, "/stylize", iter([body]) if chunked else body)
        assert reply.status == 413
        assert reply.error == "The request is larger than 1 MB: send a smaller file."
        assert ask(port, "/stylize", png()).status == 200


@pytest.mark.parametrize("path", ["/stylize", "/nowhere"])
def test_a_client_that_asks_first_is_refused_before_it_sends_the_body(path: str) -> None:
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 3000000\r\n\r\n"
    with serving_here(max_upload=1) as (_, port), socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        client.sendall(head.encode())
        assert re.match(rb"HTTP/1.1 4\d\d ", client.recv(1000))  # and not 100 Continue


def fill(service: Service, port: int, count: int, pool: ThreadPoolExecutor) -> tuple[threading.Event, list[Any]]:
    """Hold up the work, and wait until `count` requests are accepted: (event that lets the work go on, replies)."""
    go = threading.Event()
    service.queue.soon(go.wait)
    replies = [pool.submit(ask, port, "/stylize", png()) for _ in range(count)]
    while service.queue.length < count:
        time.sleep(0.01)
    return go, replies


def test_a_full_queue_refuses_with_the_seconds_to_wait_and_loses_nothing() -> None:
    with serving_here(max_queue=3) as (service, port), ThreadPoolExecutor(3) as pool:
        go, replies = fill(service, port, 3, pool)
        refused = ask(port, "/stylize", png())
        assert ask(port, "/health/live").status == 200
        go.set()
        assert refused.status == 503
        assert int(refused.headers["retry-after"]) >= 1
        assert refused.error.startswith("3 requests are waiting already: try again in ")
        assert [reply.result().status for reply in replies] == [200, 200, 200]


def test_a_request_that_waits_too_long_is_refused_and_never_worked_on() -> None:
    with serving_here(max_seconds=0.5) as (service, port), ThreadPoolExecutor(1) as pool:
        go, (reply,) = fill(service, port, 1, pool)
        assert reply.result().status == 503
        assert reply.result().error == "The picture was not ready in time: try again."
        assert service.queue.length == 0
        go.set()
    assert 'perceptual_work_seconds_count{path="/stylize"}' not in service.metrics.text().decode()


def test_a_slow_body_is_refused() -> None:
    with serving_here(max_seconds=0.5) as (_, port), socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(b"POST /stylize HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nabc")
        client.settimeout(30)
        assert client.recv(100).startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize(("idle", "in_all", "sends"), [(0.4, 60.0, False), (0.4, 0.4, True), (30.0, -29.0, True)])
def test_a_body_that_pauses_or_takes_too_long_frees_its_place(
    idle: float, in_all: float, sends: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both with the longest time for a request. in_all: seconds for a megabyte."""
    monkeypatch.setattr(body, "IDLE", idle)
    monkeypatch.setattr(body, "PER_MEGABYTE", in_all)
    with serving_here(max_seconds=3600, max_upload=1, max_queue=1) as (service, port):
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(b"POST /stylize HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9000\r\n\r\nabc")
            client.settimeout(0.1)
            reply, until = b"", time.monotonic() + 30
            while b"}" not in reply and time.monotonic() < until:
                if sends and not reply:
                    client.sendall(b"d")
                with contextlib.suppress(TimeoutError):
                    reply += client.recv(1000)
        assert reply.startswith(b"HTTP/1.1 408 ")
        assert b"The picture did not arrive in time: send it again." in reply
        assert service.queue.length == 0


def test_a_body_that_is_slow_but_never_pauses_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body, "IDLE", 1.0)

    def slowly() -> Iterator[bytes]:
        for k in range(8):
            time.sleep(0.25)
            yield b"no picture"[k : k + 1]

    with serving_here(max_seconds=3600) as (_, port):
        assert ask(port, "/stylize", slowly()).status == 415


def test_the_work_for_a_client_that_has_left_is_dropped() -> None:
    with serving_here() as (service, port):
        go = threading.Event()
        service.queue.soon(go.wait)
        with socket.create_connection(("127.0.0.1", port)) as client:
            body = png()
            head = f"POST /stylize HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
            client.sendall(head.encode() + body)
            while service.queue.length < 1:
                time.sleep(0.01)
        while service.queue.length:
            time.sleep(0.01)
        go.set()
        text = ask(port, "/metrics").body.decode()
    assert 'perceptual_errors_total{kind="gone"} 1.0' in text
    assert "perceptual_work_seconds_count" not in text


def test_head_is_answered_as_get_without_the_body(port: int) -> None:
    for path, status in (("/health/live", 200), ("/styles", 200), ("/metrics", 200), ("/stylize", 405), ("/no", 404)):
        reply = ask(port, path, method="HEAD")
        assert (reply.status, reply.body) == (status, b"")
        assert int(reply.headers["content-length"]) > 0


# who may ask


def test_a_token_guards_everything_but_health() -> None:
    with serving_here(token=TOKEN) as (_, port):
        for given in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {TOKEN}"}):
            reply = ask(port, "/stylize", png(), **given)
            assert (reply.status, reply.headers["www-authenticate"]) == (401, "Bearer")
            assert "Authorization: Bearer TOKEN" in reply.error
        assert ask(port, "/metrics").status == ask(port, "/openapi.json").status == 401
        assert ask(port, "/health/live").status == 200
        assert ask(port, "/stylize", png(), Authorization=f"Bearer {TOKEN}").status == 200


@pytest.mark.parametrize("token", ["0123456789abcde f", "0123456789abcdef\n", "0123456789abcdef\xe9"])
def test_a_token_that_no_header_can_hold_is_refused_at_the_start(token: str) -> None:
    with pytest.raises(ConfigError, match="The token has spaces, line breaks or letters outside ASCII"):
        ServeConfig(token=token)


def test_pages_of_other_sites_cannot_use_a_service_of_this_computer(port: int) -> None:
    assert ask(port, "/stylize", png(), Origin="http://example.org").status == 403
    assert ask(port, "/styles", Host="example.org").status == 403
    assert ask(port, "/styles", Origin=f"http://127.0.0.1:{port}", Host=f"127.0.0.1:{port}").status == 200


# the command


@pytest.mark.parametrize(
    ("networks", "sentence"),
    [
        ("mine.safetensors", "--networks takes NAME=FILE"),
        ("a b=x.safetensors", "--networks takes NAME=FILE"),
        ("wave=x.safetensors", "The name wave in --networks is taken already"),
        ("mine=missing.safetensors", "missing.safetensors"),
    ],
)
def test_wrong_networks_are_refused_at_the_start(networks: str, sentence: str) -> None:
    with pytest.raises((ConfigError, CheckpointError), match=re.escape(sentence)), serving_here(networks=(networks,)):
        pass


def test_a_used_port_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"The port {port} is used already"), running(ServeConfig(port=port)):
            pass


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM")
def test_sigterm_loses_no_accepted_request_and_ends_with_0() -> None:
    command = [sys.executable, "-m", "perceptual", "serve", "--port", "0", "--device", "cpu"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        port = int(re.search(r":(\d+)/", line)[1])  # type: ignore[index]
        body, count = png(200, 140), 6
        with ThreadPoolExecutor(count) as pool:
            replies = [pool.submit(ask, port, "/upscale?loss=srcnn", body) for _ in range(count)]
            while json.loads(ask(port, "/health/live").body)["queue"] < count and not all(r.done() for r in replies):
                time.sleep(0.005)
            process.send_signal(signal.SIGTERM)
            sizes = [Image.open(io.BytesIO(reply.result().body)).size for reply in replies]
        errors = process.communicate(timeout=60)[1]
    assert sizes == [(800, 560)] * count
    assert process.returncode == 0
    assert "Traceback" not in errors
    with pytest.raises(ConnectionError):
        ask(port, "/health")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM")
def test_a_second_signal_ends_it_at_once() -> None:
    command = [sys.executable, "-m", "perceptual", "serve", "--port", "0", "--device", "cpu"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        port = int(re.search(r":(\d+)/", process.stdout.readline())[1])  # type: ignore[index]
        with socket.create_connection(("127.0.0.1", port)) as client:  # its body never comes
            client.sendall(b"POST /stylize HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n")
            while json.loads(ask(port, "/health").body) != {"live": True, "ready": True, "queue": 1}:
                time.sleep(0.01)
            process.send_signal(signal.SIGTERM)
            while ask(port, "/health/ready").status == 200:
                time.sleep(0.01)
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 130
