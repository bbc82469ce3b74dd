"""`perceptual train upscale` and `perceptual evaluate sr`."""

from __future__ import annotations

import csv
import json
import os
import signal
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
from test_cli_upscale import FAST, Capture, folder, pixels, save_network, ship, upscale  # noqa: F401  (fixtures)

import perceptual
from perceptual import checkpoints, files
from perceptual.errors import ConfigError
from perceptual.measure.super_resolution import own_methods, read_sets
from perceptual.reproduce import super_resolution

# --- perceptual train upscale


def train(capsys: Capture, *words: object, data: str = "photos", out: str = "mine.safetensors") -> tuple[int, str, str]:
    return run(capsys, "train", "upscale", "--data", data, "--out", out, *FAST, *words)


def test_a_network_is_trained_and_then_enlarges(capsys: Capture) -> None:
    code, out, err = train(capsys, "--loss", "pixel:1,l1:0.5", "--about", "tiny", "--preview-every", "2")
    assert code == 0, err
    assert out == ""
    assert "Training x4 by pixel:1,l1:0.5 on 3 photographs with float32 on cpu, eager." in err
    assert "Wrote mine.safetensors after 4 steps." in err
    card = checkpoints.read_card("mine.safetensors")
    assert (card.task, card.steps, card.recipe, card.about, card.data) == (
        "upscale",
        4,
        "fast",
        "tiny",
        "3 photographs",
    )
    assert {"network.architecture", "loss", "train.size", "train.steps"} <= set(card.changed)
    assert "train.crop" not in card.changed
    assert card.weights == {"pixel": 1.0, "l1": 0.5}
    assert [len(card.references[name]) for name in ("pixel", "l1")] == [1, 1]
    assert len(Path("mine.jsonl").read_text().splitlines()) == 4
    assert sorted(path.name for path in Path("mine.previews").iterdir()) == ["000002.png", "000004.png"]
    assert pixels("mine.previews/000002.png").shape == (64, 96, 3)  # three pictures, bicubic above the network's
    code, _, err = upscale(capsys, "photos/0.png", "-o", "large.png", network="mine")
    assert code == 0, err


def test_without_a_name_the_network_is_called_by_its_scale(capsys: Capture) -> None:
    words = ["--data", "photos", *FAST, "--scale", "2", "--architecture", "c3s1-4 s2-3"]
    code, _, err = run(capsys, "train", "upscale", *words)
    assert code == 0, err
    assert checkpoints.load("x2.safetensors")[0].scale == 2


def test_a_network_for_x8_begins_with_one_for_x4(capsys: Capture) -> None:
    words = ["--scale", "8", "--architecture", "c3s1-4 s8-3", "--from", "x4.safetensors"]
    assert train(capsys, *words)[0] == 0
    assert checkpoints.read_card("mine.safetensors").began_from.startswith("2 of 4 tensors of x4.safetensors")


def test_dry_run_prints_the_resolved_settings(capsys: Capture) -> None:
    words = ["--recipe", "fast", "--recipe", "paper", "--scale", "4", "--scale", "8"]  # the last one counts
    code, out, err = run(capsys, "train", "upscale", *words, "--steps", "7", "--dry-run")
    told = json.loads(out)
    assert (code, err) == (0, "")
    assert (told["scale"], told["recipe"], told["out"], told["data"]) == (8, "paper", "x8.safetensors", None)
    settings = told["settings"]
    assert settings["network"]["architecture"] == "c9s1-64 r64*4 u64 u64 u64 c9s1-3"
    assert (settings["blur"], settings["loss"]) == (1.0, "pixel")
    assert [settings["train"][key] for key in ("steps", "batch", "size", "crop")] == [7, 4, 288, "native"]
    assert not list(Path().glob("*.jsonl"))


