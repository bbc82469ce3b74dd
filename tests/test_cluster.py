"""Files in S3 and in memory, by one process: names, plans, and the bytes that the local command writes."""

from __future__ import annotations

import builtins
import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import clips
import numpy as np
import pytest
from conftest import assert_one_sentence
from PIL import Image
from test_cli import run

from perceptual import cluster
from perceptual.apply import Outcome
from perceptual.config import EngineConfig
from perceptual.errors import ConfigError, ImageError, OutputError
from perceptual.video import Reader

fsspec = pytest.importorskip("fsspec", reason="pip install 'perceptual[ray]'")

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_thread: None) -> Iterator[Any]:
    """The file system memory://, empty; the working folder is a new one."""
    monkeypatch.chdir(tmp_path)
    files = fsspec.filesystem("memory")
    files.store.clear()
    yield files
    files.store.clear()


def upload(memory: Any, names: dict[str, Path]) -> None:
    for name, path in names.items():
        memory.pipe_file(f"/{name}", path.read_bytes())


def made(memory: Any, folder: str) -> dict[str, bytes]:
    return {name.removeprefix(f"/{folder}/"): memory.cat_file(name) for name in memory.find(f"/{folder}")}


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("s3://bucket/photos/a.jpg", "s3://bucket/photos/a.jpg"),
        (Path("s3://bucket/photos/"), "s3://bucket/photos"),  # a Path has one slash after the colon
        ("S3://bucket/a", "s3://bucket/a"),
        ("memory://a", "memory://a"),
        ("photos/a.jpg", None),
        ("c:\\photos", None),
        ("file:///photos/a.jpg", None),
        ("a:b.jpg", None),
    ],
)
def test_a_name_is_a_url_or_a_path(name: str | Path, url: str | None) -> None:
    assert cluster.as_url(name) == url


def test_a_url_of_another_kind_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^gopher:// is not supported: .*s3://\.$"):
        cluster.as_url("gopher://host/a.jpg")


def test_a_url_without_a_bucket_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"s3:// names no bucket: write s3://bucket/folder\."):
        cluster.as_url("s3://")
    with pytest.raises(ConfigError, match=r"^gs:// is not supported"):
        cluster.as_url("gs://")


def test_a_file_that_is_named_like_a_url_is_a_file() -> None:
    Path("s3:").mkdir()
    Path("s3:/a.jpg").write_bytes(b"")
    assert cluster.as_url("s3:/a.jpg") is None
    assert cluster.without_file_scheme("file:///photos/a.jpg") == "/photos/a.jpg"


def plan(memory: Any, names: list[str], inputs: list[str], out: str, **options: Any) -> cluster.Plan:
    for name in names:
        memory.pipe_file(f"/{name}", b"x")
    overwrite = options.pop("overwrite", False)
    return cluster.plan(inputs, out, cluster.Naming(**options), overwrite=overwrite)


def test_a_folder_gives_its_pictures_with_their_subfolders(memory: Any) -> None:
    names = ["in/b.jpg", "in/sub/a.PNG", "in/note.txt", "in/.hidden/a.jpg", "in/anim.gif", "other/c.jpg"]
    found = plan(memory, names, ["memory://in/"], "memory://out/", mark="_x")
    assert found.done == []
    assert found.pairs == [
        ("memory://in/anim.gif", "memory://out/anim_x.png"),  # GIF cannot be written
        ("memory://in/b.jpg", "memory://out/b_x.jpg"),
        ("memory://in/sub/a.PNG", "memory://out/sub/a_x.PNG"),
    ]


def test_a_glob_gives_what_it_matches(memory: Any) -> None:
    names = ["in/a.jpg", "in/b.png", "in/x/c.jpg", "in/x/y/d.jpg"]
    one = plan(memory, names, ["memory://in/*.jpg"], "memory://out")
    deep = plan(memory, names, ["memory://in/**/*.jpg"], "memory://out")
    assert [target for _, target in one.pairs] == ["memory://out/a.jpg"]
    assert [target for _, target in deep.pairs] == [
        f"memory://out/{name}" for name in ("a.jpg", "x/c.jpg", "x/y/d.jpg")
    ]


