"""--json: one JSON document on stdout for every command, whatever happens, with the exit code unchanged."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from PIL import Image
from test_cli import run
from test_cli_upscale import FAST, Capture, folder, save_network  # noqa: F401  (fixtures)

from perceptual import cli
from perceptual.checkpoints import shipped
from perceptual.cli import results

HEAD = ("command", "exit_code", "meaning", "error", "seconds")


def documented(capsys: Capture, *words: object, code: int = 0) -> dict[str, Any]:
    """The document of a command, which must end with that exit code."""
    returned, out, err = run(capsys, *words, "--json")
    assert returned == code, err
    assert "Traceback" not in err
    document: dict[str, Any] = json.loads(out)
    assert tuple(document)[:5] == HEAD
    assert (document["exit_code"], document["meaning"]) == (code, results.MEANINGS[code])
    assert 0 <= document["seconds"] < 600
    return document


# --- files, one after another


def test_stylize_tells_what_became_of_each_file(capsys: Capture, tiny_style: Path) -> None:
    Path("photos/bad.png").write_text("not a picture")
    Path("out").mkdir()
    Path("out/2.png").write_text("mine")
    words = ("stylize", "photos", "--style", tiny_style, "-o", "out", "--skip-existing", "--device", "cpu")
    document = documented(capsys, *words, code=1)
    assert (document["command"], document["error"]) == ("stylize", None)
    first, second, third, bad = document["files"]
    assert first.pop("seconds") > 0
    assert first == {
        "input": "photos/0.png",
        "output": "out/0.png",
        "state": "written",
        "reason": None,
        "width": 60,
        "height": 48,
        "pictures_in_input": 1,
    }
    assert [each["state"] for each in (second, third, bad)] == ["written", "skipped", "failed"]
    assert (third["output"], third["reason"], third["width"]) == ("out/2.png", "The output exists.", None)
    assert (bad["input"], bad["output"]) == ("photos/bad.png", None)
    assert bad["reason"].startswith("photos/bad.png is not an image of a known format")
    assert Path("out/2.png").read_text() == "mine"


def test_progress_and_names_stay_on_stderr(capsys: Capture, tiny_style: Path) -> None:
    words = ("stylize", "photos/0.png", "--style", tiny_style, "-o", "a.png", "--json")
    _, out, err = run(capsys, *words)
    assert json.loads(out)["files"][0]["output"] == "a.png"
    assert "a.png" in err
    assert "1 written" in err
    _, out, err = run(capsys, *words, "--quiet", "--overwrite")
    assert (json.loads(out)["exit_code"], err) == (0, "")


@pytest.mark.parametrize("command", ["upscale", "apply"])
def test_upscale_tells_the_new_size(capsys: Capture, command: str) -> None:
    document = documented(capsys, command, "photos/0.png", "--network", "x4.safetensors", "-o", "a.png")
    (file,) = document["files"]
    assert (file["state"], file["width"], file["height"]) == ("written", 240, 192)


def test_stdout_cannot_hold_a_picture_and_a_document(capsys: Capture) -> None:
    document = documented(capsys, "upscale", "photos/0.png", "-o", "-", code=2)
    assert "give -o FILE" in document["error"]


def test_a_file_name_that_is_no_text_is_still_json(capsys: Capture) -> None:
    if sys.platform != "linux":
        pytest.skip("other systems refuse such names")
    Path("photos/0.png").rename("photos/\udcff\u202e\n.png")
    document = documented(capsys, "upscale", "photos/\udcff\u202e\n.png", "--network", "x4.safetensors", "-o", "a.png")
    assert document["files"][0]["input"] == "photos/\udcff\u202e\n.png"


def test_suggest_tells_the_distances(capsys: Capture) -> None:
    document = documented(capsys, "suggest", "photos/0.png", "-o", "sheet.png", "--size", "32", "--device", "cpu")
    assert set(document["distances"]) == set(shipped.gallery())
    assert document["files"][0]["output"] == "sheet.png"


# --- one result


def test_video_tells_frames_and_sizes(capsys: Capture, tiny_style: Path) -> None:
    pytest.importorskip("av")
    import clips

    clips.make("a.mp4", count=6)
    document = documented(capsys, "video", "a.mp4", "--style", tiny_style, "-o", "b.mp4", "--steady", "0")
    assert (document["input"], document["output"], document["frames"]) == ("a.mp4", "b.mp4", 6)
    assert math.isclose(document["video_seconds"], 0.25)
    with_size = [document[name] for name in ("width", "height", "damaged_parts", "stopped_early")]
    assert with_size == [*clips_size("a.mp4"), 0, False]
    data = Path("a.mp4").read_bytes()
    Path("a.mp4").write_bytes(data[: len(data) // 2])
    documented(capsys, "video", "a.mp4", "--style", tiny_style, "-o", "c.mp4", code=1)
    assert documented(capsys, "video", "none.mp4", "-o", "c.mp4", code=1)["error"].startswith("There is no video")


def clips_size(path: str) -> tuple[int, int]:
    from perceptual.video import Reader

    with Reader(path) as reader:
        height, width = next(iter(reader)).pixels.shape[-2:]
        return width, height


def test_train_tells_steps_losses_and_what_was_skipped(capsys: Capture) -> None:
    Path("photos/bad.jpg").write_text("not a picture")
    words = ("train", "upscale", "--data", "photos", "--out", "mine.safetensors", *FAST)
    document = documented(capsys, *words)
    assert (document["command"], document["output"], document["steps"]) == ("train upscale", "mine.safetensors", 4)
    assert document["losses"]["total"] > 0
    assert document["skipped"] == ["photos/bad.jpg"]
    assert document["stopped_early"] is False
    assert "mine.safetensors exists" in documented(capsys, *words, code=1)["error"]


def test_a_dry_run_tells_its_settings(capsys: Capture) -> None:
    document = documented(capsys, "train", "style", "--recipe", "paper", "--steps", "7", "--dry-run")
    assert document["settings"]["settings"]["train"]["steps"] == 7


def test_optimize_tells_the_objective(capsys: Capture) -> None:
    state = {}
    for index, channels in ((0, 3), (2, 64)):
        state |= {f"features.{index}.weight": torch.full((64, channels, 3, 3), 0.01)}
        state |= {f"features.{index}.bias": torch.zeros(64)}
    safetensors.torch.save_file(state, "vgg.safetensors")
    words = ["optimize", "invert", "photos/0.png", "--layer", "relu1_1", "--weights", "vgg16=vgg.safetensors"]
    words += ["-o", "x.png", "--size", "32", "--iterations", "2", "--device", "cpu"]
    document = documented(capsys, *words)
    assert (document["output"], document["log"]) == ("x.png", "x.png.jsonl")
    assert (document["width"], document["height"]) == (32, 26)
    with Image.open("x.png") as image:
        assert image.size == (32, 26)
    lines = [json.loads(line) for line in Path("x.png.jsonl").read_text().splitlines()]
    assert document["objective"] == min(line["total"] for line in lines)
    assert (document["last"], document["iterations"]) == (lines[-1], lines[-1]["iteration"])
    assert documented(capsys, *words, code=1)["error"].startswith("x.png exists")


def test_evaluate_tells_the_table_and_the_numbers_of_each_image(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda figure, path, **options: Path(path).touch())
    words = ("evaluate", "sr", "--data", "photos", "--scales", "4", "--networks", "x4.safetensors", "-o", "out")
    document = documented(capsys, *words, "--device", "cpu")
    (found,) = document["scales"]
    told = json.loads(Path("out/figure8.json").read_text())
    assert (found["scale"], found["table"], found["images"]) == (4, told["table"], told["rows"])
    assert document["outputs"] == [f"out/figure8.{end}" for end in ("md", "png", "pdf", "csv", "json")]
    assert "give a folder" in documented(capsys, *words[:-1], "photos/0.png", code=1)["error"]


@pytest.mark.parametrize("command", ["styles", "upscalers"])
def test_lists_tell_the_cards(capsys: Capture, tiny_style: Path, command: str) -> None:
    document = documented(capsys, command)
    assert set(document["networks"]) == set(shipped.networks("style" if command == "styles" else "upscale"))
    if command == "styles":
        assert documented(capsys, command, tiny_style)["networks"][str(tiny_style)]["about"] == "tiny"
    assert "nothing_like_it" in documented(capsys, command, "nothing_like_it", code=1)["error"]


def test_weights_tell_their_files(capsys: Capture) -> None:
    (found,) = documented(capsys, "weights", "vgg16")["loss_networks"]
    assert (found["name"], found["file"]) == ("vgg16", None)


# --- every command, and errors


def test_a_command_without_facts_gives_its_lines(capsys: Capture) -> None:
    document = documented(capsys, "--version")
    assert document["lines"][0].startswith("perceptual ")
    assert len(documented(capsys, code=2)["lines"]) > len(cli.commands())


@pytest.mark.parametrize("command", [name for name in cli.commands() if not name.startswith("-")])
def test_a_wrong_flag_is_json_for_every_command(capsys: Capture, command: str) -> None:
    document = documented(capsys, *command.split(), "--no-such-flag", code=2)
    assert document["command"] == command
    assert document["error"]
    assert "│" not in document["error"]


def test_the_error_says_what_is_wrong_with_a_flag(capsys: Capture) -> None:
    document = documented(capsys, "doctor", "--no-such-flag", code=2)
    assert document["error"] == "There is no option --no-such-flag. See `perceptual doctor --help`."
    document = documented(capsys, "upscale", "a.png", "--scale", "x", code=2)
    assert document["error"].startswith("--scale takes a number from 0.01 to 64, not 'x'.")


def test_a_wrong_command_is_json(capsys: Capture) -> None:
    document = documented(capsys, "stylise", "a.png", code=2)
    assert document["command"] is None
    assert "did you mean `perceptual stylize`" in document["error"]


def test_ctrl_c_is_json(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(task: str) -> dict[str, Path]:
        raise KeyboardInterrupt

    monkeypatch.setattr(shipped, "networks", interrupted)
    assert documented(capsys, "styles", code=130)["error"] == "stopped."


def test_help_stays_text(capsys: Capture) -> None:
    code, out, _ = run(capsys, "stylize", "--json", "--help")
    assert code == 0
    assert "--json" in out
    assert out.startswith("usage: ")


def test_without_the_flag_the_next_run_prints_text(capsys: Capture) -> None:
    documented(capsys, "--version")
    assert run(capsys, "--version")[1].startswith("perceptual ")


def test_numbers_that_are_not_finite_are_null() -> None:
    results.begin(wanted=True)
    results.put(psnr=math.inf, ssim=[math.nan, 0.5], done=True, path=Path("a"), pair=(1, 2))
    document = json.loads(results.document(0))
    results.begin(wanted=False)
    facts = {name: value for name, value in document.items() if name not in HEAD}
    assert facts == {"psnr": None, "ssim": [None, 0.5], "done": True, "path": "a", "pair": [1, 2]}
