"""The command as a user meets it: what it prints, its exit codes, and one sentence instead of a traceback."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import assert_one_sentence
from PIL import Image

from perceptual import cli, files
from perceptual.checkpoints import read_card


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    try:
        code = cli.main([str(word) for word in words])
    except SystemExit as stop:
        code = int(stop.code or 0)
    out, err = capsys.readouterr()
    return code, out, err


@pytest.fixture
def pictures(tmp_path: Path, photograph: Image.Image) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for index in range(3):
        photograph.rotate(10 * index).resize((64, 48)).save(folder / f"{index}.png")
    return folder


def test_help_lists_every_command_and_exits_0(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "--help")
    assert code == 0
    assert all(name in out for name in cli.commands())


@pytest.mark.parametrize("command", [name for name in cli.commands() if not name.startswith("--")])
def test_every_command_has_help(capsys: pytest.CaptureFixture[str], command: str) -> None:
    code, out, _ = run(capsys, *command.split(), "--help")
    assert code == 0
    assert f"usage: perceptual {command}" in out


def test_no_command_and_a_wrong_one_exit_2_with_a_hint(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys)[0] == 2
    code, _, err = run(capsys, "stylise", "a.png")
    assert code == 2
    assert "perceptual stylize" in err


def test_stylize_writes_pictures_and_says_where(
    capsys: pytest.CaptureFixture[str], pictures: Path, tmp_path: Path, tiny_style: Path
) -> None:
    code, out, err = run(capsys, "stylize", pictures, "--style", tiny_style, "-o", tmp_path / "out")
    assert code == 0, err
    assert out.split() == [str(tmp_path / "out" / f"{i}.png") for i in range(3)]
    assert "3 written, 0 skipped, 0 failed" in err
    with Image.open(tmp_path / "out" / "1.png") as painted:
        assert painted.size == (64, 48)


def test_stylize_options_reach_the_painting(
    capsys: pytest.CaptureFixture[str], pictures: Path, tmp_path: Path, tiny_style: Path
) -> None:
    base = ["stylize", pictures / "0.png", "--style", tiny_style]
    run(capsys, *base, "-o", tmp_path / "full.png")
    run(capsys, *base, "-o", tmp_path / "none.png", "--strength", "0")
    run(capsys, *base, "-o", tmp_path / "small.png", "--size", "32", "--keep-colors", "--name", "two")
    full, none, small = (np.asarray(Image.open(tmp_path / f"{n}.png")) for n in ("full", "none", "small"))
    assert np.array_equal(none, np.asarray(Image.open(pictures / "0.png")))
    assert not np.array_equal(full, none)
    assert small.shape == (24, 32, 3)


def test_a_bad_file_among_good_ones_exits_1_and_is_listed_at_the_end(
    capsys: pytest.CaptureFixture[str], pictures: Path, tmp_path: Path, tiny_style: Path
) -> None:
    (pictures / "broken.png").write_bytes(b"")
    code, out, err = run(capsys, "stylize", pictures, "--style", tiny_style, "-o", tmp_path / "out")
    assert code == 1
    assert len(out.split()) == 3
    assert "3 written, 0 skipped, 1 failed" in err
    assert "broken.png" in err.splitlines()[-1]


@pytest.mark.parametrize(
    ("exit_code", "words"),
    [
        (1, "stylize missing.png -o x.png"),
        (1, "stylize nothing-*.png -o x.png"),
        (1, "stylize PHOTO --style no_such_style -o x.png"),
        (1, "stylize PHOTO --style PHOTO -o x.png"),
        (1, "stylize PHOTO --style TINY -o PHOTO"),
        (2, "stylize PHOTO --style TINY -o x.png --strength 2"),
        (1, "stylize PHOTO --style TINY -o x.xyz"),
        (2, "train style"),
        (2, "train style --recipe no_such_recipe"),
        (1, "train style --style PHOTO --data no_such_folder --out x.safetensors"),
        (1, "train style --style PHOTO --data FOLDER --out x.safetensors --style-layers vgg16:relu9_9"),
        (1, "train style --style PHOTO --data FOLDER --out x.safetensors --weights vgg16=missing.pth"),
        (2, "train style --style PHOTO --data FOLDER --out x.safetensors --weights vgg16"),
        (2, "train style --style PHOTO --data FOLDER --out PHOTO"),
        (1, "train style --style FOLDER --data FOLDER --out x.safetensors"),
        (1, "train style --style PHOTO --data FOLDER --out TINY"),
        (1, "train style --style PHOTO --data FOLDER --out TINY --resume"),
        (2, "train style --style PHOTO --data FOLDER --out x.safetensors --architecture zzz"),
        (2, "train style --style PHOTO --data FOLDER --out x.safetensors --weights vgg=a.pth"),
        (2, "train style --style PHOTO --data FOLDER --out x.safetensors --styles 3"),
        (1, "stylize PHOTO --style TINY -o x.png --name three"),
        (2, "stylize PHOTO --style TINY -o x.png --size 9999999"),
        (1, "stylize PHOTO --style TINY -o x.png --device abacus"),
        (1, "stylize PHOTO --style model.pth -o x.png"),
        (1, "weights no_such_network"),
        (2, "weights fetch"),
        (1, "weights fetch no_such_network"),
        (1, "styles no_such_style"),
    ],
)
def test_mistakes_get_one_sentence_and_a_failing_exit_code(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    pictures: Path,
    tiny_style: Path,
    exit_code: int,
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PERCEPTUAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("PERCEPTUAL_WEIGHTS", raising=False)
    places = {"PHOTO": str(pictures / "0.png"), "FOLDER": str(pictures), "TINY": str(tiny_style)}
    code, _, err = run(capsys, *(places.get(word, word) for word in words.split()))
    assert code == exit_code
    assert "Traceback" not in err
    assert len([line for line in err.strip().splitlines() if "0 written" not in line]) == 1
    assert not list(tmp_path.glob("x*"))


def test_styles_lists_what_is_shipped_and_shows_cards(capsys: pytest.CaptureFixture[str], tiny_style: Path) -> None:
    code, out, _ = run(capsys, "styles")
    assert code == 0
    assert "starry_night" in out
    _, out, _ = run(capsys, "styles", tiny_style)
    assert json.loads(out)[str(tiny_style)]["styles"] == ["one", "two"]


def test_dry_run_prints_the_resolved_settings(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "train", "style", "--recipe", "paper", "--steps", "7", "--dry-run")
    settings = json.loads(out)["settings"]
    assert code == 0
    assert settings["train"]["steps"] == 7
    assert settings["train"]["batch"] == 4
    assert settings["network"]["norm"] == "batch"


def test_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert re.fullmatch(r"perceptual \d+\.\d+\.\d+\s*", run(capsys, "--version")[1])


@pytest.fixture
def small_vgg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """VGG-16's first group with random weights, as a file that needs no download."""
    generator = torch.Generator().manual_seed(0)
    state = {
        "features.0.weight": 0.1 * torch.randn(64, 3, 3, 3, generator=generator),
        "features.0.bias": torch.zeros(64),
        "features.2.weight": 0.05 * torch.randn(64, 64, 3, 3, generator=generator),
        "features.2.bias": torch.zeros(64),
    }
    path = tmp_path / "vgg16-first.pth"
    torch.save(state, path)
    return path


