"""Painting and enlarging on a GPU, without one: float16, CUDA graphs, batches, and memory that runs out.

The branches for a GPU are forced on the CPU. The CUDA graph is a stand-in that records PyTorch's operations and repeats
them with the same tensors, as a real one does. Like a real one, it refuses operations that wait for the GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import SHARED
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from perceptual import psnr
from perceptual.apply import Model, Stylizer, Upscaler, tiles
from perceptual.apply.stylizer import NO_ROOM
from perceptual.checkpoints import Card
from perceptual.config import NetworkConfig
from perceptual.devices import out_of_memory
from perceptual.errors import ImageError
from perceptual.gpu import EAGER, Graphs, fetch, half_precision, send
from perceptual.networks import InstanceNorm, TransformationNetwork

pytestmark = pytest.mark.usefixtures("one_thread")

CUDA = torch.device("cuda")
LEAST = 42.0  # dB against float32


class FakeGraph(TorchDispatchMode):
    """A CUDA graph on the CPU: it records the operations inside, and `replay` runs them on the same tensors."""

    made: int = 0
    replayed: int = 0

    def __init__(self) -> None:
        super().__init__()
        FakeGraph.made += 1
        self.operations: list[tuple[Callable[..., Any], Any, Any, Any]] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.is_nonzero.default):
            raise RuntimeError("operation not permitted when stream is capturing")
        out = function(*args, **(kwargs or {}))
        self.operations.append((function, args, kwargs or {}, out))
        return out

    @torch.no_grad()
    def replay(self) -> None:
        FakeGraph.replayed += 1
        for function, args, kwargs, out in self.operations:
            again = function(*args, **kwargs)
            if isinstance(out, Tensor) and again is not out:
                out.copy_(again)
            elif isinstance(out, (tuple, list)):
                for old, new in zip(out, again, strict=True):
                    if old is not None:
                        old.copy_(new)


class Stream:
    def wait_stream(self, other: Stream) -> None:
        """Nothing runs at the same time here."""


@contextmanager
def record(graph: FakeGraph, stream: Stream, capture_error_mode: str) -> Iterator[None]:
    assert capture_error_mode == "thread_local"
    with graph:
        yield


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA's functions, on the CPU."""
    real = torch.autocast
    monkeypatch.setattr(torch, "autocast", lambda device_type, *dtype, **others: real("cpu", *dtype, **others))
    for name, stand_in in {
        "CUDAGraph": FakeGraph,
        "Stream": Stream,
        "current_stream": Stream,
        "stream": lambda stream: nullcontext(),
        "device": lambda device: nullcontext(),
        "graph": record,
    }.items():
        monkeypatch.setattr(torch.cuda, name, stand_in)
    for module in ("model", "stylizer"):
        monkeypatch.setattr(f"perceptual.apply.{module}.send", lambda x, device: x)
    monkeypatch.setattr("perceptual.apply.stylizer.free_memory", lambda device: float("inf"))
    FakeGraph.made = FakeGraph.replayed = 0


def on_gpu(model: Any) -> Any:
    """A model of the CPU that takes the branches of a GPU."""
    model.device = CUDA
    return model


def picture(side: int, count: int = 1) -> Tensor:
    return (torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(side)) * 255).to(torch.uint8)


def test_a_graph_gives_what_the_function_gives_for_new_values_of_the_same_size(cuda: None) -> None:
    calls = []

    def double(x: Tensor, y: Tensor | None) -> tuple[Tensor, ...]:
        calls.append(x)
        return 2 * x, x.sum()

    graphs = Graphs(double)
    results = [graphs(torch.full((2, 3), float(k)), None) for k in range(EAGER + 4)]
    for k, (doubled, total) in enumerate(results):  # none is overwritten by a later call
        assert torch.equal(doubled, torch.full((2, 3), 2.0 * k))
        assert total == 6 * k
    assert len(calls) == EAGER + 3  # two calls before the recording, and the recording
    assert FakeGraph.made == 1
    assert FakeGraph.replayed == 4


def test_a_new_size_or_dtype_runs_without_the_graph(cuda: None) -> None:
    graphs = Graphs(lambda x: (x + 1,))
    for _ in range(EAGER + 1):
        graphs(torch.zeros(2))
    for other in (torch.zeros(3), torch.zeros(3, dtype=torch.float64)):
        assert torch.equal(graphs(other)[0], other + 1)
    assert FakeGraph.replayed == 1


