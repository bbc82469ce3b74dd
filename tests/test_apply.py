"""Stylizer and the walk over files: exact sizes, kinds in and out, options, and what becomes of each file."""

import errno
import os
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from perceptual import images
from perceptual.apply import Stylizer, Upscaler, Work, convert_files, plan_outputs
from perceptual.apply.tiles import mirrored, with_margin
from perceptual.checkpoints import Card, find_style, gallery, load, save, shipped
from perceptual.config import NetworkConfig
from perceptual.errors import CheckpointError, ConfigError, ImageError, OutputError
from perceptual.functional import crossfade, luma
from perceptual.networks import TransformationNetwork

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(scope="module")
def stylizer(tiny_style: Path) -> Stylizer:
    return Stylizer.load(tiny_style)


@settings(deadline=None, max_examples=25)
@given(height=st.integers(1, 20), width=st.integers(1, 20))
def test_the_painting_has_exactly_the_size_of_the_photograph(stylizer: Stylizer, height: int, width: int) -> None:
    assert stylizer(torch.rand(3, height, width)).shape == (3, height, width)


def test_pil_numpy_and_tensor_give_their_own_kind_and_the_same_painting(
    stylizer: Stylizer, photograph: Image.Image
) -> None:
    array = np.asarray(photograph)
    tensor = torch.from_numpy(array.copy()).permute(2, 0, 1) / 255
    from_pil, from_numpy, from_tensor = stylizer(photograph), stylizer(array), stylizer(tensor)
    assert isinstance(from_pil, Image.Image)
    assert from_pil.size == photograph.size
    assert from_numpy.dtype == np.uint8
    assert np.array_equal(np.asarray(from_pil), from_numpy)
    assert torch.allclose(from_tensor.permute(1, 2, 0), torch.from_numpy(from_numpy.copy()) / 255, atol=0.5001 / 255)


@pytest.mark.parametrize(("height", "width", "margin"), [(5, 7, 3), (4, 1, 3), (2, 3, 8)])
def test_a_margin_mirrors_the_picture_with_its_edge_pixels(height: int, width: int, margin: int) -> None:
    x = torch.arange(2.0 * 3 * height * width).view(2, 3, height, width)
    rows, columns = (mirrored(-margin, side + margin, side) for side in (height, width))
    assert torch.equal(with_margin(x, margin), x[..., rows, :][..., columns])
    assert with_margin(torch.tensor([[[[1.0, 2, 3]]]]), 2)[0, 0, 2].tolist() == [2, 1, 1, 2, 3, 3, 2]


@pytest.mark.parametrize("side", [64, 200])  # PyTorch's layers, and fast inference
@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floats_are_painted_as_float32_and_given_back(kind: torch.dtype, side: int) -> None:
    gallery, x = Stylizer.load("gallery"), torch.rand(1, 3, side, side).to(kind)
    painted = gallery.stylize(x)
    assert painted.dtype == kind
    assert torch.equal(painted, gallery.stylize(x.float()).to(kind))
    enlarged = Upscaler.load("x2_video").upscale(x[..., :32, :32])
    assert (enlarged.dtype, enlarged.shape) == (kind, (1, 3, 64, 64))


def test_arguments_are_not_changed(stylizer: Stylizer) -> None:
    image = torch.rand(1, 3, 9, 11)
    before = image.clone()
    stylizer(image, keep_colors=True, strength=0.5)
    assert torch.equal(image, before)


def test_a_batch_is_painted_image_by_image(stylizer: Stylizer) -> None:
    images_ = torch.rand(3, 3, 8, 12)
    assert torch.allclose(stylizer(images_)[1:2], stylizer(images_[1:2]), atol=1e-6)


def test_strength_runs_from_the_photograph_to_the_painting(stylizer: Stylizer) -> None:
    image = torch.rand(1, 3, 16, 16)
    full = stylizer(image)
    assert torch.equal(stylizer(image, strength=0), image)
    assert torch.allclose(stylizer(image, strength=0.25), crossfade(image, full, 0.25).clamp(0, 1), atol=1e-6)


