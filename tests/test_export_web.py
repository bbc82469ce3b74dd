"""The page of `perceptual export --web`: it paints in the browser what Python paints, and asks no other server."""

from __future__ import annotations

import functools
import http.server
import io
import json
import re
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import assert_one_sentence
from PIL import Image
from studio import CHROMIUM, WAIT, browser, page  # noqa: F401
from test_cli import run

from perceptual import Stylizer, export
from perceptual.errors import OutputError, WeightsError
from perceptual.export import runtime

pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.usefixtures("one_thread")

Capture = pytest.CaptureFixture[str]
NO_FILES = dict.fromkeys(runtime.FILES, b"")


class Quiet(http.server.SimpleHTTPRequestHandler):
    """`python -m http.server` without its log."""

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@pytest.fixture(scope="module")
def gallery_site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page with the gallery."""
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed")
    if runtime.at_hand() is None:
        pytest.skip(f"{runtime.PACKAGE.file} is not in the cache; `perceptual export --web` downloads it")
    folder = tmp_path_factory.mktemp("site")
    list(export.export_page("gallery", folder, files=runtime.files()))
    return folder


@pytest.fixture(scope="module")
def address(gallery_site: Path) -> Iterator[str]:
    """Where a plain web server sends the page from."""
    handler = functools.partial(Quiet, directory=str(gallery_site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


def ready(page: Any, address: str) -> list[str]:
    """Open the page and wait until its network is loaded. Returns a list that grows with each request."""
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(address)
    status(page, "Ready")
    return asked


def status(page: Any, text: str) -> None:
    """Wait until the status begins with a text. The page forbids functions made from text, so a selector waits."""
    page.locator("#status", has_text=re.compile(f"^{text}")).wait_for()


def painted(page: Any, count: int) -> np.ndarray[Any, Any]:
    """The pixels of the canvas, (H, W, 3), when the page has painted so many pictures or more.

    The camera may paint several pictures between two looks of the browser driver at the page.
    """
    fewer = "".join(f":not([data-pictures='{each}'])" for each in range(1, count))
    page.locator(f"#canvas[data-pictures]{fewer}").wait_for()
    size, data = page.evaluate(
        """() => { const c = document.getElementById('canvas');
        return [[c.height, c.width], [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]]; }"""
    )
    return np.array(data, np.uint8).reshape(*size, 4)[..., :3]


@pytest.mark.slow
def test_a_photo_painted_by_wasm_is_that_of_python(
    page: Any, address: str, photograph: Image.Image, tmp_path: Path
) -> None:
    small = photograph.convert("RGB")
    small.save(tmp_path / "photo.png")
    asked = ready(page, f"{address}?engine=wasm")
    page.set_input_files("#file", str(tmp_path / "photo.png"))
    stylizer = Stylizer.load("gallery", device="cpu", precision="float32")
    first = painted(page, 1)
    wanted = np.asarray(stylizer(small, style=stylizer.styles[0])).astype(int)
    assert np.abs(first - wanted).max() <= 2
    page.click("button[aria-label='Only wave']")
    second = painted(page, 2)
    assert np.abs(second - np.asarray(stylizer(small, style="wave")).astype(int)).max() <= 2
    assert "WASM" in page.inner_text("#status")
    assert [url for url in asked if not url.startswith((address, "blob:", "data:"))] == []


@pytest.mark.slow
def test_styles_are_mixed_and_the_picture_is_saved(
    page: Any, address: str, photograph: Image.Image, tmp_path: Path
) -> None:
    small = photograph.convert("RGB").resize((90, 61))
    small.save(tmp_path / "photo.png")
    ready(page, f"{address}?engine=wasm")
    page.evaluate(
        """() => { for (const [name, value] of [['composition_vii', 0], ['wave', 25], ['starry_night', 75]])
        document.getElementById(`style-${name}`).value = value;
        document.getElementById('strength').value = 60; document.getElementById('strength').oninput(); }"""
    )
    page.set_input_files("#file", str(tmp_path / "photo.png"))
    painted(page, 1)
    with page.expect_download() as saved:
        page.click("#save")
    saved.value.save_as(tmp_path / "saved.png")
    stylizer = Stylizer.load("gallery", device="cpu", precision="float32")
    wanted = stylizer(small, style="wave:0.25,starry_night:0.75", strength=0.6)
    made = np.asarray(Image.open(tmp_path / "saved.png").convert("RGB")).astype(int)
    assert np.abs(made - np.asarray(wanted)).max() <= 2


@pytest.mark.slow
def test_the_camera_is_painted_and_stops(page: Any, address: str) -> None:
    page.set_default_timeout(4 * WAIT)
    ready(page, f"{address}?engine=wasm")
    page.select_option("#side", "256")
    page.click("#camera")
    frame = painted(page, 2)
    assert frame.shape[1] == 256
    assert frame.std() > 5
    assert page.get_attribute("#camera", "aria-pressed") == "true"
    page.click("#camera")
    assert page.inner_text("#camera") == "Start the camera"


@pytest.mark.slow
def test_a_file_that_is_no_picture_is_named(page: Any, address: str, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_bytes(b"no picture")
    ready(page, f"{address}?engine=wasm")
    page.set_input_files("#file", str(tmp_path / "text.png"))
    status(page, "text.png is not a picture")


@pytest.mark.slow
def test_the_page_fits_a_phone_and_names_its_controls(page: Any, address: str) -> None:
    page.set_viewport_size({"width": 360, "height": 740})
    ready(page, f"{address}?engine=wasm")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    unnamed = page.evaluate(
        """() => [...document.querySelectorAll('input, select, button')].filter((each) =>
        !each.labels?.length && !each.getAttribute('aria-label') && !each.textContent.trim()).length"""
    )
    assert unnamed == 0


# --- the folder, without a browser


@pytest.mark.slow
def test_a_page_names_no_other_host(tmp_path: Path, tiny_style: Path) -> None:
    steps = list(export.export_page(str(tiny_style), tmp_path / "site", files=NO_FILES))
    assert steps[-1].index == steps[-1].total
    names = {
        path.relative_to(tmp_path / "site").as_posix() for path in (tmp_path / "site").rglob("*") if path.is_file()
    }
    own = {"index.html", "page.css", "page.js", "painter.js", "noise.js", "network.json", "network.onnx"}
    assert names == own | {f"runtime/{name}" for name in runtime.FILES}
    for name in ("index.html", "page.css", "page.js", "painter.js", "noise.js"):
        assert "://" not in (tmp_path / "site" / name).read_text("utf-8")
    assert "default-src 'none'" in (tmp_path / "site" / "index.html").read_text("utf-8")
    facts = json.loads((tmp_path / "site" / "network.json").read_text("utf-8"))
    assert [each["name"] for each in facts["styles"]] == ["one", "two"]
    assert facts["inputs"] == ["image", "styles", "strength"]


def package(path: Path, content: bytes = b"code") -> Path:
    """An npm package with the files of a page."""
    with tarfile.open(path, "w:gz") as archive:
        for name in runtime.FILES:
            member = tarfile.TarInfo(f"package/dist/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def test_a_package_with_another_hash_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERCEPTUAL_WEIGHTS", str(tmp_path))
    package(tmp_path / runtime.PACKAGE.file)
    with pytest.raises(WeightsError, match="does not have the hash"):
        runtime.files()


def test_the_files_come_from_an_unpacked_package(tmp_path: Path) -> None:
    with tarfile.open(package(tmp_path / "p.tgz")) as archive:
        archive.extractall(tmp_path, filter="data")
    for folder in (tmp_path, tmp_path / "package", tmp_path / "package" / "dist"):
        assert runtime.files(folder) == dict.fromkeys(runtime.FILES, b"code")
    (tmp_path / "package" / "package.json").write_text('{"name": "onnxruntime-web", "version": "9.9"}')
    assert runtime.version_of(tmp_path) == "9.9"
    (tmp_path / "package" / "dist" / runtime.FILES[2]).unlink()
    with pytest.raises(WeightsError, match="has no file"):
        runtime.files(tmp_path)


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path: Path, tiny_style: Path) -> None:
    (tmp_path / "site").write_bytes(b"mine")
    with pytest.raises(OutputError, match="is a file"):
        list(export.export_page(str(tiny_style), tmp_path / "site", files=NO_FILES))
    assert (tmp_path / "site").read_bytes() == b"mine"


def test_without_a_connection_the_sentence_says_how_to_get_the_package(
    capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_style: Path
) -> None:
    monkeypatch.setenv("PERCEPTUAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PERCEPTUAL_WEIGHTS", "")
    nowhere = runtime.WeightFile("p.tgz", "00", "http://127.0.0.1:9/p.tgz", flag=runtime.PACKAGE.flag)
    monkeypatch.setattr(runtime, "PACKAGE", nowhere)
    code, _, err = run(capsys, "--quiet", "export", tiny_style, "--web", tmp_path / "site")
    assert code == 1
    assert_one_sentence(err, "Cannot download", "--runtime FOLDER")
    assert not (tmp_path / "site").exists()