@pytest.mark.parametrize(
    ("words", "layers", "scale"),
    [
        (["--scale", "3"], "c3s1-64 r64*6 s3-3", 3),
        (["--scale=5"], "c3s1-64 r64*6 s5-3", 5),
        (["--scale", "3", "--recipe", "srcnn"], "c9s1-64 c5s1-32 c5s1-1", 3),
        ([], "c3s1-64 r64*6 s4-3", 4),
    ],
)
def test_a_scale_decides_the_layers_and_the_crops(capsys: Capture, words: list[str], layers: str, scale: int) -> None:
    settings = json.loads(run(capsys, "train", "upscale", *words, "--dry-run")[1])["settings"]
    assert settings["network"]["architecture"] == layers
    assert settings["train"]["size"] % scale == 0


def first_group_of_vgg() -> Path:
    """VGG-16's layers up to relu1_2 with made-up weights."""
    return made_up_vgg([(0, 3, 64), (2, 64, 64)])


def made_up_vgg(layers: list[tuple[int, int, int]]) -> Path:
    generator, state = torch.Generator().manual_seed(0), {}
    for index, channels, filters in layers:
        weight = torch.randn(filters, channels, 3, 3, generator=generator) * (2 / 9 / channels) ** 0.5
        state |= {f"features.{index}.weight": weight, f"features.{index}.bias": torch.zeros(filters)}
    safetensors.torch.save_file(state, "vgg.safetensors")
    return Path("vgg.safetensors")


def test_a_feature_loss_takes_the_weights_that_are_given(capsys: Capture) -> None:
    path = first_group_of_vgg()
    code, _, err = train(capsys, "--loss", "vgg16:relu1_2:0.9,pixel:0.1", "--weights", f"vgg16={path}")
    assert code == 0, err
    card = checkpoints.read_card("mine.safetensors")
    assert card.loss_networks == {"vgg16": files.sha256_of(path)}
    assert card.weights == {"vgg16:relu1_2": 0.9, "pixel": 0.1}


