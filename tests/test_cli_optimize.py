"""perceptual optimize as a user meets it: what it writes, its exit codes, and one sentence instead of a traceback."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from conftest import assert_one_sentence
from PIL import Image
from test_cli import run
from torch import Tensor

from perceptual import files, optimize

Capture = pytest.CaptureFixture[str]
QUICK = ["--size", "32", "--iterations", "4", "--preview-every", "2", "--device", "cpu"]
KINDS = {
    "style": ["style", "photo.png", "painting.png", "--content-layers", "relu1_1", "--style-layers", "relu1_1"],
    "invert": ["invert", "photo.png", "--layer", "relu1_1"],
    "texture": ["texture", "painting.png", "--layers", "relu1_1"],
}
EVERY_KIND = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, photograph: Image.Image) -> Path:
    """The working folder: a photograph, a painting, and VGG-16's first group with made-up weights."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PERCEPTUAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("PERCEPTUAL_WEIGHTS", raising=False)
    photograph.resize((64, 48)).save("photo.png")
    photograph.rotate(90).resize((60, 60)).save("painting.png")
    generator, state = torch.Generator().manual_seed(0), {}
    for index, channels in ((0, 3), (2, 64)):
        weight = 0.1 * torch.randn(64, channels, 3, 3, generator=generator)
        state |= {f"features.{index}.weight": weight, f"features.{index}.bias": torch.zeros(64)}
    safetensors.torch.save_file(state, "vgg.safetensors")
    return tmp_path


def make(capsys: Capture, kind: str, *more: object) -> tuple[int, str]:
    """Run a quick command that writes x.png: (exit code, what it says)."""
    words = [*KINDS[kind], "--weights", "vgg16=vgg.safetensors", "-o", "x.png", *QUICK, *more]
    code, out, err = run(capsys, "optimize", *words)
    assert out == ""
    return code, err


def trace_of(out: str = "x.png") -> list[dict[str, float]]:
    return [json.loads(line) for line in Path(f"{out}.jsonl").read_text().splitlines()]


def pixels(path: str) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image).copy()


def written() -> list[str]:
    """What the command has left behind."""
    return sorted(path.name for path in Path().glob("x*"))


def put_objective(monkeypatch: pytest.MonkeyPatch, value: Callable[[int], float]) -> None:
    """Make the objective the mean square of the pixels times `value` of the number of its evaluation, from 0 on,
    not counting those that references are measured by."""
    count = iter(range(10_000))

    def stub(*_: object, **__: object) -> Any:
        def terms(image: Tensor, goal: object) -> dict[str, Tensor]:
            style = image.square().mean() * (value(next(count)) if torch.is_grad_enabled() else 1)
            return {"style": style, "total": style}

        terms.goal, terms.set_references, terms.named_terms = lambda _: {}, lambda _: None, lambda: []
        return terms

    monkeypatch.setattr(optimize, "style_transfer_loss", stub)


# --- what it writes


@EVERY_KIND
def test_a_picture_a_trace_and_previews_are_written(capsys: Capture, kind: str) -> None:
    code, err = make(capsys, kind)
    assert code == 0, err
    assert "Wrote x.png after 4 iterations" in err
    assert written() == ["x.png", "x.png.jsonl", "x.png.previews"]
    size = (32, 32) if kind == "texture" else (24, 32)
    assert pixels("x.png").shape == (*size, 3)
    for name in ("000002", "000004"):
        assert pixels(f"x.png.previews/{name}.png").shape == (*size, 3)
    assert len(list(Path("x.png.previews").iterdir())) == 2
    trace = trace_of()
    assert [line["iteration"] for line in trace] == [0, 1, 2, 3, 4]
    assert trace[-1]["total"] < trace[0]["total"]
    assert f"objective {trace[-1]['total']:.4g}" in err


