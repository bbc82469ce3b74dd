"""Pictures in S3, which a server on this machine plays."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import assert_one_sentence
from PIL import Image
from test_cli import run

pytest.importorskip("s3fs", reason="pip install 'perceptual[ray]'")
server = pytest.importorskip("moto.server", reason="pip install 'moto[s3]' flask flask-cors")

import fsspec  # noqa: E402  (after the two lines that skip)

Capture = pytest.CaptureFixture[str]

# Connections of s3fs and of the server that are open when the tests end
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::ResourceWarning")]


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """The address of a server that speaks S3."""
    running = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    yield f"http://{host}:{port}"
    running.stop()


@pytest.fixture
def s3(endpoint: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """The file system of that server, with an empty bucket `photos`; no settings of whoever runs the tests."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "anybody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "anything")
    monkeypatch.chdir(tmp_path)
    fsspec.filesystem("s3").clear_instance_cache()
    files = fsspec.filesystem("s3", use_listings_cache=False)
    files.mkdir("photos")
    yield files
    files.rm("photos", recursive=True)
    files.clear_instance_cache()


def fill(s3: Any, photograph: Image.Image, count: int = 3) -> dict[str, bytes]:
    """Pictures in the bucket, and no picture; their bytes by name."""
    told = {}
    for index in range(count):
        photograph.crop((9 * index, 10, 9 * index + 48, 42)).save(f"{index}.png")
        told[f"{index}.png"] = Path(f"{index}.png").read_bytes()
    for name, data in told.items():
        s3.pipe_file(f"photos/in/{name}", data)
    return told


def test_from_bucket_to_bucket(capsys: Capture, s3: Any, photograph: Image.Image, tiny_style: Path) -> None:
    fill(s3, photograph)
    s3.pipe_file("photos/in/", b"")  # a key that some programs make for a folder
    s3.pipe_file("photos/in/a//b/../c.png", b"never read")
    words = ("stylize", "s3://photos/in/", "-o", "s3://photos/out/", "--style", tiny_style, "--device", "cpu")
    code, out, err = run(capsys, *words)
    assert code == 0, err
    assert out.splitlines() == [f"s3://photos/out/{index}.png" for index in range(3)]
    run(capsys, "stylize", *(f"{index}.png" for index in range(3)), "-o", "local", "--style", tiny_style)
    for index in range(3):
        assert s3.cat_file(f"photos/out/{index}.png") == Path(f"local/{index}.png").read_bytes()
    s3.rm("photos/out/1.png")
    code, out, err = run(capsys, *words)
    assert (code, out) == (0, "s3://photos/out/1.png\n")
    assert "1 written, 2 skipped, 0 failed" in err


def test_from_bucket_to_folder_and_back(capsys: Capture, s3: Any, photograph: Image.Image, tiny_style: Path) -> None:
    fill(s3, photograph, 1)
    words = ("--style", tiny_style, "--device", "cpu")
    assert run(capsys, "stylize", "s3://photos/in/*.png", "-o", "here", *words)[0] == 0
    assert run(capsys, "stylize", "0.png", "-o", "s3://photos/there/x.png", *words)[0] == 0
    assert s3.cat_file("photos/there/x.png") == Path("here/0.png").read_bytes()


@pytest.mark.parametrize(
    ("source", "out", "changes", "says"),
    [
        ("s3://nothing/in/", "s3://photos/out/", {}, "s3://nothing/in: there is no bucket nothing"),
        ("0.png", "s3://nothing/out/", {}, "s3://nothing/out: there is no bucket nothing"),
        ("s3://photos/none.jpg", "out/", {}, "s3://photos/none.jpg does not exist or is empty"),
        ("s3://photos/in/", "out/", {"AWS_ACCESS_KEY_ID": None}, "no credentials for S3 were found"),
        ("s3://photos/in/", "out/", {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, "the S3 service cannot be reached"),
    ],
)
def test_one_sentence_says_what_is_wrong(
    capsys: Capture,
    s3: Any,
    photograph: Image.Image,
    monkeypatch: pytest.MonkeyPatch,
    source: str,
    out: str,
    changes: dict[str, str | None],
    says: str,
) -> None:
    fill(s3, photograph, 1)
    with monkeypatch.context() as patch:
        patch.setenv("AWS_MAX_ATTEMPTS", "1")
        for name, value in changes.items():
            patch.setenv(name, value) if value else patch.delenv(name)
        s3.clear_instance_cache()
        code, _, err = run(capsys, "stylize", source, "-o", out)
        s3.clear_instance_cache()
    assert code == 1
    assert_one_sentence(err, says)
