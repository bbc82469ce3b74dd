"""How fast everything is: painting against plain PyTorch, onnxruntime, OpenVINO; cold start; large pictures; training.

python benchmarks/performance.py [PART ...]      parts: paint kernels precision cold large train (all when left out)

Every side runs in a process of its own, since memory settings belong to a process, and they take turns, so that a busy
machine slows all alike. `plain` is what most code does: the network in float32, eager, in PyTorch's default layout,
with the C library's default allocator. onnxruntime and openvino take part where they are installed (pip install
'perceptual[benchmark]'). "full" is the paper's width, as in pytorch/examples: c9s1-32 d64 d128 r128*5 U64 U32 c9s1-3
with instance norm, and weights by chance, which cost the same.
"""

import multiprocessing as mp
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

ROUNDS = 7
STREAM = 8  # pictures
FULL = "c9s1-32 d64 d128 r128*5 U64 U32 c9s1-3"
SIDES = (256, 512, 1024, 2048)
MEGAPIXELS = (0.25, 1, 4, 8, 16, 36, 100)


def network_of(name: str):
    """The shipped gallery's network, or one of the paper's width."""
    import torch

    from perceptual import NetworkConfig, Stylizer, TransformationNetwork

    if name == "gallery":
        return Stylizer.load("gallery").network
    torch.manual_seed(0)
    return TransformationNetwork(NetworkConfig(architecture=FULL, norm="instance", padding="reflect")).eval()


def painter(engine: str, name: str, side: int) -> Callable[[], object]:
    """A function that paints one picture of side x side pixels by an engine."""
    import torch

    from perceptual import Stylizer, keep_memory
    from perceptual.checkpoints import Card

    x, network = torch.rand(1, 3, side, side), network_of(name)
    if engine in ("ours", "ours float32", "stream"):
        keep_memory()
        stylizer = Stylizer(network, Card("style", network.config))
        levels = (x * 255).to(torch.uint8)
        precision = "float32" if engine == "ours float32" else "auto"
        if engine == "stream":  # as folders of files and videos are painted
            from perceptual.devices import SideBySide

            work = SideBySide(stylizer.stylize, lambda levels: stylizer.at_once(side, side))
            return lambda: list(work.results([levels] * STREAM))
        return lambda: stylizer.stylize(levels, precision=precision)
    network = network.to(memory_format=torch.contiguous_format)
    if engine == "plain":
        return torch.no_grad()(lambda: network(x))
    return exported(engine, network, x)


def exported(engine: str, network, x) -> Callable[[], object]:
    """The network, of fixed size and with its first style, in onnxruntime or OpenVINO."""
    import torch
    from torch.nn.functional import instance_norm

    from perceptual.networks import InstanceNorm

    InstanceNorm.forward = lambda norm, x, style=None: instance_norm(x, weight=norm.weight[0], bias=norm.bias[0])
    if engine == "openvino":
        import openvino

        model = openvino.convert_model(network, example_input=x)
        model.reshape(list(x.shape))
        settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": torch.get_num_threads()}
        request = openvino.Core().compile_model(model, "CPU", settings).create_infer_request()
        return lambda: request.infer([x.numpy()])
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        file = str(Path(folder) / "network.onnx")
        torch.onnx.export(network, (x,), file, dynamo=True, verbose=False, external_data=False)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {session.get_inputs()[0].name: x.numpy()})


def peak() -> Callable[[], object]:
    """A 128-channel 3x3 convolution at 128 x 128 in float32, the processor's best case: 4.8 GFLOP."""
    import torch

    conv = torch.nn.Conv2d(128, 128, 3, padding=1).to(memory_format=torch.channels_last)
    x = torch.rand(1, 128, 128, 128).contiguous(memory_format=torch.channels_last)
    return torch.no_grad()(lambda: conv(x))


def trainer(way: str) -> Callable[[], object]:
    """One step of the recipe `fast`: network, VGG-16's features and losses forward and backward, Adam."""
    import torch

    from perceptual import TransformationNetwork, style_transfer_loss
    from perceptual.config import LossConfig
    from perceptual.devices import channels_last
    from perceptual.memory import keep_memory
    from perceptual.tasks.style import Style

    recipe = Style.recipe("fast")
    layers = tuple(f"vgg16:{layer}" for layer in ("relu1_2", "relu2_2", "relu3_3"))
    network = TransformationNetwork(recipe.network)
    loss = style_transfer_loss(LossConfig(("vgg16:relu2_2",), layers), [torch.rand(1, 3, 384, 512)])
    x = torch.rand(recipe.train.batch, 3, recipe.train.size, recipe.train.size)
    if way == "ours":
        keep_memory()
        channels_last(network), channels_last(loss)
        x = x.contiguous(memory_format=torch.channels_last)
    else:
        loss.to(memory_format=torch.contiguous_format)
    optimizer = torch.optim.Adam(network.parameters())

    def step() -> None:
        optimizer.zero_grad()
        loss(network(x), x)["total"].backward()
        optimizer.step()

    if way == "flops":
        from torch.utils.flop_counter import FlopCounterMode

        with FlopCounterMode(display=False) as counter:
            step()
        flops = counter.get_total_flops()
        return lambda: flops
    return step


