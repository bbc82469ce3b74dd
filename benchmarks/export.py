"""What an exported file costs: its parity with PyTorch, its size, and its time against PyTorch and against float32.

python benchmarks/export.py [NETWORK ...]      by default starry_night_solo, gallery and x4_pixel

Each network is exported in float32, float16 and int8, and run in onnxruntime and, where it is installed, OpenVINO, on
the CPU with the threads of PyTorch. All sides take turns on one picture of 256 x 256 px. The times are ratios to the
network in PyTorch, eager, in float32: below 1 is faster.
"""

import sys
import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import torch
from timing import in_turn

from perceptual import export, keep_memory
from perceptual.export import Graph
from perceptual.export.parity import feed, picture, session

SIDE = 256


def in_openvino(path: Path, inputs: dict[str, torch.Tensor]) -> Callable[[], object]:
    """The file in OpenVINO."""
    import openvino

    settings = {"INFERENCE_NUM_THREADS": torch.get_num_threads(), "INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(str(path), "CPU", settings)
    return lambda: compiled(feed(inputs))[0]


def in_onnxruntime(path: Path, inputs: dict[str, torch.Tensor]) -> Callable[[], object]:
    """The file in onnxruntime."""
    ready = session(path.read_bytes())
    return lambda: ready.run(None, feed(inputs))[0]


def rows(name: str, folder: Path) -> None:
    """Print the lines of one network."""
    graph = Graph(export.find(name), levels=False)
    inputs = graph.inputs(picture(SIDE, SIDE))
    engines = {"onnxruntime": in_onnxruntime} | ({"OpenVINO": in_openvino} if find_spec("openvino") else {})
    made, sides = {}, {"PyTorch": lambda: graph(**inputs)}
    for precision in ("float32", "float16", "int8"):
        made[precision] = export.export_onnx(name, folder / f"{name}-{precision}.onnx", precision=precision)
        for engine, start in engines.items():
            sides[f"{engine} {precision}"] = start(made[precision].path, inputs)
    with torch.no_grad():
        seconds = in_turn(sides)
        wanted = graph(**inputs)
    for precision, each in made.items():
        sizes = each.parities[2:]  # the smallest pictures say little about photos
        least, most = min(p.decibels for p in sizes), max(p.levels for p in sizes)
        cells = [name, precision, f"{each.size / 1e6:.1f}", f"{least:.0f}", f"{most:.2g}"]
        for engine in engines:
            side = f"{engine} {precision}"
            away = (torch.as_tensor(sides[side]()) - wanted).abs().max() * 255
            cells += [f"{seconds[side] / seconds['PyTorch']:.2f}", f"{away:.2g}"]
        print(f"| {' | '.join(cells)} |", flush=True)


def main() -> None:
    """Print the table."""
    keep_memory()
    engines = ["onnxruntime", *(["OpenVINO"] if find_spec("openvino") else [])]
    head = ["network", "precision", "MB", "least PSNR, dB", "most levels"]
    head += [text for engine in engines for text in (f"{engine} / PyTorch", f"levels in {engine}")]
    print(f"| {' | '.join(head)} |\n{'| --- ' * len(head)}|")
    with tempfile.TemporaryDirectory() as folder:
        for name in sys.argv[1:] or ("starry_night_solo", "gallery", "x4_pixel"):
            rows(name, Path(folder))


if __name__ == "__main__":
    main()