def test_an_objective_without_vgg_needs_no_weights_of_it(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr("perceptual.cli.optimize.fetch_missing", lambda *what, **_: asked.append(what))
    code, _, err = run(
        capsys, "optimize", "style", "photo.png", "painting.png", "-o", "x.png", "--loss", "pixel=1,tv=1", *QUICK
    )
    assert code == 0, err
    assert "vgg" not in str(asked)


def test_options_reach_the_optimisation(capsys: Capture) -> None:
    make(capsys, "style", "--scales", "2", "--method", "adam", "--content-weight", "7")
    assert [line["scale"] for line in trace_of()] == [0.5] * 5 + [1.0] * 5
    first = pixels("x.png")
    assert make(capsys, "style", "--overwrite", "--seed", "1", "--preview-every", "0")[0] == 0
    assert not np.array_equal(pixels("x.png"), first)
    assert len(trace_of()) == 5  # of this run alone
    assert written() == ["x.png", "x.png.jsonl"]


def test_the_content_as_start_is_hardly_changed_where_only_content_counts(capsys: Capture) -> None:
    code, err = make(capsys, "invert", "--init", "content", "--size", "64", "--tv-weight", "1e-6")
    assert code == 0, err
    close = np.abs(pixels("x.png").astype(int) - pixels("photo.png").astype(int))
    assert close.mean() < 2


def test_a_result_keeps_the_outline_of_its_content_and_a_texture_has_none(capsys: Capture) -> None:
    for name in ("photo.png", "painting.png"):
        image = Image.open(name).convert("RGBA")
        image.putalpha(image.getchannel("R").point(lambda level: 255 * (level > 99)))
        image.save(name)
    assert make(capsys, "style")[0] == 0
    assert pixels("x.png").shape == (24, 32, 4)
    assert len(np.unique(pixels("x.png")[..., 3])) > 1
    assert make(capsys, "texture", "--overwrite")[0] == 0
    assert pixels("x.png").shape == (32, 32, 3)


def test_an_optimum_ends_the_work_and_is_written(capsys: Capture) -> None:
    code, err = make(capsys, "invert", "--init", "content", "--tv-weight", "0", "--size", "64")
    assert code == 0, err
    assert "No step lowers the objective after iteration 0." in err
    assert np.array_equal(pixels("x.png"), pixels("photo.png"))


def test_an_optimum_adds_no_line_to_the_trace(capsys: Capture) -> None:
    make(capsys, "invert", "--init", "content", "--tv-weight", "0")
    assert [line["iteration"] for line in trace_of()] == [0]


def test_an_existing_result_is_kept_unless_told_otherwise(capsys: Capture) -> None:
    Path("x.png").write_text("old")
    Path("x.png.jsonl").write_text("old")
    code, err = make(capsys, "invert")
    assert (code, err.count("\n")) == (1, 1)
    assert "--overwrite" in err
    assert Path("x.png").read_text() == Path("x.png.jsonl").read_text() == "old"
    assert make(capsys, "invert", "--overwrite")[0] == 0
    assert pixels("x.png").shape == (24, 32, 3)


# --- mistakes


MADE_UP = "--weights vgg16=vgg.safetensors"


@pytest.mark.parametrize(
    ("exit_code", "words", "named"),
    [
        (2, "style photo.png painting.png -o x.xyz", "has no ending that can be written"),
        (2, "style photo.png painting.png -o x", "has no ending that can be written"),
        (1, "style missing.png painting.png -o x.png", "missing.png does not exist"),
        (1, "style photo.png missing.png -o x.png", "missing.png does not exist"),
        (1, "style . painting.png -o x.png", "is a folder"),
        (1, "style photo.png . -o x.png", "is a folder"),
        (1, "style photo.png vgg.safetensors -o x.png", "vgg.safetensors"),
        (1, "style photo.png painting.png -o x.png --content-layers relu9_9", "no layer 'relu9_9'"),
        (1, "style photo.png painting.png -o x.png --style-layers vgg17:relu1_1", "no loss network 'vgg17'"),
        (2, "style photo.png painting.png -o x.png --content-layers --style-layers", "at least one content layer"),
        (2, "style photo.png painting.png -o x.png --style-weight -1", "style-weight is -1"),
        (2, "style photo.png painting.png -o x.png --weights vgg16", "NAME=FILE"),
        (2, "style photo.png painting.png -o x.png --weights vgg=vgg.safetensors", "names 'vgg'"),
        (1, "style photo.png painting.png -o x.png --weights vgg16=missing.pth", "no weights file missing.pth"),
        (1, "invert missing.png -o x.png", "missing.png does not exist"),
        (1, "invert . -o x.png", "is a folder"),
        (1, "invert photo.png -o x.png --layer relu1_9", "no layer 'relu1_9'"),
        (1, "invert photo.png -o x.png --layer vgg17:relu1_1", "no loss network 'vgg17'"),
        (1, "invert photo.png -o x.png --layer vgg19-distilled:relu2_2", "cannot be downloaded"),
        (2, "invert photo.png -o x.png --size 31", "size is 31"),
        (2, "invert photo.png -o x.png --iterations 0", "iterations is 0"),
        (1, f"invert photo.png -o x.png --device abacus --layer relu1_1 {MADE_UP}", "no device 'abacus'"),
        (2, "invert photo.png -o x.png --learning-rate 0.1", "add --method adam"),
        (2, "texture photo.png -o x.png --method adam --history 5", "add --method lbfgs"),
        (1, "invert photo.png -o photo.png", "photo.png exists"),
        (1, "texture missing.png -o x.png", "missing.png does not exist"),
        (1, "texture . -o x.png", "is a folder"),
        (2, "texture painting.png -o x.png --layers", "at least one layer"),
        (1, "texture painting.png -o x.png --layers relu1_1 fire2", "no layer 'fire2'"),
        (2, f"texture painting.png -o x.png --init content --layers relu1_1 {MADE_UP}", "--init"),
        (
            2,
            "style photo.png painting.png -o x.png --loss pixel=1 --style_weight 7",
            "leave --style-weight out",
        ),
        (1, f"texture painting.png -o photo.png/x.png --layers relu1_1 {MADE_UP}", "a file, not a folder"),
    ],
)
def test_mistakes_get_one_sentence_and_a_failing_exit_code(
    capsys: Capture, exit_code: int, words: str, named: str
) -> None:
    code, out, err = run(capsys, "optimize", *words.split())
    assert (code, out) == (exit_code, "")
    assert err.startswith("perceptual: ")
    assert err.count("\n") == 1
    assert named in err
    assert written() == []


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("invert line.png --layer pool1", "too small"),
        ("texture line.png --layers relu1_1 pool1", "too small"),
        ("style photo.png line.png --content-layers relu1_1 --style-layers pool1", "too small"),
        ("style line.png photo.png --content-layers relu1_1 --style-layers pool1", "too small"),
        ("invert photo.png --layer relu2_1", "does not include conv2_1"),
        ("invert photo.png --layer relu1_1 --weights vgg16=photo.png", "not a weights file"),
    ],
)
def test_mistakes_seen_by_the_loss_networks_get_one_sentence_too(capsys: Capture, words: str, named: str) -> None:
    Image.new("RGB", (64, 1)).save("line.png")
    more = "" if "--weights" in words else MADE_UP
    code, _, err = run(capsys, "optimize", *words.split(), *more.split(), "-o", "x.png", *QUICK)
    assert (code, err.count("\n")) == (1, 1)
    assert named in err
    assert not Path("x.png").exists()