TRAIN = ["--architecture", "c3s1-4 d4 r4 U4 c3s1-3", "--content-layers", "vgg16:relu1_1", "--style-layers"]
TRAIN += ["vgg16:relu1_2", "--size", "32", "--style-size", "48", "--steps", "4", "--preview-every", "2"]
TRAIN += ["--tick-every", "1", "--workers", "0"]


def test_a_style_is_trained_and_then_paints(
    capsys: pytest.CaptureFixture[str], pictures: Path, tmp_path: Path, small_vgg: Path
) -> None:
    out = tmp_path / "mine.safetensors"
    base = ["train", "style", "--style", pictures / "1.png", "--data", pictures, "--out", out]
    code, _, err = run(capsys, *base, "--weights", f"vgg16={small_vgg}", *TRAIN)
    assert code == 0, err
    card = read_card(out)
    assert (card.steps, card.recipe, card.styles) == (4, "fast", ("1",))
    assert card.loss_networks == {"vgg16": files.sha256_of(small_vgg)}
    assert card.references["style vgg16:relu1_2"][0] > 0
    assert len((tmp_path / "mine.jsonl").read_text().splitlines()) == 4
    assert sorted(p.name for p in (tmp_path / "mine.previews").iterdir()) == ["000002.png", "000004.png"]
    code, _, err = run(capsys, "stylize", pictures / "0.png", "--style", out, "-o", tmp_path / "painted.png")
    assert code == 0, err


