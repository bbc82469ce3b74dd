"""What several test files share: a tiny network, a photograph, and pretrained weights where there are any."""

import ctypes
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from PIL import Image
from skimage import data

from perceptual import checkpoints
from perceptual.config import NetworkConfig
from perceptual.fast import build, library, native, prepare_kernels
from perceptual.networks import TransformationNetwork

settings.register_profile("perceptual", deadline=None)  # a slow computer is no failure
settings.load_profile("perceptual")

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session", autouse=True)
def no_hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No weights from the cache of torch.hub of whoever runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCH_HOME", str(tmp_path_factory.mktemp("torch")))
        yield


@pytest.fixture(scope="session", autouse=True)
def compiled_kernels() -> None:
    """The installed kernels; where there are none, as in a bare checkout, they are compiled, if there is a compiler."""
    prepare_kernels(compile_here=library.installed() is None)


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ctypes.CDLL]:
    """Every variant of the kernels that this processor can run, compiled as for a wheel."""
    folder = tmp_path_factory.mktemp("built")
    if not build.build(folder):
        return {}
    return {v: native.declare(ctypes.CDLL(str(folder / build.library_name(v)))) for v in library.runnable()}


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Threads that wait for each other are slow where other work has the cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def seed() -> None:
    """The same numbers by chance in each test."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def tiny_style(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of an untrained network of two styles."""
    torch.manual_seed(0)
    config = NetworkConfig("c3s1-4 d4 r4*2 U4 c3s1-3", norm="conditional_instance", padding="reflect", styles=2)
    network = TransformationNetwork(config)
    for name, value in network.named_parameters():
        if name.endswith("norm.weight"):
            value.data[1] = value.data[1].flip(0)
    path = tmp_path_factory.mktemp("styles") / "tiny.safetensors"
    checkpoints.save(path, network, checkpoints.Card(task="style", network=config, styles=("one", "two"), about="tiny"))
    return path


@pytest.fixture(scope="session")
def photograph() -> Image.Image:
    """A free sample photograph of scikit-image, 225 x 150 px."""
    return Image.fromarray(data.chelsea()).resize((225, 150), Image.Resampling.BICUBIC)


@pytest.fixture
def pretrained(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of real loss-network weights, found by name through PERCEPTUAL_WEIGHTS."""
    folder = SHARED / "weights"
    if not folder.is_dir():
        pytest.skip("the pretrained weights are not part of this repository")
    monkeypatch.setenv("PERCEPTUAL_WEIGHTS", str(folder))
    return folder


def assert_one_sentence(err: str, *parts: str) -> None:
    """What a user sees of a mistake: one sentence, with these parts, and no traceback."""
    assert "Traceback" not in err
    assert len(err.strip().splitlines()) == 1, err
    assert err.startswith("perceptual: ")
    assert err.strip().endswith(".")
    for part in parts:
        assert part in err
