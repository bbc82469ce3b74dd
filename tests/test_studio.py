"""`perceptual studio` as a person meets it: a server, and headless Chromium that drops files and clicks."""

from __future__ import annotations

import json
import random
import re
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import assert_one_sentence
from foreign import compact_state
from PIL import Image
from studio import browser, count, failure, give, page, server, sources, text  # noqa: F401  (fixtures)
from test_cli import run

from perceptual import Stylizer, Upscaler, images
from perceptual.web import listen

pytest.importorskip("gradio")

STYLES = 11


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A server for all tests of this file; `folder` is where it writes."""
    folder = tmp_path_factory.mktemp("studio") / "folder"
    with server(folder, device="cpu") as address:
        yield address


@pytest.fixture
def folder(studio: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the server."""
    return next(tmp_path_factory.getbasetemp().glob("studio*/folder"))


@pytest.fixture
def photo(tmp_path: Path, photograph: Image.Image) -> Path:
    """A JPEG with EXIF data and a resolution."""
    exif = Image.Exif()
    exif[0x010E] = "a cat"
    path = tmp_path / "my photo.jpg"
    photograph.convert("RGB").save(path, quality=95, exif=exif, dpi=(200, 200))
    return path


def pixels(page: Any, address: str) -> Any:
    """The pixels of a picture in the page, (H, W, 3)."""
    answer = page.request.get(address)
    return np.asarray(Image.open(BytesIO(answer.body())).convert("RGB")).astype(int)


def results(folder: Path) -> set[str]:
    """Names of the results."""
    return {path.name for path in (folder / "results").iterdir()}


def test_a_photo_is_painted(studio: Any, page: Any, folder: Path, photo: Path) -> None:
    outside: list[str] = []
    page.on("request", lambda request: outside.append(request.url))
    page.goto(studio.url)
    give(page, "paint-photos", photo)
    count(page, "#paint-wall img", STYLES)
    count(page, "#paint-compare img", 2)
    before = results(folder)
    page.click("#paint-go")
    text(page, "#paint-progress", "is finished")
    (made,) = results(folder) - before
    assert made == "my_photo_starry_night.jpg"
    with Image.open(folder / "results" / made) as painted, Image.open(photo) as original:
        assert painted.size == original.size
        assert painted.getexif()[0x010E] == "a cat"
        assert painted.info["dpi"] == (200, 200)
    local = ("data:", "blob:", studio.url)
    assert [url for url in outside if not url.startswith(local)] == []


def test_a_slider_repaints_and_the_photo_stays(studio: Any, page: Any, photo: Path) -> None:
    page.goto(studio.url)
    give(page, "paint-photos", photo)
    count(page, "#paint-compare img", 2)
    page.fill("#paint-strength input[type=number]", "0")
    page.keyboard.press("Tab")

    def same() -> bool:
        left, right = (pixels(page, each) for each in sources(page, "paint-compare")[:2])
        return bool(np.abs(left - right).mean() < 1.5)  # two WebP files of one picture

    end = time.monotonic() + 30
    while not same():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_a_style_is_picked_on_the_wall_and_blended(studio: Any, page: Any, photo: Path) -> None:
    page.goto(studio.url)
    give(page, "paint-photos", photo)
    count(page, "#paint-wall img", STYLES)
    page.locator("#paint-wall button", has_text="wave").first.click()
    page.wait_for_function("document.querySelector('#paint-style input').value === 'wave'")
    page.get_by_text("The same as a command and in Python").first.click()
    text(page, "#paint-command", "--style wave")
    page.get_by_text("Blend with other styles").click()
    page.click("#paint-blend-1 input")
    page.get_by_role("option", name="udnie").click()
    text(page, "#paint-command", "wave:0.67,udnie:0.33")