def test_several_paintings_make_one_network_of_several_styles(
    capsys: pytest.CaptureFixture[str], pictures: Path, tmp_path: Path, small_vgg: Path
) -> None:
    out = tmp_path / "two.safetensors"
    base = ["train", "style", "--style", pictures / "1.png", pictures / "2.png", "--data", pictures, "--out", out]
    code, _, err = run(capsys, *base, "--weights", f"vgg16={small_vgg}", *TRAIN)
    assert code == 2
    assert "conditional_instance" in err
    code, _, err = run(capsys, *base, "--weights", f"vgg16={small_vgg}", *TRAIN, "--norm", "conditional_instance")
    assert code == 0, err
    assert read_card(out).styles == ("1", "2")


def test_a_new_style_is_learnt_from_a_trained_network_and_paints_beside_it(
    capsys: pytest.CaptureFixture[str], pictures: Path, tmp_path: Path, small_vgg: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = [*TRAIN[2:], "--weights", f"vgg16={small_vgg}"]  # the architecture is that of the base
    first = ["train", "style", "--style", pictures / "1.png", "--data", pictures, "--out", "base.safetensors"]
    assert run(capsys, *first, *TRAIN[:2], *settings, "--norm", "instance")[0] == 0
    second = ["train", "style", "--style", pictures / "2.png", "--data", pictures, "--from", "base.safetensors"]
    second += ["--lattice-weight", 0]  # it needs larger crops
    code, _, err = run(capsys, *second, *settings)
    assert code == 0, err
    assert "Wrote 2.safetensors" in err
    assert "keep the network base.safetensors in the same folder" in err
    card = read_card(tmp_path / "2.safetensors")
    assert (card.recipe, card.styles, card.settings["train"]["style_steps"]) == ("own", ("2",), 300)
    assert len(card.base) == 64
    assert Path("2.safetensors").stat().st_size < Path("base.safetensors").stat().st_size
    blend = ["--style", "2.safetensors:0.5,base.safetensors:0.5", "-o", "painted.png"]
    assert run(capsys, "stylize", pictures / "0.png", *blend)[0] == 0
    code, _, err = run(capsys, *second, *settings, "--overwrite", "--padding", "zero")
    assert (code, err.count("\n")) == (1, 1)
    assert "padding" in err


def test_gamma_and_beta_alone_need_a_trained_network(
    capsys: pytest.CaptureFixture[str], pictures: Path, tmp_path: Path
) -> None:
    words = ["train", "style", "--recipe", "own", "--style", pictures / "1.png", "--data", pictures]
    code, _, err = run(capsys, *words, "--out", tmp_path / "x.safetensors")
    assert code == 2
    assert "--from gallery" in err


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for another process")
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_to_all_processes_saves_and_resume_goes_on(
    pictures: Path, tmp_path: Path, small_vgg: Path, name: str
) -> None:
    out = tmp_path / "mine.safetensors"
    command = [sys.executable, "-m", "perceptual", "train", "style", "--style", pictures / "1.png"]
    command += ["--data", pictures, "--out", out, "--weights", f"vgg16={small_vgg}", *TRAIN, "--steps", "300"]
    command += ["--workers", "2"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    log = tmp_path / "mine.jsonl"
    while process.poll() is None and not (log.exists() and log.stat().st_size):
        time.sleep(0.01)
    os.killpg(process.pid, getattr(signal, name))  # as a terminal or systemd does: the workers get it too
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert "--resume goes on from here" in err
    stopped = read_card(out).steps
    assert 0 < stopped < 300
    again = subprocess.run([*command, "--resume"], capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert read_card(out).steps == 300


def test_a_finished_network_is_replaced_only_when_asked(
    capsys: pytest.CaptureFixture[str], pictures: Path, tmp_path: Path, small_vgg: Path
) -> None:
    out = tmp_path / "mine.safetensors"
    base = ["train", "style", "--style", pictures / "1.png", "--data", pictures, "--out", out, *TRAIN]
    base += ["--weights", f"vgg16={small_vgg}"]
    assert run(capsys, *base)[0] == 0
    assert "--overwrite" in run(capsys, *base)[2]
    assert run(capsys, *base, "--overwrite", "--seed", "1")[0] == 0
    assert read_card(out).settings["train"]["seed"] == 1
    assert "train.seed" in read_card(out).changed


def test_the_layers_of_a_loss_network_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(capsys, "weights", "squeezenet1_1")
    assert "relu1 pool1 fire2 fire3 pool3" in out


def test_importing_the_command_is_light() -> None:
    code = "import sys, perceptual.cli; print('torch' in sys.modules, 'PIL' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.split() == ["False", "False"]


def test_public_names_are_all_importable() -> None:
    import perceptual

    assert all(getattr(perceptual, name) is not None for name in perceptual.__all__)
    assert set(perceptual.__all__) <= set(dir(perceptual))


@pytest.mark.parametrize("kind", ["style", "upscale"])
@pytest.mark.parametrize(
    ("exit_code", "flag", "told"), [(2, "--from", "--out and --from are the same file"), (1, "--weights", "input")]
)
def test_training_does_not_replace_its_input_even_when_asked(
    capsys: pytest.CaptureFixture[str],
    pictures: Path,
    tiny_style: Path,
    tmp_path: Path,
    kind: str,
    exit_code: int,
    flag: str,
    told: str,
) -> None:
    network = tmp_path / "network.safetensors"
    network.write_bytes(tiny_style.read_bytes())
    words = [flag, network if flag == "--from" else f"vgg16={network}", "--data", pictures]
    words += ["--style", pictures / "1.png"] if kind == "style" else []
    code, _, err = run(capsys, "train", kind, *words, "--out", network, "--overwrite")
    assert code == exit_code
    assert_one_sentence(err, told)
    assert network.read_bytes() == tiny_style.read_bytes()


# --- odd paths and streams

ODD = ["~nosuchuser/x.png", "circle", "circle/x.png", "x" * 300 + ".png", "file/x.png", "file", "pipe", "", "/dev/zero"]


@pytest.mark.skipif(os.name != "posix", reason="links and pipes of POSIX")
@pytest.mark.parametrize("odd", ODD)
def test_an_odd_path_is_one_sentence_in_every_command(
    capsys: pytest.CaptureFixture[str], pictures: Path, monkeypatch: pytest.MonkeyPatch, odd: str
) -> None:
    monkeypatch.chdir(pictures)
    Path("circle").symlink_to("elcric")
    Path("elcric").symlink_to("circle")
    Path("file").write_text("x")
    os.mkfifo("pipe")
    for words in (
        ["stylize", odd, "--style", "wave", "-o", "out"],
        ["stylize", "1.png", "--style", odd, "-o", "out"],
        ["upscale", odd, "-o", "out"],
        ["upscale", "1.png", "--network", odd, "-o", "out"],
        ["video", odd or "x", "--style", "wave", "-o", "out.mp4"],  # an empty name is this folder, of frames
        ["styles", odd],
        ["train", "style", "--style", odd, "--data", ".", "--out", "t.safetensors"],
        ["train", "style", "--style", "1.png", "--data", odd, "--out", "t.safetensors"],
        ["train", "upscale", "--data", ".", "--from", odd or "x", "--out", "t.safetensors"],
        ["train", "upscale", "--data", ".", "--out", f"{odd}/{'x' * 244}.safetensors", "--resume"],
        ["optimize", "invert", odd, "-o", "out.png"],
        ["optimize", "style", "1.png", odd, "-o", "out.png"],
        ["optimize", "texture", "1.png", "-o", f"circle/{odd}.png"],
        ["evaluate", "sr", "--data", odd or "x", "--out", "out"],
    ):
        code, out, err = run(capsys, *words)
        wrong_words = "is empty: give a name" in err or "circle/.png has no ending" in err  # both have the empty name
        assert (code, out) == (1 + wrong_words, ""), words
        assert_one_sentence("perceptual: " + err.splitlines()[0].split(": ", 1)[1])
        assert "Traceback" not in err


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize("gone", ["reader", "disk"])
def test_a_folder_is_finished_though_nobody_reads_the_list(
    pictures: Path, tiny_style: Path, tmp_path: Path, gone: str
) -> None:
    words = [sys.executable, "-m", "perceptual", "stylize", pictures, "--style", tiny_style, "-o", tmp_path / "out"]
    with open("/dev/full", "wb") as full:
        process = subprocess.Popen(words, stdout=full if gone == "disk" else subprocess.PIPE, stderr=subprocess.PIPE)
    if process.stdout is not None:
        process.stdout.close()
    err = process.stderr.read().decode() if process.stderr else ""
    assert process.wait() == 0, err
    assert "3 written, 0 skipped, 0 failed" in err
    assert len(list((tmp_path / "out").iterdir())) == 3
    assert len(err.splitlines()) == (2 if gone == "disk" else 1)
    assert ("cannot be printed (no space left on device)" in err) == (gone == "disk")
    process.stderr.close() if process.stderr else None


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize("words", [["styles"], ["--version"], ["--help"], ["stylize", "--help"]])
def test_a_full_disk_behind_stdout_is_one_sentence(words: list[str]) -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "perceptual", *words], stdout=full, stderr=subprocess.PIPE, check=False
        )
    assert done.returncode == 1
    assert_one_sentence(done.stderr.decode(), "cannot be printed")


@pytest.mark.parametrize(
    ("text", "busy"),
    [("0.00 0.01 0.05 1/234 5678\n", False), ("0.00 0.01 0.05 2/234 5678\n", True), ("", False), ("a b c d", False)],
)
def test_other_work_is_seen_by_the_threads_that_run(tmp_path: Path, text: str, busy: bool) -> None:
    (tmp_path / "loadavg").write_text(text)
    assert cli.others_run(tmp_path / "loadavg") == busy
    assert not cli.others_run(tmp_path / "nowhere")


def test_the_home_folder_is_found_in_every_argument(
    capsys: pytest.CaptureFixture[str], pictures: Path, tiny_style: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(pictures))
    monkeypatch.chdir(pictures)
    for word in ("--out=~/made/1.png", "-o=~/made/2.png"):
        code, _, err = run(capsys, "stylize", "~/1.png", "--style", tiny_style, word)
        assert code == 0, err
    code, _, err = run(capsys, "optimize", "invert", "~/none.png", "--out=~/x.png")
    assert (code, str(pictures / "none.png") in err) == (1, True)
    assert sorted(path.name for path in (pictures / "made").iterdir()) == ["1.png", "2.png"]
    assert not Path("~").exists()


@pytest.mark.parametrize(("number", "says"), [(13, "permission is denied"), (2, "it is missing"), (36, "too long")])
def test_a_file_that_cannot_be_used_is_one_sentence_in_every_command(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, number: int, says: str
) -> None:
    def fail(words: object) -> int:
        raise OSError(number, os.strerror(number), "some/file")

    monkeypatch.setattr(cli, "_run", fail)
    code, out, err = run(capsys, "doctor")
    assert (code, out) == (1, "")
    assert_one_sentence(err, "Cannot use some/file", says)