def test_one_file_goes_to_the_name_or_the_folder_that_is_given(memory: Any) -> None:
    single = plan(memory, ["in/a.jpg"], ["memory://in/a.jpg"], "memory://out/b.png")
    folder = plan(memory, [], ["memory://in/a.jpg"], "memory://out.d", ending=".webp")  # as a bucket may be named
    assert single.pairs == [("memory://in/a.jpg", "memory://out/b.png")]
    assert folder.pairs == [("memory://in/a.jpg", "memory://out.d/a.webp")]


def test_a_file_that_is_named_is_always_replaced(memory: Any) -> None:
    found = plan(memory, ["in/a.jpg", "out/b.png"], ["memory://in/a.jpg"], "memory://out/b.png")
    assert (len(found.pairs), found.done) == (1, [])


def test_paths_and_urls_mix(memory: Any) -> None:
    Path("photos").mkdir()
    Path("photos/a.jpg").write_bytes(b"x")
    here = str(Path.cwd())
    assert plan(memory, [], ["photos"], "memory://out").pairs == [(f"{here}/photos/a.jpg", "memory://out/a.jpg")]
    assert plan(memory, ["in/b.jpg"], ["memory://in"], "out").pairs == [("memory://in/b.jpg", f"{here}/out/b.jpg")]


def test_outputs_that_exist_are_skipped_unless_they_are_to_be_made_again(memory: Any) -> None:
    names = ["in/a.jpg", "in/b.jpg", "out/b.jpg"]
    first, again = (plan(memory, names, ["memory://in"], "memory://out", overwrite=o) for o in (False, True))
    assert [(each.target, each.skipped) for each in first.done] == [("memory://out/b.jpg", True)]
    assert ([source for source, _ in first.pairs], first.total) == (["memory://in/a.jpg"], 2)
    assert (again.done, len(again.pairs)) == ([], 2)


