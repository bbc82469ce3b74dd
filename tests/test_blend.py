"""Blends of styles and the size of strokes: what the text means, what is mixed, and what is refused."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from perceptual import checkpoints, cli, images
from perceptual.apply import Stylizer, parse_blend
from perceptual.checkpoints import Card, shipped
from perceptual.config import NetworkConfig
from perceptual.errors import CheckpointError, ConfigError
from perceptual.functional import luma
from perceptual.networks import TransformationNetwork

STYLES = ("a", "b", "c")
CONFIG = NetworkConfig("c3s1-4 d4 r4*2 U4 c3s1-3", norm="conditional_instance", padding="reflect", styles=3)
PICTURE = torch.rand(1, 3, 22, 31, generator=torch.Generator().manual_seed(1))


def network_of(rows: dict[str, Tensor] | None = None, seed: int = 0) -> TransformationNetwork:
    """A network of three unlike styles, or with the same body and the gammas and betas given."""
    torch.manual_seed(seed)
    network = TransformationNetwork(CONFIG)
    for parameter in network.style_parameters().values():
        parameter.data.uniform_(0.1, 1)
    if rows is None:
        return network.eval()
    count = len(next(iter(rows.values())))
    other = TransformationNetwork(NetworkConfig(CONFIG.architecture, CONFIG.norm, CONFIG.padding, count))
    other.load_state_dict({**network.state_dict(), **rows})
    return other.eval()


def rows_of(*names: str) -> dict[str, Tensor]:
    at = [STYLES.index(name) for name in names]
    return {key: value.detach()[at] for key, value in network_of().style_parameters().items()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """all (styles a, b, c), a, b, bc of one body; other, of another body."""
    folder = tmp_path_factory.mktemp("blend")
    save(folder / "all.safetensors", network_of(), *STYLES)
    for name in ("a", "b", "bc"):
        save(folder / f"{name}.safetensors", network_of(rows_of(*name)), *name)
    save(folder / "other.safetensors", network_of(seed=1), "x", "y", "z")
    return folder


def save(path: Path, network: TransformationNetwork, *styles: str) -> None:
    checkpoints.save(path, network, Card(task="style", network=network.config, styles=styles))


@pytest.fixture(scope="module")
def stylizer(folder: Path) -> Stylizer:
    return Stylizer.load(folder / "all.safetensors", device="cpu")


@pytest.mark.parametrize(
    ("text", "blend"),
    [
        ("a", {"a": 1}),
        ("a:5", {"a": 1}),
        ("a:0.7,b:0.3", {"a": 0.7, "b": 0.3}),
        ("a:7,b:3", {"a": 0.7, "b": 0.3}),
        ("a,b", {"a": 0.5, "b": 0.5}),
        ("a:3,b", {"a": 0.75, "b": 0.25}),
        ("a:1,b:0", {"a": 1, "b": 0}),
        ("a:1,b:2,a:1", {"a": 0.5, "b": 0.5}),
        (" a : 1 , b :1 ", {"a": 0.5, "b": 0.5}),
        ("a:1e1,b:30", {"a": 0.25, "b": 0.75}),
        (r"C:\x.safetensors", {r"C:\x.safetensors": 1}),
        (r"C:\x.safetensors,b:3", {r"C:\x.safetensors": 0.25, "b": 0.75}),
        (r"C:\x.safetensors:3,D:\y.safetensors:1", {r"C:\x.safetensors": 0.75, r"D:\y.safetensors": 0.25}),
    ],
)
def test_a_blend_is_names_with_shares_that_sum_to_1(text: str, blend: dict[str, float]) -> None:
    parsed = parse_blend(text)
    assert list(parsed) == list(blend)
    assert parsed == pytest.approx(blend)


@given(
    st.dictionaries(
        st.text("abcXYZ_.:\\/", min_size=1, max_size=8), st.floats(1e-6, 1e6) | st.just(0.0), min_size=1, max_size=6
    ).filter(lambda weights: any(weights.values()))
)
def test_shares_sum_to_1_and_are_proportional_to_the_weights(weights: dict[str, float]) -> None:
    blend = parse_blend(",".join(f"{name}:{weight!r}" for name, weight in weights.items()))
    assert sum(blend.values()) == pytest.approx(1)
    total = sum(weights.values())
    assert blend == pytest.approx({name: weight / total for name, weight in weights.items()})


@pytest.mark.parametrize(
    "text", ["", " ", ",", "a,", "a,,b", ":0.5", "a:1, :2", "a:-1", "a:2,b:-1", "a:nan", "a:inf", "a:-inf,b:1"]
)
def test_what_is_no_blend_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="is not a blend of styles"):
        parse_blend(text)


@pytest.mark.parametrize("text", ["a:0", "a:0,b:0.0", "a:-0"])
def test_weights_that_are_all_0_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="all 0"):
        parse_blend(text)


def test_a_file_whose_name_holds_a_comma_is_that_file(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "a,b 0.5.safetensors"
    with pytest.raises(ConfigError, match="not a blend"):
        parse_blend(f"{path},")
    assert len(parse_blend(str(path))) == 2  # as long as there is no such file
    path.write_bytes((folder / "b.safetensors").read_bytes())
    assert parse_blend(str(path)) == {str(path): 1.0}
    assert Stylizer.load(path, device="cpu").styles == ("b",)


@pytest.mark.parametrize("style", ["a:0.7,b:0.3", "b:0.7,a:0.3", "a,b", "b:9,a:1", "a:0,b:1"])
def test_a_blend_of_files_paints_as_a_blend_within_one_file(folder: Path, stylizer: Stylizer, style: str) -> None:
    parts = [part.partition(":") for part in style.split(",")]
    files = ",".join(f"{folder / name}.safetensors{colon}{weight}" for name, colon, weight in parts)
    blended = Stylizer.load(files, device="cpu")
    assert torch.allclose(blended(PICTURE), stylizer(PICTURE, style=style), atol=1e-6)


def test_a_blend_of_files_knows_the_styles_of_all(folder: Path, stylizer: Stylizer) -> None:
    blended = Stylizer.load(f"{folder / 'a.safetensors'},{folder / 'bc.safetensors'}:3", device="cpu")
    assert blended.styles == STYLES
    for style in (*STYLES, "b:2,c:1"):
        assert torch.allclose(blended(PICTURE, style=style), stylizer(PICTURE, style=style), atol=1e-6)
    assert torch.allclose(blended(PICTURE), stylizer(PICTURE, style="a:1,b:3"), atol=1e-6)  # bc's first style


def test_shipped_styles_of_one_file_blend_by_name(
    folder: Path, stylizer: Stylizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shipped, "networks", lambda task: {"all": folder / "all.safetensors"})
    assert torch.equal(Stylizer.load("c", device="cpu")(PICTURE), stylizer(PICTURE, style="c"))
    blended = Stylizer.load("c:3,a:1", device="cpu")
    assert torch.equal(blended(PICTURE), stylizer(PICTURE, style="a:0.25,c:0.75"))
    mixed = Stylizer.load(f"c,{folder / 'b.safetensors'}", device="cpu")
    assert torch.allclose(mixed(PICTURE), stylizer(PICTURE, style="b,c"), atol=1e-6)


def test_a_blend_mixes_gamma_and_beta(stylizer: Stylizer) -> None:
    a, b = rows_of("a"), rows_of("b")
    network = network_of({key: 0.7 * a[key] + 0.3 * b[key] for key in a})
    with torch.no_grad():
        expected = network(PICTURE).clamp(0, 1)
    assert torch.allclose(stylizer(PICTURE, style="a:0.7,b:0.3"), expected, atol=1e-5)


def test_a_share_of_0_leaves_the_pure_style(stylizer: Stylizer) -> None:
    a, b = stylizer(PICTURE, style="a"), stylizer(PICTURE, style="b")
    assert not torch.allclose(a, b, atol=0.01)
    assert torch.equal(stylizer(PICTURE, style="a:1,b:0"), a)
    assert torch.equal(stylizer(PICTURE, style="a:0,b:1"), b)


def test_the_painting_goes_from_one_style_to_the_other_without_jumps(stylizer: Stylizer) -> None:
    steps = 50
    walk = torch.cat([stylizer(PICTURE, style=f"a:{steps - k},b:{k}") for k in range(steps + 1)])
    moves = walk.diff(dim=0).abs().amax((1, 2, 3))
    assert (moves > 0).all()
    assert moves.max() < 5 * moves.mean()
    assert moves.max() < 0.1 * (walk[-1] - walk[0]).abs().max()


def test_styles_of_different_networks_are_refused_with_their_names(folder: Path) -> None:
    for blend in ("{0}/a.safetensors,{0}/other.safetensors", "{0}/other.safetensors:0.1,{0}/b.safetensors:0.9"):
        with pytest.raises(ConfigError, match=r"different networks: choose styles of one network\.$") as caught:
            Stylizer.load(blend.format(folder), device="cpu")
        first, second = (part.partition(":")[0] for part in blend.split(","))
        assert str(caught.value).startswith(f"{first} and {second} cannot be blended".format(folder))


@pytest.mark.parametrize("style", ["d", "a:0.5,d:0.5", "d:0,a:1"])
def test_a_style_that_the_network_lacks_is_refused_with_those_it_has(stylizer: Stylizer, style: str) -> None:
    with pytest.raises(ConfigError, match=r"no style 'd'; it has a, b, c\."):
        stylizer(PICTURE, style=style)


def test_a_style_scale_of_1_is_the_network_itself(stylizer: Stylizer) -> None:
    with torch.no_grad():
        painted = network_of()(PICTURE).clamp(0, 1)
    assert torch.equal(stylizer(PICTURE, style_scale=1), stylizer(PICTURE))
    assert torch.allclose(stylizer(PICTURE, style_scale=1), painted, atol=1e-5)


@settings(deadline=None, max_examples=25)
@given(height=st.integers(1, 40), width=st.integers(1, 40), power=st.floats(-4, 4))
def test_the_painting_has_the_size_of_the_photograph_at_any_style_scale(
    stylizer: Stylizer, height: int, width: int, power: float
) -> None:
    painted = stylizer(torch.rand(1, 3, height, width), style_scale=2**power)
    assert painted.shape == (1, 3, height, width)
    assert 0 <= painted.min() <= painted.max() <= 1


def test_a_style_scale_of_a_half_paints_at_twice_the_size(stylizer: Stylizer) -> None:
    twice = stylizer(images.resize(PICTURE, size=(44, 62)))
    assert torch.allclose(stylizer(PICTURE, style_scale=0.5), images.resize(twice, size=(22, 31)), atol=1e-5)


def test_a_style_scale_of_2_paints_at_half_the_size(stylizer: Stylizer) -> None:
    """Of a photograph without fine detail, its painting at half size enlarged; its fine detail comes on top."""
    ramp = torch.linspace(0.2, 0.8, 48).expand(1, 3, 32, 48)
    enlarged = images.resize(stylizer(images.resize(ramp, size=(16, 24))), size=(32, 48))
    assert torch.allclose(stylizer(ramp, style_scale=2), enlarged, atol=0.02)
    assert not torch.allclose(stylizer(ramp), enlarged, atol=0.05)

    photograph = (ramp + 0.05 * (torch.arange(48) % 2)).clamp(0, 1)  # stripes that half the size cannot hold
    small = images.resize(photograph, size=(16, 24))
    enlarged = images.resize(stylizer(small), size=(32, 48))
    detail = luma(photograph) - luma(images.resize(small, size=(32, 48)))
    assert detail.abs().max() > 0.02
    assert torch.allclose(stylizer(photograph, style_scale=2), (enlarged + detail).clamp(0, 1), atol=1e-5)


@pytest.mark.parametrize("scale", [0, -1, 1 / 17, 17, float("nan"), float("inf")])
def test_a_style_scale_out_of_range_is_refused(stylizer: Stylizer, scale: float) -> None:
    with pytest.raises(ConfigError, match=r"style-scale is .*0\.0625 to 16"):
        stylizer(PICTURE, style_scale=scale)


def test_the_command_paints_a_blend_with_large_strokes(
    capsys: pytest.CaptureFixture[str], folder: Path, tmp_path: Path, photograph: Image.Image
) -> None:
    photograph.save(tmp_path / "in.png")
    blend = f"{folder / 'a.safetensors'}:0.5,{folder / 'b.safetensors'}:0.5"
    words = ["stylize", str(tmp_path / "in.png"), "--style", blend, "--device", "cpu"]
    assert cli.main([*words, "--style-scale", "2", "-o", str(tmp_path / "out.png")]) == 0
    expected = np.asarray(Stylizer.load(blend, device="cpu")(photograph, style_scale=2)).astype(int)
    with Image.open(tmp_path / "out.png") as painted:
        assert painted.size == photograph.size
        assert np.abs(np.asarray(painted).astype(int) - expected).max() <= 1
    assert cli.main([*words, "--style-scale", "17", "-o", str(tmp_path / "none.png")]) == 2
    assert "style-scale is 17" in capsys.readouterr().err
    assert not (tmp_path / "none.png").exists()


def test_files_with_styles_of_one_name_keep_both(tmp_path: Path, tiny_style: Path) -> None:
    network, card = checkpoints.load(tiny_style)
    (tmp_path / "deep").mkdir()
    for path in (tmp_path / "a.safetensors", tmp_path / "deep" / "a.safetensors"):
        checkpoints.save(path, network, card)
    both = Stylizer.load(f"{tmp_path / 'a.safetensors'},{tmp_path / 'deep' / 'a.safetensors'}")
    assert both.styles == ("one", "two", "one 2", "two 2")


def test_networks_of_batch_norm_cannot_blend(tmp_path: Path) -> None:
    config = NetworkConfig("c3s1-4 c3s1-3", padding="reflect")
    for name in "pq":
        card = checkpoints.Card(task="style", network=config, styles=(name,))
        torch.manual_seed(0)
        checkpoints.save(tmp_path / f"{name}.safetensors", TransformationNetwork(config), card)
    with pytest.raises(ConfigError, match="batch norm cannot be blended"):
        Stylizer.load(f"{tmp_path / 'p.safetensors'},{tmp_path / 'q.safetensors'}")


@pytest.mark.parametrize("text", ["a:1e308,b:1e308", "a:1e308,a:1e308"])
def test_weights_too_large_to_add_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"with weights from 0 to 1e\+12"):
        parse_blend(text)


def test_a_file_that_names_more_styles_than_it_holds_is_refused(tmp_path: Path, tiny_style: Path) -> None:
    network, card = checkpoints.load(tiny_style)
    checkpoints.save(tmp_path / "bad.safetensors", network, dataclasses.replace(card, styles=("a", "b", "c")))
    with pytest.raises(CheckpointError, match="names 3 styles, but contains 2"):
        Stylizer.load(tmp_path / "bad.safetensors")