@pytest.mark.parametrize(
    ("exit_code", "words", "parts"),
    [
        (2, "--data photos --loss sharpness", "no loss 'sharpness'"),
        (1, "--data photos --loss vgg17:relu2_2", "no loss network 'vgg17'"),
        (2, "--data photos --loss pixel:-1", "is no objective"),
        (2, "--data photos --loss pixel:0", "are all 0"),
        (1, "--data photos --loss vgg16:relu9_9", "relu9_9"),
        (1, "--data photos --loss feature --weights vgg16=missing.pth", "missing.pth"),
        (1, "--data photos --loss feature --weights vgg16=vgg.safetensors", "vgg.safetensors"),
        (2, "--data photos --loss feature --weights vgg16", "--weights takes NAME=FILE"),
        (2, "", "--data FOLDER"),
        (1, "--data missing", "The data folder missing"),
        (1, "--data empty", "contains no images"),
        (2, "--data photos --scale 0", "--scale is 0"),
        (2, "--data photos --scale 1", "--scale is 1"),
        (2, "--data photos --scale 17", "--scale is 17"),
        (2, "--data photos --scale -4", "--scale is '-4'"),
        (2, "--data photos --scale x", "--scale is 'x'"),
        (2, "--data photos --scale 2.5", "--scale is '2.5'"),
        (2, "--data photos --scale 3 --recipe paper", "choose 2, 4 or 8"),
        (2, "--data photos --scale 5 --recipe paper", "choose 2, 4 or 8"),
        (2, "--data photos --recipe edsr", "There is no recipe 'edsr'"),
        (2, "--data photos --recipe paper --degradation photo", "photo blurs by itself: give --blur 0"),
        (2, "--data photos --loss temporal=1", "The loss temporal compares frames of a video"),
        (2, "--data photos --size 34", "--size is 34; give a multiple of the network's scale of 4"),
        (2, "--data photos --size 16", "size is 16"),
        (2, "--data photos --blur -1", "blur is -1"),
        (2, "--data photos --architecture nonsense", "'nonsense'"),
        (2, "--data photos --channels luma", "1 channel"),
        (2, "--data photos --enlarge 0", "enlarge is 0"),
        (1, "--data photos --from missing", "There is no network 'missing'"),
        (1, "--data photos --from style.safetensors", "for 'style', not for upscale"),
        (2, "--data photos --from mine.safetensors", "--out and --from are the same file"),
        (1, "--data photos --out x4.safetensors", "x4.safetensors exists"),
        (1, "--data photos --out x4.safetensors --resume", "nothing to resume"),
        (2, "--data photos --out mine.png", "must end in .safetensors"),
    ],
)
def test_mistakes_in_training_get_one_sentence_and_a_failing_exit_code(
    capsys: Capture, exit_code: int, words: str, parts: str
) -> None:
    save_network("style", "c3s1-4 c3s1-3", task="style")
    first_group_of_vgg()
    Path("empty").mkdir()
    given = words.split()
    fast = [] if "--recipe" in given or "--architecture" in given else FAST
    code, out, err = run(capsys, "train", "upscale", "--out", "mine.safetensors", *fast, *given)
    assert (code, out) == (exit_code, "")
    assert_one_sentence(err, parts)
    assert not list(Path().glob("mine*"))


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_training_leaves_a_state_that_resumes_bit_for_bit(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, signal_number: int
) -> None:
    from perceptual import train as module

    assert train(capsys, "--preview-every", "1", out="whole.safetensors")[0] == 0
    keep = module.save_preview

    def stop(out: Path, step: perceptual.Step) -> None:
        keep(out, step)
        if step.index == 2:
            signal.raise_signal(signal_number)

    before = signal.getsignal(signal_number)
    monkeypatch.setattr(module, "save_preview", stop)
    code, _, err = train(capsys, "--preview-every", "1")
    assert code == 130, err
    assert signal.getsignal(signal_number) is before
    assert "Traceback" not in err
    assert err.splitlines()[-1] == "Stopped early; the same command with --resume goes on from here."
    assert checkpoints.read_card("mine.safetensors").steps == 2
    assert Path("mine.state").exists()
    assert_one_sentence(train(capsys, "--preview-every", "1")[2], "--resume")
    monkeypatch.setattr(module, "save_preview", keep)
    code, _, err = train(capsys, "--preview-every", "1", "--resume", data=str(Path("photos").absolute()))
    assert code == 0, err
    whole, parts = (safetensors.torch.load_file(f"{name}.safetensors") for name in ("whole", "mine"))
    assert all(torch.equal(value, parts[name]) for name, value in whole.items())
    assert not Path("mine.state").exists()


def test_gamma_and_beta_alone_are_refused_for_a_network_without_them(capsys: Capture) -> None:
    code, _, err = train(capsys, "--style-steps", "2")
    assert code == 2
    assert_one_sentence(err, "--style-steps")


def test_an_architecture_of_another_scale_than_asked_for_is_refused(capsys: Capture) -> None:
    code, _, err = train(capsys, "--architecture", "c3s1-4 s2-3", "--scale", "4")
    assert code == 2
    assert_one_sentence(err, "--scale")


def test_weights_for_a_loss_that_needs_none_are_refused_by_a_whole_sentence(capsys: Capture) -> None:
    code, _, err = train(capsys, "--weights", f"vgg16={first_group_of_vgg()}")
    assert code == 1
    assert "use ." not in err


def test_a_style_network_without_norms_can_be_gone_on_from(capsys: Capture) -> None:
    save_network("plain", "c3s1-4 c3s1-3", task="style", output="tanh")
    words = ["--style", "photos/1.png", "--data", "photos", "--from", "plain.safetensors", "--style-steps", "0"]
    words += ["--content-layers", "vgg16:relu1_1", "--style-layers", "vgg16:relu1_2", "--steps", "1", "--size", "48"]
    words += ["--workers", "0", "--weights", f"vgg16={first_group_of_vgg()}", "--out", "new.safetensors"]
    code, _, err = run(capsys, "train", "style", *words)
    assert code == 0, err


# --- perceptual evaluate sr