def test_versions_are_compared_and_many_photos_come_as_a_zip(
    studio: Any, page: Any, folder: Path, photo: Path, photograph: Image.Image
) -> None:
    second = photo.with_name("second.png")
    photograph.resize((64, 48)).save(second)
    page.goto(studio.url)
    give(page, "paint-photos", photo, second)
    count(page, "#paint-compare img", 2)
    page.click("#paint-keep")
    count(page, "#paint-versions img", 1)
    before = results(folder)
    page.click("#paint-go")
    text(page, "#paint-progress", "2 photos in starry_night is finished")
    made = {name.rpartition(".")[2]: folder / "results" / name for name in results(folder) - before}
    assert sorted(made) == ["jpg", "png", "zip"]
    with Image.open(made["png"]) as painted, Image.open(second) as original:
        assert np.array_equal(painted, Stylizer.load("starry_night", device="cpu")(original))


def test_garbage_is_one_sentence(studio: Any, page: Any, tmp_path: Path, photo: Path) -> None:
    garbage = tmp_path / "cat.png"
    garbage.write_bytes(random.Random(0).randbytes(5000))
    page.goto(studio.url)
    give(page, "paint-photos", garbage)
    assert "cat.png is not an image of a known format" in failure(page)
    page.click("#paint-go")
    assert page.is_visible("#paint-photos")
    page.reload()
    give(page, "paint-photos", photo)  # and it goes on
    count(page, "#paint-compare img", 2)


def test_a_bomb_of_pixels_is_refused_by_its_header(studio: Any, page: Any, tmp_path: Path) -> None:
    bomb = tmp_path / "huge.png"
    Image.new("1", (12_000, 12_000)).save(bomb)
    page.goto(studio.url)
    give(page, "paint-photos", bomb)
    assert "12000 x 12000 px, and 1 to 100000000 pixels are allowed" in failure(page)


def test_a_job_outlives_its_page_and_is_stopped_from_another(
    studio: Any, page: Any, folder: Path, tmp_path: Path
) -> None:
    photos = [tmp_path / f"{k}.png" for k in range(40)]
    for k, path in enumerate(photos):
        Image.fromarray(np.random.default_rng(k).integers(0, 255, (700, 900, 3), dtype=np.uint8)).save(path)
    page.goto(studio.url)
    give(page, "paint-photos", *photos)
    count(page, "#paint-compare img", 2)
    before = results(folder)
    page.click("#paint-go")
    text(page, "#paint-progress", "is running")
    page.reload()
    text(page, "#paint-progress", "40 photos")
    page.click("#paint-stop")
    text(page, "#paint-progress", "was stopped")
    made = results(folder) - before
    assert len(made) < 40
    for name in made:
        with Image.open(folder / "results" / name) as image:
            image.load()


def test_a_picture_is_enlarged(studio: Any, page: Any, folder: Path, tmp_path: Path, photograph: Image.Image) -> None:
    small = tmp_path / "small.png"
    photograph.convert("RGB").resize((60, 40)).save(small)
    page.goto(studio.url)
    page.get_by_role("tab", name="Enlarge").click()
    give(page, "enlarge-photos", small)
    count(page, "#enlarge-compare img", 2)
    page.get_by_label("2 times").check()
    page.click("#enlarge-go")
    text(page, "#enlarge-progress", "is finished")
    levels = images.read(small, levels=True).pixels
    expected = Upscaler.at_scale(2, "auto", device="cpu").upscale(levels)
    made = images.read(folder / "results" / "small_x2.png", levels=True).pixels
    assert made.shape == (1, 3, 80, 120)
    assert torch.equal(made, expected)