def test_mistakes_seen_by_the_loss_networks_leave_the_trace_as_it_was(capsys: Capture) -> None:
    assert make(capsys, "invert", "--layer", "relu2_1")[0] == 1
    assert written() == []
    Path("x.png.jsonl").write_text("old")
    assert make(capsys, "invert", "--layer", "relu2_1")[0] == 1
    assert Path("x.png.jsonl").read_text() == "old"


def test_a_disk_that_refuses_is_said_before_the_work(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(files.tempfile, "mkdtemp", refuse)
    put_objective(monkeypatch, lambda count: pytest.fail("the work has begun"))
    code, err = make(capsys, "invert")
    assert (code, err.count("\n")) == (1, 1)
    assert "read-only" in err
    assert written() == []


def test_a_folder_in_the_place_of_the_result_is_said_before_the_work(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("x.png").mkdir()
    put_objective(monkeypatch, lambda count: pytest.fail("the work has begun"))
    code, err = make(capsys, "invert", "--overwrite")
    assert (code, err.count("\n")) == (1, 1)
    assert "is a folder" in err


# --- an end before the end


def test_ctrl_c_leaves_the_best_so_far_and_exits_130(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    def value(count: int) -> float:
        if count == 3:
            signal.raise_signal(signal.SIGINT)
        return 1

    put_objective(monkeypatch, value)
    code, err = make(capsys, "invert", "--iterations", "900", "--method", "adam")
    assert code == 130, err
    assert "Traceback" not in err
    trace = trace_of()
    assert [line["iteration"] for line in trace] == [0, 1, 2, 3]
    assert f"Wrote x.png after 3 iterations; objective {trace[-1]['total']:.4g}." in err
    assert np.square(pixels("x.png") / 255).mean() == pytest.approx(trace[-1]["total"], abs=0.005)


def test_a_second_ctrl_c_stops_at_once(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    def value(count: int) -> float:
        if count == 2:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
        return 1

    put_objective(monkeypatch, value)
    before = signal.getsignal(signal.SIGINT)
    code, err = make(capsys, "invert")
    assert code == 130
    assert err.splitlines()[-1] == "perceptual: stopped."
    assert not Path("x.png").exists()
    assert signal.getsignal(signal.SIGINT) is before


def test_a_run_that_diverges_says_so_and_keeps_what_was_reached(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_objective(monkeypatch, lambda count: math.nan if count > 2 else 1)
    code, err = make(capsys, "invert", "--method", "adam")
    assert code == 1
    *_, wrote, failure = err.splitlines()
    assert wrote.startswith("Wrote x.png after 2 iterations")
    assert failure.startswith("perceptual: The optimisation stopped after")
    assert "style is not a finite number" in failure
    assert [line["iteration"] for line in trace_of()] == [0, 1, 2]
    assert np.square(pixels("x.png") / 255).mean() == pytest.approx(trace_of()[-1]["total"], abs=0.005)


def test_an_objective_that_is_no_number_at_the_start_leaves_no_picture(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_objective(monkeypatch, lambda count: math.nan)
    code, err = make(capsys, "invert")
    assert (code, err.count("\n")) == (1, 1)
    assert "style is not a finite number" in err
    assert not Path("x.png").exists()


# --- files of others


@pytest.mark.parametrize("beside", ["x.png.jsonl", "x.png.previews/mine.png"])
def test_what_lies_beside_the_result_is_never_replaced_unasked(capsys: Capture, beside: str) -> None:
    Path(beside).parent.mkdir(exist_ok=True)
    Path(beside).write_text("mine")
    code, err = make(capsys, "invert")
    assert (code, err.count("\n")) == (1, 1)
    assert "--overwrite" in err
    assert Path(beside).read_text() == "mine"
    assert not Path("x.png").exists()


def test_overwriting_deletes_previews_and_nothing_else(capsys: Capture) -> None:
    Path("x.png.previews").mkdir()
    for name in ("000500.png", "mine.png"):
        Path("x.png.previews", name).write_text("old")
    assert make(capsys, "invert", "--overwrite")[0] == 0
    assert sorted(path.name for path in Path("x.png.previews").iterdir()) == ["000002.png", "000004.png", "mine.png"]


def test_a_file_called_proof_stays(capsys: Capture) -> None:
    Path(".proof").write_text("mine")
    assert make(capsys, "invert")[0] == 0
    assert Path(".proof").read_text() == "mine"


@pytest.mark.parametrize("out", ["photo.png", "./photo.png", "link.png"])
def test_the_input_is_not_replaced_even_when_asked(capsys: Capture, out: str) -> None:
    Path("link.png").symlink_to("photo.png")
    before = Path("photo.png").read_bytes()
    words = ["optimize", "invert", "photo.png", "-o", out, "--overwrite", "--weights", "vgg16=vgg.safetensors", *QUICK]
    code, _, err = run(capsys, *words)
    assert (code, err.count("\n")) == (1, 1)
    assert "would overwrite its input photo.png" in err
    assert Path("photo.png").read_bytes() == before


def test_a_second_run_to_the_same_result_is_one_sentence(capsys: Capture) -> None:
    code = "from perceptual.files import one_run\nwith one_run('x.png'): print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        told, err = make(capsys, "invert")
        other.communicate(b"\n")
    assert (told, err.count("\n")) == (1, 1)
    assert "Another process is writing x.png" in err
    assert written() == []  # the lock is gone with its process
    assert make(capsys, "invert")[0] == 0


def test_a_name_too_long_for_the_files_beside_is_said_before_the_work(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_objective(monkeypatch, lambda count: pytest.fail("the work has begun"))
    words = ["--weights", "vgg16=vgg.safetensors", *QUICK]
    code, _, err = run(capsys, "optimize", "invert", "photo.png", "-o", f"{'x' * 245}.png", *words)
    assert (code, err.count("\n")) == (1, 1)
    assert "the name is too long" in err


def test_a_folder_in_place_of_the_log_is_refused_before_the_work(capsys: Capture, tmp_path: Path) -> None:
    Path("x.png.jsonl").mkdir()
    code, out, err = run(capsys, "optimize", "invert", "photo.png", "-o", "x.png", "--overwrite", "--layer", "relu1_1")
    assert (code, out) == (1, "")
    assert_one_sentence(err, "x.png.jsonl is a folder")


def test_two_pictures_of_one_name_do_not_lock_each_other(tmp_path: Path) -> None:
    with contextlib.ExitStack() as locks:
        for ending in ("png", "jpg", "safetensors"):
            locks.enter_context(files.one_run(tmp_path / f"same.{ending}"))
        names = sorted(path.name for path in tmp_path.glob(".same*"))
    assert names == [".same.jpg.lock", ".same.lock", ".same.png.lock"]