def test_many_outputs_are_looked_up_in_one_listing(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perceptual.cluster.planning.FEW", 1)
    found = plan(memory, ["in/a.jpg", "in/b.jpg", "out/b.jpg"], ["memory://in"], "memory://out")
    assert ([source for source, _ in found.pairs], len(found.done)) == (["memory://in/a.jpg"], 1)


def test_earlier_results_in_the_folder_of_outputs_are_no_inputs(memory: Any) -> None:
    found = plan(memory, ["in/a.jpg", "in/out/b.jpg"], ["memory://in"], "memory://in/out")
    assert [source for source, _ in found.pairs] == ["memory://in/a.jpg"]


def test_the_second_input_of_an_output_fails(memory: Any) -> None:
    found = plan(memory, ["in/a.gif", "in/a.png"], ["memory://in"], "memory://out")
    assert [source for source, _ in found.pairs] == ["memory://in/a.gif"]
    assert found.done[0].error == (
        "memory://in/a.png has the same output memory://out/a.png as memory://in/a.gif: give it another name or folder."
    )


@pytest.mark.parametrize(
    ("inputs", "out", "kind", "says"),
    [
        (["memory://in"], None, OutputError, "give a folder or an s3:// URL with -o"),
        (["memory://none"], "memory://out", ImageError, "memory://none does not exist or is empty"),
        (["memory://text"], "memory://out", ImageError, "has no file to convert"),
        (["memory://in/a.jpg"], "memory://in/a.jpg", OutputError, "would replace the input"),
        (["memory://in/a.gif"], "memory://in/", OutputError, "would replace the input"),
        (["memory://in/a.jpg"], "memory://out/a.doc", OutputError, "a.doc"),
        (["memory://in"], "memory://out/a.jpg", OutputError, "3 files cannot be written to one file, memory://out/a"),
        (["memory://in"], "memory://out/a.heic", OutputError, "3 files cannot be written to one file"),
        (["memory://in"], "result.jpg", OutputError, "3 files cannot be written to one file, result.jpg"),
        (["memory://in/**"], "memory://in", ImageError, "All given files are in the output folder"),
    ],
)
def test_what_cannot_be_done_is_said_before_the_work(
    memory: Any, inputs: list[str], out: str | None, kind: type[Exception], says: str
) -> None:
    for name in ("in/a.jpg", "in/a.gif", "in/a.png", "text/a.txt"):
        memory.pipe_file(f"/{name}", b"x")
    inputs = [*inputs, "memory://in/a.png"] if "gif" in inputs[0] else inputs
    with pytest.raises(kind, match=says):
        cluster.plan(inputs, out, cluster.Naming())


@pytest.fixture
def photos(photograph: Image.Image) -> dict[str, Path]:
    """Pictures of kinds that need care: EXIF that turns, a profile, transparency, 16 bits; and no picture."""
    small = photograph.resize((48, 32))
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a cat"
    folder = Path("photos")
    folder.mkdir()
    small.save(folder / "turned.jpg", exif=exif, dpi=(72, 72))
    small.convert("RGBA").rotate(30).save(folder / "clear.png")
    Image.fromarray((np.arange(48 * 32).reshape(32, 48) * 40).astype(np.uint16)).save(folder / "deep.png")
    (folder / "sub").mkdir()
    small.save(folder / "sub" / "a.webp", lossless=True)
    (folder / "bad.jpg").write_text("no picture")
    return {f"in/{path.relative_to(folder)}": path for path in folder.rglob("*.*")}


def test_the_bytes_are_those_of_the_local_command(
    capsys: Capture, memory: Any, photos: dict[str, Path], tiny_style: Path
) -> None:
    upload(memory, photos)
    words = ("--style", tiny_style, "--device", "cpu")
    assert run(capsys, "stylize", "photos", "-o", "local", *words)[0] == 1
    code, out, err = run(capsys, "stylize", "memory://in", "-o", "memory://out", *words, "--json")
    local = {str(path.relative_to("local")): path.read_bytes() for path in Path("local").rglob("*.*")}
    assert made(memory, "out") == local
    assert len(local) == 4
    document = json.loads(out)
    assert (code, document["written"], document["skipped"], document["failed"]) == (1, 4, 0, 1)
    (bad,) = [each for each in document["files"] if each["state"] == "failed"]
    assert bad["reason"].startswith("memory://in/bad.jpg is not an image of a known format")
    assert "failed: memory://in/bad.jpg is not an image" in err
    turned = next(each for each in document["files"] if each["input"].endswith("turned.jpg"))
    assert (turned["output"], turned["width"], turned["height"]) == ("memory://out/turned.jpg", 32, 48)


def test_a_second_run_does_what_is_missing(
    capsys: Capture, memory: Any, photos: dict[str, Path], tiny_style: Path
) -> None:
    del photos["in/bad.jpg"]
    upload(memory, photos)
    words = ("stylize", "memory://in", "-o", "memory://out", "--style", tiny_style, "--device", "cpu")
    assert run(capsys, *words)[0] == 0
    first = made(memory, "out")
    memory.rm("/out/clear.png")
    memory.pipe_file("/out/deep.png", b"mine")
    code, _, err = run(capsys, *words)
    assert (code, "1 written, 3 skipped, 0 failed" in err) == (0, True)
    assert made(memory, "out") == {**first, "deep.png": b"mine"}
    code, _, err = run(capsys, *words, "--overwrite")
    assert (code, "4 written, 0 skipped, 0 failed" in err) == (0, True)
    assert made(memory, "out") == first


def test_a_file_that_fails_leaves_nothing(capsys: Capture, memory: Any, tiny_style: Path) -> None:
    memory.pipe_file("/in/bad.jpg", b"no picture")
    code, out, _ = run(capsys, "stylize", "memory://in/bad.jpg", "-o", "memory://out/", "--style", tiny_style)
    assert (code, out, made(memory, "out")) == (1, "", {})


def test_an_unexpected_error_of_one_file_does_not_stop_the_others(memory: Any) -> None:
    def start() -> cluster.Convert:
        def convert(source: Path, target: Path) -> Outcome:
            if source.read_bytes() == b"bad":
                raise ZeroDivisionError("division by zero")
            target.write_bytes(source.read_bytes() * 2)
            return Outcome(str(source), str(target))

        return convert

    memory.pipe_file("/in/a.png", b"bad")
    memory.pipe_file("/in/b.png", b"good")
    pairs = cluster.plan(["memory://in"], "memory://out", cluster.Naming()).pairs
    bad, good = cluster.work_here(pairs, start)
    assert bad is not None
    assert good is not None
    assert bad.error == (
        "memory://in/a.png: an unexpected error, ZeroDivisionError: division by zero; please report it."
    )
    assert (good.error, made(memory, "out")) == (None, {"b.png": b"goodgood"})


def test_videos_of_a_folder(capsys: Capture, memory: Any, tiny_style: Path) -> None:
    clips.make("a.mp4", count=4, sound="aac")
    clips.make("b.mkv", count=3)
    upload(memory, {"in/a.mp4": Path("a.mp4"), "in/sub/b.mkv": Path("b.mkv")})
    memory.pipe_file("/in/c.mov", b"no video")
    memory.pipe_file("/in/photo.jpg", b"no video")
    words = ("video", "memory://in", "-o", "out", "--style", tiny_style, "--device", "cpu")
    code, out, err = run(capsys, *words, "--json")
    assert code == 1, err
    good, bad, deep = sorted(json.loads(out)["files"], key=lambda each: str(each["input"]))
    assert (good["state"], good["frames"], good["width"]) == ("written", 4, 64)
    assert (deep["output"], deep["frames"]) == (f"{Path.cwd()}/out/sub/b.mkv", 3)
    assert bad["reason"].startswith("memory://in/c.mov")
    with Reader("out/a.mp4") as reader:
        assert len(list(reader)) == 4
    assert "0 written, 2 skipped, 1 failed" in run(capsys, *words)[2]


# --- one sentence where something is wrong


def test_flags_of_the_engine_need_the_engine(capsys: Capture) -> None:
    for words in (("--address", "auto"), ("--workers", "2")):
        code, _, err = run(capsys, "stylize", "a.jpg", *words)
        assert code == 2
        assert_one_sentence(err, f"{words[0]} is for --engine ray")


def test_stdin_is_refused(capsys: Capture) -> None:
    code, _, err = run(capsys, "stylize", "-", "-o", "memory://out")
    assert code == 2
    assert_one_sentence(err, "- (stdin, stdout) is for")


@pytest.mark.parametrize(
    ("hidden", "words", "says"),
    [
        ("fsspec", ("s3://bucket/a.jpg", "-o", "out"), "needs fsspec and s3fs: run `pip install 'perceptual[ray]'`"),
        ("ray", ("a.jpg", "-o", "out", "--engine", "ray"), "needs Ray: run `pip install 'perceptual[ray]'`"),
    ],
)
def test_a_missing_library_is_named_with_its_extra(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, hidden: str, words: tuple[str, ...], says: str
) -> None:
    Image.new("RGB", (8, 8)).save("a.jpg")
    known = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.split(".")[0] == hidden:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return known(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    code, _, err = run(capsys, "stylize", *words)
    assert code == 1
    assert_one_sentence(err, says)


def test_the_command_loads_neither_ray_nor_fsspec() -> None:
    code = "import sys, perceptual.cli; perceptual.cli.main(['stylize', '--help']) if len(sys.argv) > 1 else None\n"
    code += "print({'ray', 'fsspec', 's3fs', 'botocore'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_networks_have_whole_paths_for_workers_elsewhere() -> None:
    from perceptual.cli.cluster import placed
    from perceptual.config import StylizeConfig

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Both(EngineConfig, StylizeConfig):
        pass

    Path("my.safetensors").write_bytes(b"")
    mine = os.path.abspath("my.safetensors")
    told = [placed(Both(engine="ray", style=s)).style for s in ("my.safetensors", "wave:0.5,my.safetensors:2", "wave")]
    assert told == [mine, f"wave:0.5,{mine}:2", "wave"]
    assert placed(Both(style="my.safetensors")).style == "my.safetensors"