@pytest.mark.usefixtures("seed")
def test_a_network_of_another_program_is_added_and_chosen(page: Any, tmp_path: Path, photograph: Image.Image) -> None:
    photograph.convert("RGB").resize((60, 40)).save(tmp_path / "small.png")
    torch.save(compact_state(scale=2), tmp_path / "2x.pth")
    with server(tmp_path / "s", device="cpu") as address:
        page.goto(address.url)
        page.get_by_role("tab", name="Enlarge").click()
        give(page, "enlarge-add", tmp_path / "2x.pth")
        text(page, "#enlarge-about", "Compact x2")
        assert page.get_by_label("2 times").is_checked()
        give(page, "enlarge-photos", tmp_path / "small.png")
        count(page, "#enlarge-compare img", 2)
        page.reload()
        page.get_by_role("tab", name="Enlarge").click()
        page.get_by_label("2x.pth").check()
        assert "2x.pth enlarges up to 2 times" in failure(page)


def test_every_field_has_a_label_and_the_keyboard_reaches_it(studio: Any, page: Any) -> None:
    page.goto(studio.url)
    page.wait_for_selector("#paint-go")
    unlabelled = page.eval_on_selector_all(
        "input:not([type=file]), textarea, select",
        """fields => fields.filter(field => field.offsetParent && !field.labels?.length
             && !field.getAttribute('aria-label') && !field.getAttribute('aria-labelledby')
             && !field.closest('fieldset, label, [aria-label]')).map(field => field.outerHTML.slice(0, 120))""",
    )
    assert unlabelled == []
    reached: set[str] = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.closest('[id^=paint-]')?.id || ''"))
    assert {"paint-strength", "paint-strokes", "paint-go", "paint-style"} <= reached


@pytest.mark.parametrize("width", [390, 3840])
def test_nothing_sticks_out_of_a_phone_or_a_large_screen(studio: Any, page: Any, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    page.goto(studio.url)
    page.wait_for_selector("#paint-go")
    assert page.evaluate("document.documentElement.scrollWidth") <= width


# the server without a browser


def request(url: str, data: bytes | None = None, **headers: str) -> tuple[int, bytes]:
    """(status, body) of a request."""
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data, names), timeout=30) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def test_foreign_names_and_sites_are_refused(studio: Any) -> None:
    assert request(studio.url)[0] == 200
    assert request(studio.url, Host="evil.example")[0] == 403
    assert request(studio.url, Origin="http://evil.example")[0] == 403
    upload = studio.url + "gradio_api/upload"
    assert request(upload, b"x", Origin="http://evil.example")[0] == 403


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "../../../../etc/passwd", "%2e%2e/%2e%2e/etc/passwd", "/proc/self/environ"]
)
def test_no_file_outside_its_folder_is_served(studio: Any, path: str) -> None:
    for prefix in ("gradio_api/file=", "file=", "gradio_api/file/", "static/", "assets/"):
        status, body = request(studio.url + prefix + path)
        assert status in (400, 403, 404, 405, 422), prefix
        assert b"root:" not in body
        assert b"PATH=" not in body


def test_fuzzed_calls_and_broken_uploads_leave_it_running_and_nothing_behind(studio: Any, folder: Path) -> None:
    rng = random.Random(1)
    before = {path for path in folder.rglob("*") if path.is_file()}
    paths = ["queue/join", "queue/data", "call/preview", "run/predict", "upload", "reset", "stream/x", "cancel", "info"]

    def garbage() -> Any:
        return rng.choice([None, -1, 10**30, "x" * 100, ["a"], {"path": "/etc/passwd"}, True, {"k": [1, {"y": None}]}])

    for _ in range(1000):
        body = json.dumps(
            {"fn_index": rng.choice([0, 5, 99, -3, "a", None]), "data": [garbage() for _ in range(rng.randrange(6))],
             "session_hash": garbage(), "trigger_id": garbage()}
        ).encode()  # fmt: skip
        body = body if rng.random() < 0.7 else rng.randbytes(rng.randrange(200))
        kind = rng.choice(["application/json", "multipart/form-data; boundary=x", "text/plain"])
        url = f"{studio.url}gradio_api/{rng.choice(paths)}"
        with_body = rng.random() < 0.8
        with_stream = url.endswith(("queue/data", "stream/x")) and not with_body
        if not with_stream:  # these answers have no end
            assert request(url, body if with_body else None, Content_Type=kind)[0] < 600
    for size in (10, 100_000):  # uploads that stop in the middle
        with socket.create_connection(("127.0.0.1", studio.port)) as connection:
            head = f"POST /gradio_api/upload HTTP/1.1\r\nHost: 127.0.0.1:{studio.port}\r\nContent-Length: 1000000\r\n"
            head += "Content-Type: multipart/form-data; boundary=x\r\n\r\n--x\r\n"
            head += 'Content-Disposition: form-data; name="files"; filename="../../a.png"\r\n\r\n'
            connection.sendall(head.encode() + b"y" * size)
    assert request(studio.url)[0] == 200
    time.sleep(1)
    after = {path for path in folder.rglob("*") if path.is_file()}
    assert {path for path in after - before if "results" in path.parts or "styles" in path.parts} == set()
    assert not (folder.parent / "a.png").exists()