def test_a_function_that_waits_for_the_gpu_never_gets_a_graph(cuda: None) -> None:
    graphs = Graphs(lambda x: (x * float(x.sum()),))
    for k in range(EAGER + 3):
        assert torch.equal(graphs(torch.full((2,), float(k)))[0], torch.full((2,), 2.0 * k * k))
    assert FakeGraph.made == 1  # it was tried once
    assert FakeGraph.replayed == 0


def test_copies_go_through_pinned_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.rand(2, 2)
    assert send(x, torch.device("cpu")) is x
    assert torch.equal(fetch(x), x)
    copied: list[object] = []

    class Pinned:
        def to(self, device: torch.device, *, non_blocking: bool) -> str:
            copied.append((device, non_blocking))
            return "there"

    monkeypatch.setattr(Tensor, "pin_memory", lambda self: Pinned())
    assert send(x, CUDA) == "there"
    assert copied == [(CUDA, True)]


def test_only_gpus_compute_in_half_precision() -> None:
    assert half_precision(CUDA) is torch.float16
    assert half_precision(torch.device("mps")) is torch.float16
    assert half_precision(torch.device("cpu")) is None


def test_the_variance_of_a_norm_may_exceed_float16() -> None:
    """300 and -300 in turn: their variance, 90,000, is larger than float16's largest number, 65,504."""
    x = torch.tensor([300.0, -300.0]).repeat(1, 1, 8, 4).half()
    with torch.no_grad():
        y = InstanceNorm(1)(x)
    assert y.dtype == torch.float16
    assert torch.equal(y.unique(), torch.tensor([-1.0, 1.0]).half())
    assert torch.var(x, correction=0).isinf()  # what a norm in float16 would compute


def test_the_norm_is_the_same_with_and_without_gradients() -> None:
    norm, x = InstanceNorm(3, 2), torch.rand(2, 3, 5, 7).half()
    style = torch.tensor([[0.3, 0.7], [1.0, 0.0]])
    with torch.no_grad():
        assert torch.allclose(norm(x, style).float(), norm.requires_grad_()(x, style).float(), atol=2e-3)
    assert norm(x, style).grad_fn is not None


@pytest.mark.parametrize(("style", "video"), [("mondrian", False), ("starry_night", False), ("starry_night", True)])
def test_float16_with_norms_in_float32_is_close_to_float32(style: str, video: bool) -> None:
    from skimage import data

    stylizer = Stylizer.load(style, video=video, device="cpu")
    x = torch.from_numpy(data.astronaut()[:128, 180:308].copy()).permute(2, 0, 1)[None]
    weights = stylizer._weights(None)
    with torch.no_grad():
        exact, half = (stylizer.forward(x, weights, dtype=dtype) for dtype in (None, torch.float16))
    assert not torch.equal(exact, half)
    assert psnr(half, exact, color="rgb") > LEAST


@pytest.mark.shared
@pytest.mark.parametrize("name", ["000000122745", "000000085329"])
def test_dark_and_flat_photos_are_close_to_float32_too(name: str) -> None:
    """The two photos that are worst in int8."""
    from perceptual import images

    stylizer = Stylizer.load("composition_vii", video=True, device="cpu")
    file = SHARED / "data" / "val" / f"{name}.jpg"
    if not file.exists():
        pytest.skip("the photos of val2017 are not here")
    x = images.read(file, levels=True).pixels[..., :256, :256]
    with torch.no_grad():
        exact, half = (stylizer.forward(x, stylizer._weights(None), dtype=dtype) for dtype in (None, torch.float16))
    assert psnr(half, exact, color="rgb") > LEAST


def test_a_network_that_overflows_in_float16_is_computed_in_float32() -> None:
    torch.manual_seed(0)
    network = TransformationNetwork(NetworkConfig("c3s1-4 c3s1-3", norm="none", output="linear")).eval()
    for layer in network.layers:
        layer.conv.weight.data *= 1e4
    model, x = Model[Any](network, Card("style", network.config), device="cpu"), torch.rand(1, 3, 8, 8)
    with torch.no_grad():
        assert torch.equal(model.forward(x, dtype=torch.float16), model.forward(x))
        assert not model._call(x, dtype=torch.float16)[1].isfinite()


def test_a_stream_of_pictures_of_one_size_is_painted_from_a_graph(cuda: None) -> None:
    stylizer = on_gpu(Stylizer.load("starry_night", device="cpu"))
    frames = [picture(40).roll(k, -1) for k in range(EAGER + 2)]
    painted = [stylizer.stylize(frame) for frame in frames]
    assert FakeGraph.replayed == 2
    with torch.no_grad():
        for frame, result in zip(frames, painted, strict=True):
            assert torch.equal(result, list(stylizer._whole(frame, stylizer.defaults))[-1].result)
    assert stylizer.stylize(picture(44)).shape[-1] == 44  # another size
    assert stylizer.stylize(picture(44), precision="float32").dtype == torch.uint8
    assert set(stylizer._graphs) == {torch.float16, None}


