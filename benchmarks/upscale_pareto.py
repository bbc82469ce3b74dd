"""Super-resolution networks side by side: quality against time, memory and size, in one run.

python benchmarks/upscale_pareto.py SETS [--scale 4] [--networks FILE ...] [--realesrgan animevideov3 x4plus]
    [--side 256] [--processor-seconds] [--plot PLOT.png]

SETS has folders of pictures, such as Set5 and Set14. FILE may be a network of another program.
--realesrgan adds Real-ESRGAN at x4 (realesrgan.py says what it needs); x4plus is slow. The table has the number
of weights; for each set PSNR on Y (dB) and LPIPS (AlexNet; smaller is closer); the median seconds for a square 8-bit
picture of SIDE pixels, measured in turn; megapixels a second of the result; and the peak memory of a process for it,
less that of one that enlarges 16 px by bicubic interpolation. --processor-seconds counts the time
that the process computes, for a busy computer: run it on one core then, by taskset -c 0.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

import realesrgan
import torch
from matplotlib.figure import Figure
from timing import in_turn

from perceptual.apply.upscaler import Upscaler
from perceptual.checkpoints import shipped
from perceptual.events import finish
from perceptual.measure.metrics import PerceptualDistance
from perceptual.measure.super_resolution import Method, bicubic, evaluate, means, read_sets

PEAK = "peak"


def picture(side: int) -> torch.Tensor:
    """A picture of 8 bits, (1, 3, side, side)."""
    return torch.randint(0, 256, (1, 3, side, side), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def enlarge_by(network: str, scale: int) -> Method:
    """bicubic, a model of Real-ESRGAN with its prefix, or a network by its name or file."""
    if network.startswith(realesrgan.PREFIX):
        return realesrgan.method(network.removeprefix(realesrgan.PREFIX))
    return bicubic(scale) if network == "bicubic" else Upscaler.load(network).upscale


def peak(network: str, scale: int, side: int) -> float:
    """Peak memory in bytes of another process that enlarges a picture."""
    words = [sys.executable, __file__, PEAK, network, str(scale), str(side)]
    return float(subprocess.run(words, check=True, capture_output=True, text=True).stdout)


def print_peak(network: str, scale: int, side: int) -> None:
    """What the other process does. Its `ru_maxrss` would begin at that of this process, so Linux's VmHWM is read."""
    enlarge_by(network, scale)(picture(side).float() / 255 if network == "bicubic" else picture(side))
    status = Path("/proc/self/status").read_text()
    print(next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) * 1024)


def main() -> None:
    """Print the table, and draw the plot."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sets")
    parser.add_argument("--scale", type=int, default=4)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--networks", nargs="*", default=[])
    parser.add_argument("--realesrgan", nargs="*", default=[], choices=list(realesrgan.MODELS))
    parser.add_argument("--processor-seconds", action="store_true")
    parser.add_argument("--plot", type=Path)
    arguments = parser.parse_args()
    scale, side = arguments.scale, arguments.side
    if arguments.realesrgan and scale != 4:
        parser.error("--realesrgan is for --scale 4.")
    own = [name for name in shipped.networks("upscale") if name.startswith(f"x{scale}_")]
    loaded = {Path(name).stem: (name, Upscaler.load(name)) for name in [*own, *arguments.networks]}
    weights = {name: sum(p.numel() for p in each.network.parameters()) for name, (_, each) in loaded.items()}
    methods: dict[str, Method] = {"bicubic": bicubic(scale)}
    methods |= {name: each.upscale for name, (_, each) in loaded.items()}
    files = {name: file for name, (file, _) in loaded.items()}
    if arguments.realesrgan:
        peers = realesrgan.methods(arguments.realesrgan)
        methods, files = methods | peers, files | {name: name for name in peers}
        weights |= {name: realesrgan.weights(name) for name in peers}
    lpips = {"lpips": PerceptualDistance.lpips("alex")}
    sets = read_sets(arguments.sets, scale)
    lines = means(finish(evaluate(sets, methods, scale, distances=lpips)))
    clock = time.process_time if arguments.processor_seconds else time.perf_counter
    small = {name: picture(side) if name in files else picture(side).float() / 255 for name in methods}
    seconds = in_turn({name: lambda name=name: methods[name](small[name]) for name in methods}, rounds=5, clock=clock)
    base = peak("bicubic", scale, 16)
    print(f"| network | weights | {' | '.join(sets)} | seconds | megapixels/s | memory, MB |")
    print("| --- " * (5 + len(sets)) + "|")
    points = {}
    for name in methods:
        found = [line for line in lines if line["method"] == name]
        quality = [f"{line['psnr']:.2f} / {line['lpips']:.3f}" for line in found]
        more = (peak(files.get(name, name), scale, side) - base) / 1e6
        speed = (side * scale) ** 2 / 1e6 / seconds[name]
        points[name] = seconds[name], found[0]["psnr"], found[0]["lpips"]
        cells = [f"{weights.get(name, 0):,}", *quality, f"{seconds[name]:.3f}", f"{speed:.1f}", f"{more:.0f}"]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)
    if arguments.plot:
        label = "processor seconds" if arguments.processor_seconds else "seconds"
        draw(points, next(iter(sets)), label, arguments.plot)


def draw(points: dict[str, tuple[float, float, float]], title: str, time_label: str, file: Path) -> None:
    """Draw PSNR and LPIPS against the seconds."""
    figure = Figure((9, 3.8), layout="constrained")
    for column, (axis, label) in enumerate(zip(figure.subplots(1, 2), ("PSNR, dB", "LPIPS"), strict=True), start=1):
        for place, (name, values) in enumerate(sorted(points.items(), key=lambda item: item[1][column])):
            axis.scatter(values[0], values[column])
            offset = 5, -4 + 9 * (place % 2)  # neighbours may be equally good: their names would cover each other
            axis.annotate(name, (values[0], values[column]), xytext=offset, textcoords="offset points", fontsize=8)
        axis.set(title=title, xlabel=time_label, ylabel=label, xscale="log")
        axis.set_xlim(right=8 * max(values[0] for values in points.values()))  # room for the last name
    figure.savefig(file, dpi=120)


if __name__ == "__main__":
    if sys.argv[1:2] == [PEAK]:
        print_peak(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
    else:
        main()