@pytest.fixture
def sets(photograph: Image.Image) -> Path:
    """Two sets: one of pictures, a grey one among them, and one in the folders of the usual benchmarks."""
    for place in ("sr/Ours", "sr/Set5/x2", "sr/Set5/x4"):
        Path(place).mkdir(parents=True)
    photograph.crop((0, 0, 61, 50)).save("sr/Ours/colour.png")
    photograph.crop((60, 20, 110, 70)).convert("L").save("sr/Ours/grey.png")
    for scale, left in ((2, 0), (4, 70)):
        photograph.crop((left, 30, left + 48, 90)).save(f"sr/Set5/x{scale}/img_001_SRF_{scale}_HR.png")
        photograph.crop((left, 30, left + 12, 45)).save(f"sr/Set5/x{scale}/img_001_SRF_{scale}_LR.png")
    return Path("sr")


@pytest.fixture
def no_sheet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the figures' files empty: painting them takes seconds."""
    pytest.importorskip("matplotlib")

    def savefig(figure: object, path: Path, **options: object) -> None:
        Path(path).touch()

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", savefig)


def evaluate(capsys: Capture, *words: object) -> tuple[int, str, str]:
    return run(capsys, "evaluate", "sr", "--out", "out", "--device", "cpu", *words)


def told(name: str = "figure8") -> dict[str, Any]:
    return json.loads(Path(f"out/{name}.json").read_text())