def _serve(pipe, make: Callable[..., Callable[[], object]], arguments: tuple) -> None:
    warnings.simplefilter("ignore")
    run = make(*arguments)
    for _ in range(2):
        run()
    pipe.send(None)
    while pipe.recv():
        began = time.perf_counter()
        result = run()
        pipe.send(result if isinstance(result, int) else time.perf_counter() - began)


def in_turn(sides: dict[str, tuple], rounds: int = ROUNDS) -> dict[str, float]:
    """Median of what each side, (function that makes it, arguments), takes; each in a process of its own, in turn."""
    context = mp.get_context("spawn")
    workers = {}
    for name, (make, *arguments) in sides.items():
        here, there = context.Pipe()
        process = context.Process(target=_serve, args=(there, make, tuple(arguments)), daemon=True)
        process.start()
        here.recv()  # ready: one at a time, so that none warms up beside another
        workers[name] = (here, process)
    taken: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, (pipe, _process) in workers.items():
            pipe.send(True)
            taken[name].append(pipe.recv())
    for pipe, process in workers.values():
        pipe.send(False)
        process.join()
    return {name: statistics.median(values) for name, values in taken.items()}


def paint() -> None:
    """Seconds a picture: ours, and the others' as multiples of it; and pictures a second where many follow."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    others = [name for name in ("onnxruntime", "openvino") if find_spec(name) and find_spec("onnxscript")]
    print(
        "\n| network, side | ours, s | frames/s | of a stream | "
        + " | ".join(f"{n} / ours" for n in ("plain", "float32", *others)),
        end="",
    )
    print(" | arithmetic at float32 peak / ours |\n" + "| --- " * (7 + len(others)) + "|")
    for name in ("gallery", "full"):
        for side in SIDES:
            engines = ["plain", "ours float32", "ours", "stream", *(others if side <= 1024 else [])]
            rounds = ROUNDS if side <= 1024 else 3
            taken = in_turn({"peak": (peak,), **{e: (painter, e, name, side) for e in engines}}, rounds)
            with FlopCounterMode(display=False) as counter, torch.no_grad():
                network_of(name)(torch.rand(1, 3, side, side))
            ideal = counter.get_total_flops() / (2 * 9 * 128 * 128 * 128 * 128 / taken["peak"])
            ours = taken["ours"]
            ratios = [f"{taken[e] / ours:.2f}" if e in taken else "-" for e in ("plain", "ours float32", *others)]
            rates = [f"{1 / ours:.1f}", f"{STREAM / taken['stream']:.1f}"]
            row = [f"{name}, {side}", f"{ours:.3f}", *rates, *ratios, f"{ideal / ours:.2f}"]
            print("| " + " | ".join(row) + " |", flush=True)


def kernels() -> None:
    """The kernels of the installation against those compiled for this very processor, and against none.

    They take turns in one process: two processes differ by more, for instance in where their memory lies.
    """
    import torch
    from skimage import data

    from perceptual import Stylizer, keep_memory
    from perceptual.fast import kernels as passes
    from perceptual.fast import library, native

    libraries = {"installed": library.installed(), "compiled here": native.compiled_here(), "none": None}
    if not all(list(libraries.values())[:2]):
        sys.exit("There are no kernels to compare: install with a C compiler in the path.")
    keep_memory()
    stylizer = Stylizer.load("starry_night", device="cpu")
    picture = torch.from_numpy(data.astronaut()).permute(2, 0, 1)[None].repeat(1, 1, 2, 2)
    print("\n| precision, side | installed, s | compiled here / installed | none / installed | same bytes |")
    print("| --- | --- | --- | --- | --- |")
    for precision in ("int8", "float32"):
        for side in (256, 512, 1024):
            levels = picture[..., :side, :side].contiguous()
            taken: dict[str, list[float]] = {kind: [] for kind in libraries}
            paintings = {}
            for _ in range(4 * ROUNDS + 1):
                for kind in random.sample(list(libraries), 3):  # a painting's time depends on what ran before it
                    passes.compiled = lambda found=libraries[kind]: found
                    began = time.perf_counter()
                    paintings[kind] = stylizer.stylize(levels, precision=precision)
                    taken[kind].append(time.perf_counter() - began)
            seconds = {kind: statistics.median(values[1:]) for kind, values in taken.items()}
            ours = seconds["installed"]
            same = "yes" if torch.equal(paintings["installed"], paintings["compiled here"]) else "no"
            row = [f"{precision}, {side}", f"{ours:.4f}", f"{seconds['compiled here'] / ours:.3f}"]
            print("| " + " | ".join([*row, f"{seconds['none'] / ours:.3f}", same]) + " |", flush=True)


def precision() -> None:
    """PSNR of the fast way against the network in float32, for every shipped style, on four photographs."""
    import torch
    from skimage import data

    from perceptual import Stylizer, psnr
    from perceptual.checkpoints import gallery
    from perceptual.fast import Inference

    pictures = [
        torch.from_numpy(a).permute(2, 0, 1)[None]
        for a in (data.astronaut(), data.chelsea(), data.coffee(), data.rocket())
    ]
    print("\n| style | int8 | float32 | bands against whole, int8 | float32 |\n| --- | --- | --- | --- | --- |")
    for style in sorted(gallery()):
        stylizer = Stylizer.load(style)
        weights = stylizer._weights(None)
        rows = []
        for picture in pictures:
            x = picture.float() / 255
            with torch.no_grad():
                truth = stylizer.network(x, weights).clamp(0, 1)
            row = []
            for name in ("int8", "float32"):
                fast = Inference(stylizer.network, name)
                whole, bands = fast(x, weights), fast(x, weights, band=x.shape[-1] * 96)
                row += [psnr(whole, truth, color="rgb"), psnr(bands, whole, color="rgb")]
            rows.append(row)
        least = [min(column) for column in zip(*rows, strict=True)]
        print(f"| {style} | {least[0]:.1f} | {least[2]:.1f} | {least[1]:.1f} | {least[3]:.1f} |", flush=True)


def cold() -> None:
    """`perceptual stylize` from the shell at 1024 px, against Python importing PyTorch and nothing else."""
    with tempfile.TemporaryDirectory() as folder:
        source = picture_file(Path(folder), 1024 * 1024)
        stylize = stylizing(source)
        commands = {"import torch": [sys.executable, "-c", "import torch"], "stylize": stylize}
        taken: dict[str, list[float]] = {name: [] for name in commands}
        for turn in range(6):
            for name, command in commands.items():
                began = time.perf_counter()
                subprocess.run(command, check=True, capture_output=True)
                if turn:
                    taken[name].append(time.perf_counter() - began)
    first, second = (statistics.median(values) for values in taken.values())
    print(f"\ncold start, 1024 px: {second:.2f} s; `import torch` alone {first:.2f} s; ratio {second / first:.2f}")


def picture_file(folder: Path, pixels: float) -> Path:
    """A JPEG of about so many pixels, 4 : 3, made of scikit-image's astronaut."""
    from PIL import Image
    from skimage import data

    height = int((pixels * 3 / 4) ** 0.5)
    Image.fromarray(data.astronaut()).resize((height * 4 // 3, height), Image.Resampling.BICUBIC).save(folder / "p.jpg")
    return folder / "p.jpg"


def stylizing(source: Path) -> list[str]:
    """The command that paints a file, into a PNG beside it."""
    out = source.with_suffix(".png")
    return [sys.executable, "-m", "perceptual", "stylize", str(source), "-o", str(out)]


def large() -> None:
    """Seconds and memory of `perceptual stylize` by size, each in a process of its own."""
    print("\n| megapixels | seconds | s / megapixel | peak memory, GB |\n| --- | --- | --- | --- |")
    for megapixels in MEGAPIXELS:
        with tempfile.TemporaryDirectory() as folder:
            source = picture_file(Path(folder), megapixels * 1e6)
            code = (
                "import resource, subprocess, sys\n"
                "text = subprocess.run(sys.argv[1:], check=True, capture_output=True, text=True).stderr\n"
                "print(text.split(' in ')[1].split()[0], resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
            )
            stylize = stylizing(source)
            told = subprocess.run([sys.executable, "-c", code, *stylize], check=True, capture_output=True, text=True)
        seconds, kilobytes = map(float, told.stdout.split())
        print(f"| {megapixels:g} | {seconds:.1f} | {seconds / megapixels:.2f} | {kilobytes / 1e6:.2f} |", flush=True)


def train() -> None:
    """A training step: ours against plain, and the share of it that is arithmetic at the float32 peak."""
    taken = in_turn(
        {"peak": (peak,), "ours": (trainer, "ours"), "plain": (trainer, "plain"), "flops": (trainer, "flops")}
    )
    rate = 2 * 9 * 128 * 128 * 128 * 128 / taken["peak"]
    share = taken["flops"] / rate / taken["ours"]
    print(
        f"\ntraining step of `fast`: {taken['ours']:.3f} s; plain / ours {taken['plain'] / taken['ours']:.2f};", end=" "
    )
    print(f"{taken['flops'] / 1e9:.0f} GFLOP at a peak of {rate / 1e9:.0f} GFLOP/s are {share:.0%} of it")
    with tempfile.TemporaryDirectory() as folder:
        from perceptual.data import Photographs

        picture_file(Path(folder), 640 * 480)
        pictures, began = Photographs(folder, 256), time.perf_counter()
        for k in range(100):
            pictures[k]
    reading = (time.perf_counter() - began) / 100
    print(f"a crop of 256 px read from a JPEG of 640 x 480: {1000 * reading:.1f} ms,", end=" ")
    print(f"{reading / taken['ours']:.1%} of a step")


PARTS = {"paint": paint, "kernels": kernels, "precision": precision, "cold": cold, "large": large, "train": train}

if __name__ == "__main__":
    print(f"{os.cpu_count()} processors")
    for part in sys.argv[1:] or PARTS:
        PARTS[part]()