def test_keep_colors_changes_only_the_luma(stylizer: Stylizer) -> None:
    image = 0.4 + 0.2 * torch.rand(1, 3, 16, 16)
    painting = stylizer(image, keep_colors=True)
    inside = ((painting > 0) & (painting < 1)).all(1, keepdim=True)
    assert inside.any()
    shift = (painting - image) * inside
    assert torch.allclose(shift[:, :1].expand_as(shift), shift, atol=1e-6)  # the same step in R, G and B
    assert torch.allclose(luma(painting)[inside], luma(stylizer(image))[inside], atol=1e-5)


def test_size_is_the_longer_side_of_the_painting(stylizer: Stylizer, photograph: Image.Image) -> None:
    assert stylizer(photograph, size=90).size == (90, 60)


def test_styles_are_chosen_by_name(stylizer: Stylizer) -> None:
    image = torch.rand(1, 3, 16, 16)
    assert torch.equal(stylizer(image), stylizer(image, style="one"))
    assert not torch.allclose(stylizer(image, style="two"), stylizer(image, style="one"), atol=1e-3)
    with pytest.raises(ConfigError, match="no style 'three'; it has one, two"):
        stylizer(image, style="three")


@pytest.mark.parametrize("options", [{"strength": 1.5}, {"strength": float("nan")}, {"size": 0}])
def test_options_out_of_range_are_refused(stylizer: Stylizer, options: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        stylizer(torch.rand(3, 8, 8), **options)


def test_an_image_too_large_for_the_memory_is_refused_with_a_size_that_fits(
    stylizer: Stylizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("perceptual.apply.stylizer.free_memory", lambda device: 1e6)
    with pytest.raises(ImageError, match="--size") as caught:
        stylizer(torch.rand(3, 300, 400))
    side = int(str(caught.value).rsplit(" ", 1)[1].rstrip("."))
    assert stylizer(torch.rand(3, 300, 400), size=side).shape[2] == side


def test_a_network_of_not_a_number_is_refused(tiny_style: Path, tmp_path: Path) -> None:
    network, card = load(tiny_style)
    next(network.parameters()).data.fill_(float("nan"))
    save(tmp_path / "bad.safetensors", network, card)
    with pytest.raises(CheckpointError, match="damaged"):
        Stylizer.load(tmp_path / "bad.safetensors")(torch.rand(3, 8, 8))


def test_an_unknown_style_lists_the_shipped_ones() -> None:
    with pytest.raises(CheckpointError, match="starry_night"):
        find_style("no_such_style")


def test_every_shipped_network_has_a_complete_card_and_paints() -> None:
    assert "gallery" in shipped.networks("style")
    for name in shipped.networks("style"):
        stylizer = Stylizer.load(name)
        card = stylizer.card
        assert card.about
        assert card.licence
        assert card.data
        assert card.steps > 0
        assert card.settings
        assert all(len(digest) == 64 for digest in card.loss_networks.values())
        assert card.loss_networks
        assert stylizer(torch.rand(3, 33, 47)).shape == (3, 33, 47)


@pytest.mark.parametrize("name", sorted(gallery()))
@pytest.mark.parametrize("video", [False, True])
def test_shipped_styles_paint_the_golden_picture(name: str, video: bool, photograph: Image.Image) -> None:
    ending = "_video" if gallery(video=video)[name] != gallery()[name] else ""
    golden = np.asarray(Image.open(GOLDEN / f"{name}{ending}.png")).astype(int)
    stylizer = Stylizer.load(name, video=video, precision="float32")
    error = np.abs(np.asarray(stylizer(photograph)).astype(int) - golden)
    assert error.max() <= 3
    assert error.mean() < 0.1


@pytest.fixture
def tree(tmp_path: Path, photograph: Image.Image) -> Path:
    folder = tmp_path / "in"
    (folder / "deep").mkdir(parents=True)
    small = photograph.resize((20, 12))
    small.save(folder / "a.jpg")
    small.save(folder / "deep" / "b.PNG")
    small.convert("P").save(folder / "c.gif")
    (folder / "notes.txt").write_text("not a picture")
    return folder


def test_a_folder_is_mirrored_and_gif_becomes_png(tree: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    pairs = plan_outputs([tree], out)
    assert {t.relative_to(out).as_posix() for _, t in pairs} == {"a.jpg", "deep/b.PNG", "c.png"}


def test_one_file_goes_to_the_file_named(tree: Path, tmp_path: Path) -> None:
    assert plan_outputs([tree / "a.jpg"], tmp_path / "x.png") == [(tree / "a.jpg", tmp_path / "x.png")]
    assert plan_outputs([tree / "a.jpg"], tmp_path / "folder") == [(tree / "a.jpg", tmp_path / "folder" / "a.jpg")]


def test_outputs_inside_the_input_folder_are_not_painted_again(tree: Path) -> None:
    first = plan_outputs([tree], tree / "out")
    list(convert_files(first, Work(lambda x: x)))
    assert plan_outputs([tree], tree / "out") == first


def test_overwriting_an_input_is_refused(tree: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="overwrite its input"):
        plan_outputs([tree / "a.jpg"], tree / "a.jpg")
    with pytest.raises(OutputError, match="overwrite its input"):
        plan_outputs([tree / "a.jpg"], tree)
    with pytest.raises(OutputError, match="one file"):
        plan_outputs([tree], tmp_path / "out.png")


def test_two_files_with_one_output_are_refused_before_the_work(tree: Path, tmp_path: Path) -> None:
    (tree / "cat.gif").write_bytes((tree / "deep" / "b.PNG").read_bytes())
    (tree / "cat.png").write_bytes((tree / "deep" / "b.PNG").read_bytes())
    with pytest.raises(OutputError, match=r"cat\.png has the same output .*cat\.png as .*cat\.gif: rename it"):
        plan_outputs([tree], tmp_path / "out")


def test_a_size_that_the_format_cannot_hold_is_said_before_the_work(tree: Path, tmp_path: Path) -> None:
    def never(pixels: torch.Tensor) -> torch.Tensor:
        raise AssertionError

    pairs = [(tree / "a.jpg", tmp_path / "a.webp")]
    (outcome,) = convert_files(pairs, Work(never, lambda height, width: (height, 16384)))
    assert "WEBP allows at most 16383 pixels a side" in str(outcome.error)


def test_one_bad_file_does_not_stop_the_rest(tree: Path, tmp_path: Path) -> None:
    (tree / "broken.jpg").write_bytes(b"\xff\xd8 cut short")
    outcomes = list(convert_files(plan_outputs([tree], tmp_path / "out"), Work(lambda x: 1 - x)))
    assert [o.source.name for o in outcomes if o.error] == ["broken.jpg"]
    assert sum(o.target.exists() for o in outcomes) == 3
    assert not (tmp_path / "out" / "broken.jpg").exists()


def test_files_are_worked_on_side_by_side_and_reported_in_order(tree: Path, tmp_path: Path) -> None:
    (tree / "broken.jpg").write_bytes(b"\xff\xd8 cut short")
    for name in ("x.png", "y.png", "z.png"):
        Image.new("RGB", (20, 10)).save(tree / name)
    pairs = plan_outputs([tree / name for name in ("a.jpg", "x.png", "broken.jpg", "y.png", "z.png")], tmp_path / "out")
    together, threads = threading.Barrier(2, timeout=60), list[tuple[str, int]]()

    def convert(pixels: torch.Tensor) -> torch.Tensor:
        threads.append((threading.current_thread().name, torch.get_num_threads()))
        if len(threads) <= 2:
            together.wait()  # fails unless two files are worked on at the same time
        return 255 - pixels

    outcomes = list(convert_files(pairs, Work(convert, at_once=lambda height, width: 2)))
    assert [o.source.name for o in outcomes] == ["a.jpg", "x.png", "broken.jpg", "y.png", "z.png"]
    assert [bool(o.error) for o in outcomes] == [False, False, True, False, False]
    assert all(o.target.exists() != bool(o.error) for o in outcomes)
    assert [name for name, _ in threads[-1:]] == ["MainThread"]  # the last one of five has all cores
    assert {count for name, count in threads if name != "MainThread"} == {1}


def test_a_single_file_has_all_cores(tree: Path, tmp_path: Path) -> None:
    names = list[str]()
    pairs = plan_outputs([tree / "a.jpg"], tmp_path / "a.png")
    list(convert_files(pairs, Work(lambda x: names.append(threading.current_thread().name) or x, at_once=lambda *_: 2)))
    assert names == ["MainThread"]


def test_existing_outputs_are_skipped_only_when_asked(tree: Path, tmp_path: Path) -> None:
    pairs = plan_outputs([tree / "a.jpg"], tmp_path / "a.png")
    (tmp_path / "a.png").write_bytes(b"old")
    assert [o.skipped for o in convert_files(pairs, Work(lambda x: x), skip_existing=True)] == [True]
    assert (tmp_path / "a.png").read_bytes() == b"old"
    assert [o.skipped for o in convert_files(pairs, Work(lambda x: x))] == [False]
    assert images.read(tmp_path / "a.png").width == 20


def test_transparency_survives_painting(tmp_path: Path, stylizer: Stylizer) -> None:
    picture = Image.new("RGBA", (12, 8), (200, 30, 40, 128))
    picture.save(tmp_path / "in.png")
    list(convert_files([(tmp_path / "in.png", tmp_path / "out.png")], Work(stylizer.stylize)))
    with Image.open(tmp_path / "out.png") as painted:
        assert painted.mode == "RGBA"
        assert set(np.asarray(painted)[..., 3].ravel()) == {128}


def test_a_neighbour_of_the_input_is_not_replaced(tmp_path: Path, photograph: Image.Image) -> None:
    """a.gif becomes a.png, which another picture may be called that lies there already."""
    photograph.save(tmp_path / "a.gif")
    assert plan_outputs([tmp_path / "a.gif"], tmp_path) == [(tmp_path / "a.gif", tmp_path / "a.png")]
    (tmp_path / "a.png").write_text("mine")
    with pytest.raises(OutputError, match=r"would replace your file .*: choose another -o"):
        plan_outputs([tmp_path / "a.gif"], tmp_path)
    elsewhere = tmp_path / "out"
    elsewhere.mkdir()
    (elsewhere / "a.png").write_text("painted before")
    assert plan_outputs([tmp_path / "a.gif"], elsewhere) == [(tmp_path / "a.gif", elsewhere / "a.png")]


def test_the_callers_network_stays_as_it_is() -> None:
    config = NetworkConfig("c3s1-4 d4 r4 U4 c3s1-3", norm="instance", padding="reflect")
    network = TransformationNetwork(config).train()
    stylizer = Stylizer(network, Card(task="style", network=config), device="cpu")
    assert network.training
    assert not stylizer.network.training
    with torch.no_grad():
        network.layers[0].conv.bias += 1  # type: ignore[union-attr,operator]
    assert not torch.equal(network.layers[0].conv.bias, stylizer.network.layers[0].conv.bias)  # type: ignore[union-attr,arg-type]


def test_a_folder_that_cannot_be_searched_is_reported_and_the_rest_is_written(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scandir = os.scandir

    def refuse(path: str) -> object:
        if str(path) in closed:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    closed = {str(tree / "deep")}
    monkeypatch.setattr(os, "scandir", refuse)
    outcomes = list(convert_files(plan_outputs([tree], tmp_path / "out"), Work(lambda pixels: pixels)))
    assert [(o.source.name, o.error is None) for o in outcomes] == [("a.jpg", True), ("c.gif", True), ("deep", False)]
    assert outcomes[2].error == f"The folder {tree / 'deep'} cannot be read: change its permissions."
    assert [
        o.source.name
        for o in convert_files(plan_outputs([f"{tree}/**/*.gif"], tmp_path / "out"), Work(lambda pixels: pixels))
        if o.error
    ] == ["deep"]
    closed.add(str(tree))
    with pytest.raises(ImageError, match="cannot be read, permission is denied"):
        plan_outputs([tree], tmp_path / "out")