def cropped(path: str, scale: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    with Image.open(path) as image:
        array = np.asarray(image)
    return array[: array.shape[0] // scale * scale, : array.shape[1] // scale * scale]


def test_a_page_a_sheet_and_the_numbers_of_every_picture_are_written(capsys: Capture, sets: Path) -> None:
    code, out, err = evaluate(capsys, "--data", sets, "--scales", "4", "--networks", "x4.safetensors")
    assert code == 0, err
    assert out.split() == [f"out/figure8.{end}" for end in ("md", "png", "pdf", "csv", "json")]
    assert sorted(path.name for path in Path("out").iterdir()) == sorted(Path(line).name for line in out.split())
    with Image.open("out/figure8.png") as sheet:
        assert min(sheet.size) > 300
    assert Path("out/figure8.pdf").read_bytes().startswith(b"%PDF")
    with open("out/figure8.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["set"], row["image"], row["method"]) for row in rows] == [
        (name, image, method)
        for name, image in (("Ours", "colour"), ("Ours", "grey"), ("Set5", "img_001_SRF_4_HR"))
        for method in ("bicubic", "x4")
    ]
    assert {row["scale"] for row in rows} == {"4"}
    page = Path("out/figure8.md").read_text()
    assert page.startswith("# Super-resolution x4 (Figure 8)")
    assert "--data sr/ --scales 4 --networks x4.safetensors" in page
    assert "distance" not in page.partition("**Here.**")[0]  # no weights are here
    table = err[err.index("| set |") :].splitlines()
    assert all(line in page for line in table if line.startswith("|"))


@pytest.mark.usefixtures("no_sheet")
def test_the_numbers_are_those_of_psnr_and_ssim_by_hand(capsys: Capture, sets: Path) -> None:
    evaluate(capsys, "--data", sets, "--scales", "4", "--networks", "x4.safetensors")
    found = {(row["image"], row["method"]): row for row in told()["rows"]}
    own = perceptual.Upscaler.load("x4.safetensors", device="cpu")
    values: dict[str, list[float]] = {"bicubic": [], "x4": []}
    for name in ("colour", "grey"):
        high = cropped(f"sr/Ours/{name}.png", 4)
        low = perceptual.imresize(high, 1 / 4)
        colour = low if low.ndim == 3 else np.repeat(low[..., None], 3, axis=2)
        for method, large in (("bicubic", perceptual.imresize(low, 4.0)), ("x4", own(colour, precision="float32"))):
            psnr = perceptual.psnr(large, high, border=4)
            assert found[name, method]["psnr"] == pytest.approx(psnr, abs=1e-3)
            assert found[name, method]["ssim"] == pytest.approx(perceptual.ssim(large, high, border=4), abs=1e-4)
            values[method].append(psnr)
    table = {(line["set"], line["method"]): line for line in told()["table"]}
    for method, numbers in values.items():
        assert float(table["Ours", method]["PSNR"]) == pytest.approx(np.mean(numbers), abs=0.006)
        assert table["Ours", method]["images"] == 2
    # and once without any of ours: luma by ITU-R BT.601, 4 pixels of border left out
    high = cropped("sr/Ours/colour.png", 4)
    large = perceptual.imresize(perceptual.imresize(high, 1 / 4), 4.0)
    error = ((large / 255.0 - high / 255.0) @ [65.481, 128.553, 24.966])[4:-4, 4:-4]
    assert found["colour", "bicubic"]["psnr"] == pytest.approx(10 * np.log10(255**2 / np.mean(error**2)), abs=1e-3)


@pytest.mark.usefixtures("no_sheet")
@pytest.mark.parametrize(
    ("scale", "taken", "name"), [(2, 2, "super-resolution-x2"), (4, 4, "figure8"), (8, 2, "figure9")]
)
def test_of_the_benchmarks_folders_that_of_the_scale_is_taken_and_low_resolution_left_out(
    capsys: Capture, photograph: Image.Image, scale: int, taken: int, name: str
) -> None:
    for each in (2, 4):
        Path(f"sr/Set5/x{each}").mkdir(parents=True)
        photograph.crop((0, 0, 64, 48)).save(f"sr/Set5/x{each}/img_{each}_HR.png")
        photograph.crop((0, 0, 16, 12)).save(f"sr/Set5/x{each}/img_{each}_LR.png")
    code, _, err = evaluate(capsys, "--data", "sr", "--scales", scale)
    assert code == 0, err
    assert [(row["set"], row["image"]) for row in told(name)["rows"]] == [("Set5", f"img_{taken}_HR")]


@pytest.mark.usefixtures("no_sheet")
def test_a_figure_that_the_command_did_not_write_is_replaced_only_when_asked(capsys: Capture) -> None:
    Path("out").mkdir()
    Path("out/figure8.png").write_bytes(b"mine")
    words = ["--data", "photos", "--scales", "4"]
    code, _, err = evaluate(capsys, *words)
    assert code == 1
    assert_one_sentence(err, "out/figure8.png exists", "--overwrite")
    assert [path.name for path in Path("out").iterdir()] == ["figure8.png"]
    assert Path("out/figure8.png").read_bytes() == b"mine"
    assert evaluate(capsys, *words, "--overwrite")[0] == 0
    assert evaluate(capsys, *words)[0] == 0  # its own


@pytest.mark.usefixtures("no_sheet")
def test_a_folder_of_pictures_is_one_set_of_its_name(capsys: Capture) -> None:
    assert evaluate(capsys, "--data", "photos", "--scales", "4")[0] == 0
    assert {row["set"] for row in told()["rows"]} == {"photos"}
    assert [line["images"] for line in told()["table"]] == [3]


@pytest.mark.usefixtures("no_sheet")
def test_images_that_cannot_be_measured_are_named_in_the_document(capsys: Capture) -> None:
    Path("photos/a.png").write_bytes(b"no picture")
    Image.new("RGB", (40, 18)).save("photos/dot.png")
    code, out, err = evaluate(capsys, "--data", "photos", "--scales", "4", "--json")
    assert code == 0
    assert "Skipped: photos/a.png is not an image" in err
    (scale,) = json.loads(out)["scales"]
    assert {row["image"] for row in scale["images"]} == {"0", "1", "2"}
    assert [text.split(" is ")[0] for text in scale["skipped"]] == ["photos/a.png", "dot"]


@pytest.mark.usefixtures("no_sheet")
def test_each_scale_has_a_page_and_networks_are_measured_at_their_own(capsys: Capture) -> None:
    save_network("small", "c3s1-4 s2-3")
    words = ["--scales", "2", "4", "--networks", "small.safetensors", "x4.safetensors"]
    code, out, err = evaluate(capsys, "--data", "photos", *words)
    assert code == 0, err
    assert len(out.split()) == 10
    assert [line["method"] for line in told("super-resolution-x2")["table"]] == ["bicubic", "small"]
    assert [line["method"] for line in told("figure8")["table"]] == ["bicubic", "x4"]


@pytest.mark.usefixtures("no_sheet")
def test_the_shipped_networks_come_in_the_papers_order_beside_its_figures(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, sets: Path
) -> None:
    names = ("x4_feature", "x4_pixel", "x4_srcnn", "x8_pixel")
    ship(monkeypatch, {name: save_network(name, f"c3s1-4 s{name[1]}-3", zero=True) for name in names})
    assert evaluate(capsys, "--data", sets, "--scales", "4")[0] == 0
    lines = [line for line in told()["table"] if line["set"] == "Set5"]
    assert [line["method"] for line in lines] == ["bicubic", "SRCNN", "pixel loss", "feature loss"]
    assert [line["the paper's"] for line in lines] == [
        *("28.43 / 0.8114", "30.48 / 0.8628", "28.40 / 0.8205", "27.09 / 0.7680"),
    ]
    assert {line["the paper's"] for line in told()["table"] if line["set"] == "Ours"} == {"-"}
    assert "x4_srcnn: c3s1-4 s4-3, 0 steps" in Path("out/figure8.md").read_text()


@pytest.mark.usefixtures("no_sheet")
def test_perceptual_distances_are_measured_with_the_weights_that_are_given(capsys: Capture) -> None:
    sizes = [(0, 3, 64), (2, 64, 64), (5, 64, 128), (7, 128, 128), (10, 128, 256), (12, 256, 256), (14, 256, 256)]
    path = made_up_vgg(sizes)
    code, _, err = evaluate(capsys, "--data", "photos", "--scales", "4", "--weights", f"vgg16={path}")
    assert code == 0, err
    high = cropped("photos/0.png", 4)
    large = perceptual.imresize(perceptual.imresize(high, 1 / 4), 4.0)
    expected = float(perceptual.PerceptualDistance("vgg16", paths={"vgg16": path})(large, high))
    assert told()["rows"][0]["vgg16"] == pytest.approx(expected, rel=1e-3)
    shown = np.mean([row["vgg16"] for row in told()["rows"]])
    assert float(told()["table"][0]["distance in vgg16"]) == pytest.approx(shown, abs=6e-5)
    assert "distance in vgg16" in Path("out/figure8.md").read_text()


@pytest.mark.parametrize(
    ("exit_code", "words", "parts"),
    [
        (1, "--data missing", "missing is not a folder"),
        (1, "--data photos/0.png", "is not a folder"),
        (1, "--data empty", "empty contains no images"),
        (1, "--data small", "dot is too small to be measured at x4"),
        (1, "--data broken", "broken/a.png"),
        (1, "--data photos --distances vgg17", "'vgg17'"),
        (1, "--data photos --distances vgg16", "vgg16"),
        (1, "--data photos --distances vgg16 --weights vgg16=vgg.safetensors", "vgg"),
        (2, "--data photos --weights vgg16", "--weights takes NAME=FILE"),
        (1, "--data photos --networks missing.safetensors", "There is no network 'missing.safetensors'"),
        (1, "--data photos --networks style.safetensors", "is a network for 'style'"),
        (2, "--data photos --scales 1", "scales is 1"),
        (2, "--data photos --scales 4 4", "a number twice"),
        (1, "--data photos --networks x4.safetensors --device abacus", "no device 'abacus'"),
        (1, "--data photos --out photos/0.png", "is a file"),
    ],
)
def test_mistakes_in_measuring_get_one_sentence_and_a_failing_exit_code(
    capsys: Capture, exit_code: int, words: str, parts: str
) -> None:
    save_network("style", "c3s1-4 c3s1-3", task="style")
    first_group_of_vgg()
    for name in ("empty", "small", "broken"):
        Path(name).mkdir()
    Image.new("RGB", (40, 18)).save("small/dot.png")  # 11 and twice 4 is 19
    Path("broken/a.png").write_bytes(Path("photos/0.png").read_bytes()[:300])
    scales = [] if "--scales" in words else ["--scales", "4"]
    code, out, err = run(capsys, "evaluate", "sr", "--out", "out", *scales, *words.split())
    assert (code, out) == (exit_code, "")
    assert_one_sentence(err, parts)
    assert not list(Path().glob("out/*"))


@pytest.mark.usefixtures("no_sheet")
def test_ctrl_c_leaves_the_pages_of_the_scales_that_are_done(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    measure: Callable[..., Any] = super_resolution.measure

    def stopped(sets: Any, scale: int, *more: Any) -> Any:
        for step in (work := measure(sets, scale, *more)):
            if scale == 8:
                signal.raise_signal(signal.SIGINT)
                yield step
                pytest.fail("it went on")
        return (yield from work) or pytest.fail("nothing")

    def either(sets: Any, scale: int, *more: Any) -> Any:
        return stopped(sets, scale, *more) if scale == 8 else measure(sets, scale, *more)

    monkeypatch.setattr(super_resolution, "measure", either)
    code, _, err = evaluate(capsys, "--data", "photos", "--scales", "4", "8")
    assert code == 130, err
    assert "nothing was written for this scale" in err
    assert {path.stem for path in Path("out").iterdir()} == {"figure8"}


def test_a_folder_of_low_resolution_pictures_alone_is_a_sentence(capsys: Capture) -> None:
    Path("low").mkdir()
    Path("photos/0.png").rename("low/img_001_LR.png")
    code, _, err = evaluate(capsys, "--data", "low", "--scales", "4")
    assert code == 1
    assert_one_sentence(err, "low")


def test_one_set_of_the_benchmarks_can_be_given_by_itself(sets: Path) -> None:
    found = read_sets(sets / "Set5", 4)
    assert {name: [original.name for original in originals] for name, originals in found.items()} == {
        "Set5": ["img_001_SRF_4_HR"]
    }


def test_two_networks_of_one_name_are_both_measured_or_refused() -> None:
    Path("other").mkdir()
    try:
        methods = own_methods([Path("x4.safetensors"), save_network("other/x4")], device="cpu")
    except ConfigError:
        return
    assert len(methods[4]) == 2


@pytest.mark.usefixtures("no_sheet")
def test_a_network_called_bicubic_does_not_stand_for_bicubic_interpolation(capsys: Capture) -> None:
    Path("one").mkdir()
    Path("photos/0.png").rename("one/a.png")
    high = cropped("one/a.png", 4)
    expected = perceptual.psnr(perceptual.imresize(perceptual.imresize(high, 1 / 4), 4.0), high, border=4)
    save_network("bicubic")
    code, _, err = evaluate(capsys, "--data", "one", "--scales", "4", "--networks", "bicubic.safetensors")
    if code:
        assert_one_sentence(err, "bicubic")
    else:
        shown = [row["psnr"] for row in told()["rows"] if row["method"] == "bicubic"]
        assert shown == [pytest.approx(expected, abs=1e-3)]


@pytest.mark.usefixtures("no_sheet")
def test_a_network_of_a_scale_that_is_not_measured_is_told_of(capsys: Capture) -> None:
    save_network("small", "c3s1-4 s2-3")
    _, _, err = evaluate(capsys, "--data", "photos", "--scales", "4", "--networks", "small.safetensors")
    assert "small" in err


@pytest.mark.usefixtures("no_sheet")
def test_the_numbers_of_a_flat_picture_are_json(capsys: Capture) -> None:
    """Bicubic interpolation makes no error there: the PSNR is infinite."""
    Path("flat").mkdir()
    Image.new("RGB", (40, 40), (51, 102, 204)).save("flat/a.png")
    assert evaluate(capsys, "--data", "flat", "--scales", "4")[0] == 0

    def refuse(word: str) -> float:
        raise AssertionError(f"{word} is no JSON")

    json.loads(Path("out/figure8.json").read_text(), parse_constant=refuse)


def test_a_file_name_that_is_no_text_is_written_into_the_pages(capsys: Capture, photograph: Image.Image) -> None:
    """Names of files on Linux are bytes; here one of ISO 8859-1."""
    Path("latin").mkdir()
    name = os.fsdecode(b"caf\xe9.png")
    try:
        photograph.resize((48, 40)).save(Path("latin", name))
        photograph.resize((48, 40)).save("latin/$5_{$.png")  # no mathematics for matplotlib
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    assert evaluate(capsys, "--data", "latin", "--scales", "4")[0] == 0
    written = Path("out/figure8.csv").read_text(encoding="utf-8")
    assert "caf\\udce9" in written
    assert "$5_{$" in written


# --- the supplement's figures 3 and 4


@pytest.fixture
def three_sets(photograph: Image.Image) -> Path:
    for name, count in (("Set5", 2), ("BSD100", 6)):
        Path(f"three/{name}").mkdir(parents=True)
        for index in range(count):
            photograph.rotate(7 * index).crop((30, 30, 94, 78)).save(f"three/{name}/{index}.png")
    return Path("three")


@pytest.mark.usefixtures("no_sheet")
def test_the_supplements_figure_4_takes_the_picture_that_the_paper_has(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, three_sets: Path
) -> None:
    from perceptual.reproduce import supplement_figure4

    high = cropped("three/BSD100/4.png", 4)
    value = perceptual.psnr(perceptual.imresize(perceptual.imresize(high, 1 / 4), 4.0), high, border=4)
    monkeypatch.setitem(supplement_figure4.PAPER, "BSD100", {"bicubic": (value, 0.5)})
    monkeypatch.setitem(supplement_figure4.PAPER, "Set5", {"bicubic": (99.0, 0.5)})
    code, _, err = run(capsys, "reproduce", "supplement-figure4", "--out", "out", "--photos", three_sets)
    assert code == 0, err
    lines = {(row["set"], row["method"]): row for row in told("supplement-figure4")["table"]}
    assert {row["picture"] for (name, _), row in lines.items() if name == "BSD100"} == {"4"}
    assert lines["BSD100", "bicubic"]["the paper's"] == f"{value:.2f} / 0.5000"
    assert lines["Set5", "bicubic"]["the paper's"] == "-"
    page = Path("out/supplement-figure4.md").read_text()
    assert "- Set5: no image has the paper's PSNR by bicubic interpolation" in page
    assert "BSD100: none" not in page


@pytest.mark.usefixtures("no_sheet")
def test_the_supplements_figure_3_shows_pictures_of_bsd100(capsys: Capture, three_sets: Path) -> None:
    code, _, err = run(capsys, "reproduce", "supplement-figure3", "--out", "out", "--photos", three_sets)
    assert code == 0, err
    rows = told("supplement-figure3")["rows"]
    assert {(row["set"], row["image"], row["scale"]) for row in rows} == {("BSD100", str(k), 8) for k in range(4)}


def test_an_exact_result_is_left_out_of_the_mean_psnr(capsys: Capture, sets: Path, no_sheet: None) -> None:
    Image.new("RGB", (60, 60), (128, 128, 128)).save(sets / "Ours" / "flat.png")
    assert evaluate(capsys, "--data", sets, "--scales", "4", "--networks", "x4.safetensors")[0] == 0
    with open("out/figure8.csv", newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if (row["set"], row["method"]) == ("Ours", "bicubic")]
    found = {row["image"]: float(row["psnr"]) for row in rows}
    assert found["flat"] == float("inf")
    (line,) = [line for line in told()["table"] if (line["set"], line["method"]) == ("Ours", "bicubic")]
    assert float(line["PSNR"]) == pytest.approx((found["colour"] + found["grey"]) / 2, abs=0.006)
    assert "because the result equals the original: flat (bicubic" in Path("out/figure8.md").read_text()