def test_a_batch_is_painted_at_once_on_a_gpu_and_equals_single_pictures(
    cuda: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    stylizer, pictures = on_gpu(Stylizer.load("starry_night", device="cpu")), picture(40, 5)
    counts: list[int] = []
    whole = stylizer._whole
    monkeypatch.setattr(stylizer, "_whole", lambda x, options: counts.append(len(x)) or whole(x, options))
    monkeypatch.setattr("perceptual.apply.stylizer.TOGETHER", 2 * 40 * 40)
    steps = list(stylizer.run(pictures))
    assert counts == [2, 2, 1]
    assert [step.total for step in steps] == [5]
    assert steps[-1].result.shape == pictures.shape
    monkeypatch.setattr("perceptual.apply.stylizer.TOGETHER", 1)
    alone = stylizer.stylize(pictures)
    assert (alone.int() - steps[-1].result.int()).abs().max() <= 1


@pytest.mark.parametrize("why", ["estimate", "error"])
def test_what_does_not_fit_on_the_gpu_is_painted_by_the_cpu(
    cuda: None, monkeypatch: pytest.MonkeyPatch, tiny_style: Path, why: str
) -> None:
    """The memory is too small by the estimate, or PyTorch raises its error."""
    expected = Stylizer.load(tiny_style, device="cpu").stylize(picture(48, 2))
    stylizer = on_gpu(Stylizer.load(tiny_style, device="cpu"))

    def full(*anything: object, **others: object) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")

    monkeypatch.setattr(stylizer, "forward", full)
    if why == "estimate":
        free = lambda device: 0.0 if device == CUDA else float("inf")  # noqa: E731
        monkeypatch.setattr("perceptual.apply.stylizer.free_memory", free)
        monkeypatch.setattr(stylizer, "forward", lambda *x, **y: pytest.fail("it was tried on the GPU"))
    steps = list(stylizer.run(picture(48, 2)))
    assert [step.message for step in steps if step.message] == [NO_ROOM]
    assert torch.equal(steps[-1].result, expected)
    assert "GPU" in NO_ROOM


def test_other_errors_of_the_gpu_are_not_hidden(cuda: None, monkeypatch: pytest.MonkeyPatch, tiny_style: Path) -> None:
    stylizer = on_gpu(Stylizer.load(tiny_style, device="cpu"))
    monkeypatch.setattr(stylizer, "forward", lambda *x, **y: (_ for _ in ()).throw(RuntimeError("no kernel image")))
    with pytest.raises(RuntimeError, match="no kernel image"):
        stylizer.stylize(picture(48))


def upscaler() -> Upscaler:
    torch.manual_seed(0)
    config = NetworkConfig("c3s1-4 c3s1-3", norm="none", padding="zero", output="bicubic", enlarge=2)
    return Upscaler(TransformationNetwork(config).eval(), Card("upscale", config), device="cpu")


def test_tiles_are_halved_until_they_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    model, small = upscaler(), picture(64)
    expected, sides = model.upscale(small, precision="float32"), list[int]()
    forward = model.forward

    def room_for_40(x: Tensor, *style: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        sides.append(x.shape[-1])
        if x.shape[-1] > 40:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return forward(x, *style, dtype=dtype)

    monkeypatch.setattr(model, "forward", room_for_40)
    assert (model.upscale(small, precision="float32").int() - expected.int()).abs().max() <= 1
    assert max(sides) > 64 > 40 >= sides[-1]
    with pytest.raises(ImageError, match="smaller picture"):  # --tile sets the side
        model.upscale(small, tile=64)
    monkeypatch.setattr(model, "forward", lambda *x, **y: room_for_40(torch.zeros(1, 3, 99, 99)))
    with pytest.raises(ImageError) as caught:
        model.upscale(small)
    assert str(caught.value) == tiles.NO_ROOM


def test_a_gpu_enlarges_levels_in_float16_and_fine_pixels_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    model, levels = on_gpu(upscaler()), picture(8)
    options = model.defaults
    assert model.forward_for(levels, options).keywords == {"dtype": torch.float16}
    assert model.forward_for(levels / 255, options).keywords == {"dtype": None}


def test_the_errors_of_all_devices_count_as_out_of_memory() -> None:
    for text in ("MPS backend out of memory (MPS allocated: 8 GB)", "CUDA error: out of memory"):
        assert out_of_memory(RuntimeError(text))
