"""The parts of the studio that need no browser: jobs, folder, guard, choices, snippets."""

from __future__ import annotations

import asyncio
import shlex
import shutil
import threading
import time
import zipfile
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

import clips
import pytest
import torch
from foreign import TransformerNet, compact_state
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

pytest.importorskip("gradio")

from perceptual import Upscaler, images
from perceptual.checkpoints import read_card, shipped
from perceptual.config import PaintOptions, StudioConfig
from perceptual.errors import CheckpointError, ConfigError, ImageError, OutputError
from perceptual.events import Step
from perceptual.studio import learning, snippets
from perceptual.studio.folder import Folder, plain_name
from perceptual.studio.guard import COOKIE, Guard
from perceptual.studio.jobs import Job, Jobs
from perceptual.studio.models import Models, Paint
from perceptual.studio.studio import Studio
from perceptual.studio.tabs import enlarge, own_style, paint, video
from perceptual.studio.tabs.paint import choice_of

TOKEN = "a secret of 24 letters ."


def wait_for(condition: Any, seconds: float = 20) -> None:
    """Wait until a condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def until(event: threading.Event) -> Any:
    """Work that lasts until an event."""

    def work(job: Job) -> list[Path]:
        assert event.wait(20)
        return []

    return work


# jobs


def test_jobs_run_one_after_the_other_in_their_order() -> None:
    jobs, order, running = Jobs(), list[int](), list[int]()

    def work(number: int) -> Any:
        def run(job: Job) -> list[Path]:
            running.append(number)
            assert running == [number]
            order.append(number)
            job.report(Step(1, 1, losses={"total": 2.0}))
            running.remove(number)
            return [Path(f"{number}.png")]

        return run

    added = [jobs.add(Job(f"job {k}", "paint", work(k))) for k in range(5)]
    wait_for(lambda: all(job.status == "done" for job in added))
    assert order == [0, 1, 2, 3, 4]
    assert [job.number for job in jobs.all()] == [5, 4, 3, 2, 1]
    assert added[3].results == (Path("3.png"),)
    assert added[3].losses == {1: {"total": 2.0}}
    jobs.close()


def test_a_stopped_job_closes_its_generator_and_the_next_one_runs() -> None:
    jobs, closed, going = Jobs(), threading.Event(), threading.Event()

    def steps() -> Generator[Step, None, None]:
        try:
            for index in range(1_000_000):
                going.set()
                time.sleep(0.001)
                yield Step(index, 1_000_000)
        finally:
            closed.set()

    def endless(job: Job) -> list[Path]:
        job.follow(steps())
        return []

    first, second = jobs.add(Job("first", "paint", endless)), jobs.add(Job("second", "paint", lambda job: []))
    assert going.wait(20)
    assert second.status == "waiting"
    assert jobs.ahead(second) == 1
    first.stop()
    wait_for(lambda: second.status == "done")
    assert closed.is_set()
    assert first.status == "stopped"
    jobs.close()


def test_a_waiting_job_that_is_stopped_never_runs() -> None:
    jobs, go, ran = Jobs(), threading.Event(), list[str]()
    first = jobs.add(Job("first", "a", until(go)))
    second = jobs.add(Job("second", "b", lambda job: ran.append("second") or []))
    wait_for(lambda: first.status == "running")
    second.stop()
    go.set()
    jobs.close()
    assert (first.status, second.status, ran) == ("done", "stopped", [])


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (ImageError("a.png is damaged: get a new copy."), "a.png is damaged: get a new copy."),
        (MemoryError(), "The memory ran out: choose a smaller size."),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "The memory ran out: choose a smaller size."),
        (KeyError("x"), "Unexpected error, please report it: KeyError: 'x'"),
    ],
)
def test_a_job_that_fails_says_why_and_the_queue_goes_on(error: Exception, sentence: str) -> None:
    jobs = Jobs()

    def fail(job: Job) -> list[Path]:
        raise error

    job, after = jobs.add(Job("fails", "a", fail)), jobs.add(Job("works", "a", lambda job: []))
    wait_for(lambda: after.status == "done")
    assert (job.status, job.message) == ("failed", sentence)
    jobs.close()


def test_the_latest_job_of_a_kind_is_the_running_one() -> None:
    jobs, go = Jobs(), threading.Event()
    running = jobs.add(Job("runs", "a", until(go)))
    jobs.add(Job("waits", "a", lambda job: []))
    wait_for(lambda: running.status == "running")
    assert jobs.latest("a") is running
    assert jobs.latest("b") is None
    go.set()
    wait_for(lambda: not any(job.active for job in jobs.all()))
    assert jobs.latest("a") is not running
    jobs.close()


def test_the_time_left_is_in_proportion() -> None:
    job = Job("a", "b", lambda job: [], status="running")
    job._began = time.monotonic() - 10
    job.report(Step(1, 5))
    assert job.seconds_left == pytest.approx(40, abs=2)
    job.first = 100  # goes on with earlier work
    job.report(Step(100, 150))
    assert job.seconds_left is None
    job.report(Step(110, 150))
    assert job.seconds_left == pytest.approx(40, abs=2)


# the folder


@given(st.text(max_size=300))
def test_any_text_becomes_a_plain_file_name(text: str) -> None:
    name = plain_name(text)
    assert 0 < len(name) <= 61
    assert Path(name).name == name
    assert name not in (".", "..")
    assert not set(name) & set('/\\:*?"<>|.\0\n ')
    assert plain_name(name) == name


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("../../etc/passwd", "etc_passwd"),
        ("Grandma's photo (1)", "Grandma_s_photo_1"),
        ("...", "picture"),
        ("CON", "CON_"),
        ("北斎", "北斎"),
    ],
)
def test_names_by_hand(text: str, name: str) -> None:
    assert plain_name(text) == name


def test_no_two_results_have_one_name(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "studio")
    (folder.results / "cat.png").write_bytes(b"")
    assert [folder.new("cat", ".png").name for _ in range(3)] == ["cat_2.png", "cat_3.png", "cat_4.png"]
    assert folder.new("../x", ".png") == folder.results / "x.png"


def test_uploads_are_deleted_and_results_are_kept(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    (folder.uploads / "a.png").write_bytes(b"1")
    (folder.results / "a.png").write_bytes(b"2")
    folder = Folder(tmp_path)
    assert list(folder.uploads.iterdir()) == []
    assert (folder.results / "a.png").read_bytes() == b"2"


def test_a_link_in_place_of_the_uploads_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    (tmp_path / "studio").mkdir()
    (tmp_path / "studio" / "uploads").symlink_to(tmp_path / "mine")
    with pytest.raises(OutputError, match="is a link"):
        Folder(tmp_path / "studio")
    assert (tmp_path / "mine" / "letter.txt").read_text() == "dear"


def test_a_style_of_another_program_is_added_as_a_file_of_ours(tmp_path: Path) -> None:
    torch.save(TransformerNet().state_dict(), tmp_path / "candy.pth")
    studio = Studio.open(StudioConfig(folder=tmp_path / "studio", device="cpu"))
    chosen, field = own_style._Work(studio).add(str(tmp_path / "candy.pth"))
    assert (chosen.value, field) == ("candy", None)
    (file,) = studio.folder.own_styles().values()
    assert "pytorch/examples" in read_card(file).about


def test_an_own_style_does_not_take_the_name_of_a_shipped_one(tmp_path: Path, tiny_style: Path) -> None:
    studio = Studio.open(StudioConfig(folder=tmp_path / "studio", device="cpu"))
    work = own_style._Work(studio)
    shutil.copy(tiny_style, tmp_path / "wave.safetensors")
    shutil.copy(tiny_style, studio.folder.style("mine"))
    (studio.folder.styles / "half.state").write_bytes(b"x")
    with pytest.raises(ConfigError, match="There is a style 'wave' already"):
        work.add(str(tmp_path / "wave.safetensors"))
    with pytest.raises(ConfigError, match="There is a style 'wave' already"):
        work.rename("mine", "wave")
    with pytest.raises(ConfigError, match="Write the new name first"):
        work.rename("mine", " ")
    assert learning._free(studio.folder, "wave").stem == "wave_2"
    assert [name for name, _ in work.rename("mine", "other").choices] == ["half", "other"]  # unfinished ones stay
    assert [name for name, _ in work.delete("other", True)[0].choices] == ["half"]


def test_own_styles_are_renamed_and_deleted_with_their_files(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    for ending in (".safetensors", ".state", ".painting.jpg"):
        (folder.styles / f"sun{ending}").write_bytes(b"x")
    (folder.styles / "sunset.safetensors").write_bytes(b"y")
    assert folder.rename("sun", "My Moon!") == "My_Moon"
    names = sorted(path.name for path in folder.styles.iterdir())
    assert names == ["My_Moon.painting.jpg", "My_Moon.safetensors", "My_Moon.state", "sunset.safetensors"]
    assert folder.unfinished() == ["My_Moon"]
    with pytest.raises(ConfigError, match="already"):
        folder.rename("My_Moon", "sunset")
    folder.delete("My_Moon")
    assert list(folder.own_styles()) == ["sunset"]
    with pytest.raises(ConfigError, match="no own style"):
        folder.delete("../results")


def test_files_are_zipped_under_their_names(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    for name in ("a.png", "b.png"):
        (folder.results / name).write_bytes(name.encode())
    archive = folder.zip(sorted(folder.results.glob("*.png")), "both")
    with zipfile.ZipFile(archive) as opened:
        assert {name: opened.read(name) for name in opened.namelist()} == {"a.png": b"a.png", "b.png": b"b.png"}


# the guard


def run_alone(work: Any) -> None:
    """Run a coroutine in a thread: the browser of other tests has a loop in this one."""
    with ThreadPoolExecutor() as threads:
        threads.submit(asyncio.run, work).result()


def answer(guard: Guard, headers: dict[str, str], *, path: str = "/", query: str = "", body: bytes = b"") -> Any:
    """(status, headers, body) of one request."""
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": body}

    async def send(message: Any) -> None:
        sent.append(message)

    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "path": path, "query_string": query.encode(), "headers": pairs}
    run_alone(guard(scope, receive, send))
    return sent[0]["status"], dict(sent[0]["headers"]), b"".join(each.get("body", b"") for each in sent[1:])


async def inside(scope: Any, receive: Any, send: Any) -> None:
    """An application that answers 200, or 499 when its request ended early."""
    message = await receive()
    status = 499 if message["type"] == "http.disconnect" else 200
    await send({"type": "http.response.start", "status": status, "headers": []})
    await send({"type": "http.response.body", "body": b"page"})


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "127.0.0.1:7860"}, 200),
        ({"host": "localhost:7860"}, 200),
        ({"host": "[::1]:7860"}, 200),
        ({"host": "LOCALHOST"}, 200),
        ({"host": "evil.example:7860"}, 403),
        ({"host": "127.0.0.1.evil.example"}, 403),
        ({"host": "192.168.0.7:7860"}, 403),
        ({"host": ""}, 403),
        ({}, 403),
        ({"host": "[::1"}, 403),
        ({"host": "127.0.0.1:7860", "origin": "http://127.0.0.1:7860"}, 200),
        ({"host": "127.0.0.1:7860", "origin": "http://evil.example"}, 403),
        ({"host": "127.0.0.1:7860", "origin": "http://127.0.0.1:8000"}, 403),
        ({"host": "127.0.0.1:7860", "origin": "null"}, 403),
        ({"host": "127.0.0.1:7860", "sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}, 403),
        ({"host": "127.0.0.1:7860", "sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}, 200),
        ({"host": "127.0.0.1:7860", "content-length": "1000"}, 200),
        ({"host": "127.0.0.1:7860", "content-length": "1001"}, 413),
        ({"host": "127.0.0.1:7860", "content-length": "9" * 5000}, 413),
        ({"host": "127.0.0.1:7860", "content-length": "-1"}, 400),
    ],
)
def test_which_requests_pass(headers: dict[str, str], status: int) -> None:
    guard = Guard(inside, host="127.0.0.1", token=None, limit=1000)
    found, sent, body = answer(guard, headers)
    assert found == status
    assert (body == b"page") == (status == 200)
    assert (b"content-security-policy" in sent) == (status == 200)


def test_a_body_longer_than_it_says_ends() -> None:
    guard = Guard(inside, host="127.0.0.1", token=None, limit=1000)
    assert answer(guard, {"host": "127.0.0.1"}, body=b"x" * 1000)[0] == 200
    assert answer(guard, {"host": "127.0.0.1"}, body=b"x" * 1001)[0] == 499


@pytest.mark.parametrize("token", ["t" * 20, 'quotes";,=inside-the-token'])
def test_a_token_is_asked_for_and_kept_in_a_cookie(token: str) -> None:
    guard = Guard(inside, host="0.0.0.0", token=token, limit=1000)
    host = {"host": "192.168.0.7:7860"}
    assert answer(guard, host)[0] == 401
    assert answer(guard, host, query="token=wrong")[0] == 401
    assert answer(guard, {**host, "cookie": f"{COOKIE}=wrong"})[0] == 401
    assert answer(guard, {**host, "cookie": "\x00;;=;"})[0] == 401
    status, headers, _ = answer(guard, host, query=f"token={quote(token)}")
    assert (status, headers[b"location"]) == (303, b"/")
    cookie = headers[b"set-cookie"].decode()
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    stored = cookie.partition("; ")[0]
    assert answer(guard, {**host, "cookie": stored})[0] == 200
    assert answer(guard, {"host": "evil.example", "cookie": stored})[0] == 403


def test_websockets_are_guarded_too() -> None:
    guard, sent = Guard(inside, host="127.0.0.1", token=None, limit=10), list[Any]()

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "websocket", "headers": [(b"host", b"evil.example")]}
    run_alone(guard(scope, None, send))  # type: ignore[arg-type]
    assert sent[0]["type"] == "websocket.close"


@pytest.mark.parametrize(("host", "local"), [("127.0.0.1", True), ("::1", True), ("0.0.0.0", False)])
def test_a_short_token_is_refused(host: str, local: bool) -> None:
    assert StudioConfig(host=host).is_local == local
    with pytest.raises(ConfigError, match="16 characters"):
        StudioConfig(host=host, token="short")


# choices and snippets


def test_choices_become_options_by_hand() -> None:
    choice = choice_of("wave", [0.5, 2, True, 0, "udnie", 0.5, "", 0.5, "wave", 0.5])
    assert choice.styles == {"wave": 0.75, "udnie": 0.25}
    assert choice.options(500, 400) == PaintOptions(strength=0.5, keep_colors=True, style_scale=2)
    assert choice.options(1152, 1000).style_scale == 4  # twice the strokes of a picture of 576 px
    assert Paint(size=2304).options(100, 50).style_scale == 4
    assert Paint(strokes=4).options(20_000, 20_000).style_scale == 16
    with pytest.raises(ConfigError, match="Choose a style"):
        choice_of(None, [1, 1, False, 0])


def test_a_preview_has_the_strokes_of_the_full_painting(tmp_path: Path, photograph: Image.Image) -> None:
    """At twice the stroke size the network paints a picture of half the size."""
    models = Models(Folder(tmp_path), device="cpu")
    photograph.save(tmp_path / "photo.png")
    width, height = photograph.size
    for strokes, shape in ((1, (height, width)), (2, (round(height / 2), round(width / 2)))):
        preview = models.preview(tmp_path / "photo.png", Paint(styles={"wave": 1.0}, strokes=strokes))
        assert all(abs(a - b) <= 1 for a, b in zip(preview.shape[-2:], shape, strict=True))


def test_a_preview_is_the_painting_of_a_small_photo(tmp_path: Path, photograph: Image.Image) -> None:
    models = Models(Folder(tmp_path), device="cpu")
    photograph.save(tmp_path / "photo.png")
    choice = Paint(styles={"wave": 0.5, "udnie": 0.5}, strength=0.5)
    preview = models.preview(tmp_path / "photo.png", choice)
    picture = images.read(tmp_path / "photo.png", levels=True).pixels
    painted = models.stylizer(choice.styles).stylize(picture, choice.options(*picture.shape[-2:]))
    assert torch.equal(preview, painted)


def test_a_magnified_part_is_that_of_the_whole(tmp_path: Path, photograph: Image.Image) -> None:
    models = Models(Folder(tmp_path), device="cpu")
    photograph.resize((240, 200)).save(tmp_path / "photo.png")
    picture = images.read(tmp_path / "photo.png", levels=True).pixels
    whole = models.upscaler(4, "pixel").upscale(picture)
    for centre in ((0.5, 0.5), (0.0, 1.0), (0.9, 0.1)):
        bicubic, part = models.magnified(tmp_path / "photo.png", centre, 4, "pixel")
        assert part.shape == bicubic.shape == (1, 3, 512, 512)
        top = min(72, max(0, round(centre[0] * 200 - 64)))
        left = min(112, max(0, round(centre[1] * 240 - 64)))
        expected = whole[..., 4 * top : 4 * top + 512, 4 * left : 4 * left + 512]
        assert (part.int() - expected.int()).abs().max() <= 1


def test_a_style_that_is_gone_is_named(tmp_path: Path) -> None:
    models = Models(Folder(tmp_path), device="cpu")
    with pytest.raises(ConfigError, match="no style 'gone' any more"):
        models.stylizer({"gone": 1.0})


@pytest.mark.parametrize(
    ("name", "kind", "out", "large"),
    [
        ("o.heic", "As the photo", "o_painted.png", "o_x2.png"),
        ("o.jpg", "PNG", "o_painted.png", "o_x2.jpg"),
        ("o.gif", "", "o_painted.png", "o_x2.png"),
    ],
)
def test_the_commands_write_what_the_page_writes(tmp_path: Path, name: str, kind: str, out: str, large: str) -> None:
    work = paint._Work(Studio.open(StudioConfig(folder=tmp_path / "studio", device="cpu")))
    work.studio.models.size = lambda path: (40, 60)  # type: ignore[method-assign]
    shell, python = work.snippets(str(tmp_path / name), "wave", kind, 1, 1, False, 0)
    assert shlex.split(shell)[-2:] == ["-o", out]
    assert f"painting.save({out!r})" in python
    assert shlex.split(enlarge._Work(work.studio).snippets(name, "2 times", "Automatic")[0])[-1] == large


def test_the_command_of_a_painting_parses(tmp_path: Path) -> None:
    options = PaintOptions(strength=0.5, keep_colors=True, style_scale=2, size=300)
    shell, python = snippets.stylize(Path("my photo.jpg"), "wave:0.50,udnie:0.50", options, Path("out.jpg"))
    words = shlex.split(shell)
    assert words[:3] == ["perceptual", "stylize", "my photo.jpg"]
    assert words[words.index("--strength") + 1] == "0.5"
    assert "--keep-colors" in words
    assert words[-2:] == ["-o", "out.jpg"]
    compile(python, "snippet", "exec")
    assert "strength=0.5" in python


# upscaling networks of other programs


@pytest.mark.usefixtures("seed")
def test_an_added_network_enlarges_a_part_and_the_whole_as_upscaler_does(
    tmp_path: Path, photograph: Image.Image
) -> None:
    torch.save(compact_state(scale=4), tmp_path / "4x model.pth")
    photograph.convert("RGB").resize((60, 40)).save(tmp_path / "small.png")
    studio = Studio.open(StudioConfig(folder=tmp_path / "studio", device="cpu"))
    work = enlarge._Work(studio)
    scale, chosen, field = work.add(str(tmp_path / "4x model.pth"))
    assert (scale, field) == ("4 times", None)
    assert chosen.value == "4x_model.pth"
    assert [name for name, _ in chosen.choices] == [*enlarge.LOSSES, "4x_model.pth"]
    about = work.about("4 times", "4x_model.pth")
    assert "Compact x4" in about
    assert "licence: not in the file" in about
    assert work.about("4 times", "Automatic") == ""
    whole = Upscaler.load(tmp_path / "4x model.pth", device="cpu").upscale(
        images.read(tmp_path / "small.png", levels=True).pixels
    )
    _, part = studio.models.magnified(tmp_path / "small.png", (0.5, 0.5), 4, "4x_model.pth")
    assert torch.equal(part, whole)
    shell, python = work.snippets(str(tmp_path / "small.png"), "2 times", "4x_model.pth")
    words = shlex.split(shell)
    assert words[words.index("--network") + 1] == str(studio.folder.upscalers / "4x_model.pth")
    assert "--loss" not in words
    assert "scale=2" in python
    work.enlarge([str(tmp_path / "small.png")], "2 times", "4x_model.pth")
    wait_for(lambda: not any(job.active for job in studio.jobs.all()))
    with Image.open(studio.folder.results / "small_x2.png") as made:
        assert made.size == (120, 80)
    with pytest.raises(ConfigError, match="up to 4 times"):
        work.enlarge([str(tmp_path / "small.png")], "8 times", "4x_model.pth")
    with pytest.raises(ConfigError, match="already"):
        work.add(str(tmp_path / "4x model.pth"))
    (studio.folder.upscalers / "4x_model.pth").unlink()
    with pytest.raises(ConfigError, match="any more"):
        work.about("2 times", "4x_model.pth")
    studio.close()


def test_an_added_network_enlarges_clips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(compact_state(scale=4), "4x.pth")
    clips.make("small.mp4", count=3, size=(32, 24))
    studio = Studio.open(StudioConfig(folder=tmp_path / "studio", device="cpu"))
    enlarge._Work(studio).add("4x.pth")
    choice = video.Choice(
        what=video.ENLARGE, style="", strength=1, strokes=1, colors=False, steady=0.0, scale="4 times", loss="4x.pth",
        size=0, start=0, end=0, kind="MP4", sound=True,
    )  # fmt: skip
    work = video._Work(studio)
    words = shlex.split(work.snippets("small.mp4", *choice)[0])
    assert words[words.index("--network") + 1] == str(studio.folder.upscalers / "4x.pth")
    work.convert("small.mp4", *choice)
    wait_for(lambda: not any(job.active for job in studio.jobs.all()))
    assert [frame.shape for _, frame in clips.frames(studio.folder.results / "small_x4.mp4")] == [(96, 128, 3)] * 3
    (studio.folder.upscalers / "4x.pth").unlink()
    with pytest.raises(ConfigError, match="any more"):
        work.convert("small.mp4", *choice)
    studio.close()


def test_a_file_that_is_no_upscaling_network_is_not_added(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(3)}, tmp_path / "a.pth")
    studio = Studio.open(StudioConfig(folder=tmp_path / "studio", device="cpu"))
    for path in (tmp_path / "a.pth", shipped.networks("style")["gallery"]):
        with pytest.raises(CheckpointError):
            enlarge._Work(studio).add(str(path))
    assert list(studio.folder.upscalers.iterdir()) == []
    studio.close()