def test_many_at_once(studio: Any) -> None:
    answers: list[int] = []

    def ask() -> None:
        answers.extend(request(studio.url)[0] for _ in range(5))

    threads = [threading.Thread(target=ask) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [200] * 100


def test_a_large_upload_is_refused(tmp_path: Path) -> None:
    with server(tmp_path / "s", max_upload=1) as address:
        status, body = request(address.url + "gradio_api/upload", b"x" * 2_100_000, Content_Type="text/plain")
        assert status == 413
        assert body == b"The file is larger than 2 MB: start the page with a larger --max-upload."


def test_a_token_is_needed_on_other_addresses(tmp_path: Path) -> None:
    with server(tmp_path / "s", host="0.0.0.0") as address:
        token = re.search(r"token=([\w-]{20,})", address.url)
        assert token
        plain = f"http://127.0.0.1:{address.port}/"
        assert request(plain)[0] == 401
        assert request(plain + "gradio_api/info")[0] == 401
        opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
        with opener.open(f"{plain}?token={token[1]}") as answer:
            assert answer.status == 200
            assert answer.url == plain


def test_uploads_are_gone_when_it_ends(tmp_path: Path, page: Any, photo: Path) -> None:
    with server(tmp_path / "s", device="cpu") as address:
        page.goto(address.url)
        give(page, "paint-photos", photo)
        count(page, "#paint-compare img", 2)
        assert any(path.is_file() for path in (tmp_path / "s" / "uploads").rglob("*"))
        page.goto("about:blank")
    assert not (tmp_path / "s" / "uploads").exists()
    assert not (tmp_path / "s" / ".gradio").exists()


# the command


def test_a_taken_port_leads_to_the_next_one(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        listening = listen("127.0.0.1", port, further=20)
        assert port < listening.getsockname()[1] <= port + 20
        listening.close()


@pytest.mark.parametrize(
    ("exit_code", "words", "part"),
    [
        (1, ["--host", "203.0.113.7"], "203.0.113.7 is not an address of this computer: choose another --host."),
        (1, ["--host", "no such name"], "is not an address of this computer"),
        (2, ["--port", "99999"], "port is 99999"),
        (2, ["--token", "short"], "give 16 characters or more"),
        (1, ["--folder", "file.txt"], "file.txt"),
        (2, ["--weights", "vgg16"], "--weights takes NAME=FILE"),
        (2, ["--weights", "vgg=file.txt"], "--weights names 'vgg'; choose one of"),
        (1, ["--weights", "vgg16=none.pth"], "There is no weights file none.pth"),
    ],
)
def test_what_cannot_work_is_one_sentence(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    exit_code: int,
    words: list[str],
    part: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file.txt").write_text("x")
    code, _, err = run(capsys, "studio", "--no-open-browser", "--port", "0", *words)
    assert code == exit_code
    assert_one_sentence(err, part)
