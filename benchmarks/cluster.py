"""Pictures per second of `--engine ray` on this machine, and what a million and a billion pictures need at that rate.

python benchmarks/cluster.py [PICTURES] [SIDE] [NAME=CORES[:PRICE] ...]

JPEGs of SIDE x SIDE px (512 by default) in a folder are decoded, painted and encoded: PICTURES of them (60 by default)
by a plain loop in one process with one thread, by one worker of a Ray cluster, by two workers, and by the loop again.
Start-up is not counted: it is printed alone. Printed: pictures per second, their ratio to the mean of both loops, and
the core seconds that a picture takes, which stay about the same where other programs use the processor too.

Then, from the core seconds with two workers, for each machine that is named: its hours for a million pictures, and how
many machines make a billion in a week. CORES is its number of physical cores, of the kind that this is measured on.
PRICE is what it costs in an hour; with it the costs are printed too. No prices are known here: they change, and differ
between places. Reading and writing S3 is not measured; a worker does it while it paints another picture. Needs
`pip install 'perceptual[ray]' scikit-image`.
"""

import os
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")

import skimage.data
import torch
from PIL import Image

from perceptual import Stylizer, keep_memory
from perceptual.apply import Outcome
from perceptual.apply.files import Work, convert_files
from perceptual.cache import processor
from perceptual.cluster import Convert, Naming, on_ray, plan, work_here
from perceptual.config import EngineConfig
from perceptual.fast import prepare_kernels

NAMES = ("astronaut", "cat", "coffee", "rocket")
WARM = 6
"""Results that are not counted, for each worker: its first ones are slow, and all must be at work."""
WEEK = 7 * 24


def start(style: str) -> Convert:
    """What each worker does: the work of `perceptual stylize`."""
    stylizer = Stylizer.load(style, device="cpu")
    prepare_kernels(compile_here=os.environ.get("PERCEPTUAL_KERNELS") == "compile")

    def convert(source: Path, target: Path) -> Outcome:
        made = next(convert_files([(source, target)], Work(stylizer.stylize)))
        return replace(made, facts={os.getpid(): time.process_time()})

    return convert


def fill(folder: Path, count: int, side: int) -> None:
    """Write JPEGs of that side."""
    folder.mkdir()
    for number in range(count):
        picture = Image.fromarray(getattr(skimage.data, NAMES[number % len(NAMES)])()).convert("RGB")
        picture.resize((side, side)).save(folder / f"{number:06}.jpg", quality=90)


class Measured(NamedTuple):
    """rate: pictures per second. cost: core seconds for a picture. first: seconds until the first one."""

    rate: float
    cost: float
    first: float


def measured(results: Iterable[Outcome | None], warm: int) -> Measured:
    """What the pictures after the first `warm` ones take."""
    began, times, spent = time.perf_counter(), list[float](), defaultdict[Any, list[float]](list)
    for result in results:
        if result is not None:
            assert result.error is None, result.error
            times.append(time.perf_counter())
            for process, seconds in result.facts.items():
                spent[process].append(seconds)
    used = [(max(each[WARM - 1 :]) - each[WARM - 1], len(each) - WARM) for each in spent.values()]
    cost = sum(seconds for seconds, _ in used) / sum(count for _, count in used)
    return Measured((len(times) - warm) / (times[-1] - times[warm - 1]), cost, times[0] - began)


def told(text: str, cost: float) -> str:
    """The line about one machine. cost: core seconds for a picture."""
    name, _, rest = text.partition("=")
    cores, _, price = rest.partition(":")
    hours = 1e6 * cost / int(cores) / 3600
    line = (
        f"  {name:16} {cores:>4} cores: {hours:7.2f} hours for a million; {1e3 * hours / WEEK:7.1f} make 1e9 in a week"
    )
    if price:
        line += f"; {hours * float(price):,.2f} for a million, {1e3 * hours * float(price):,.0f} for 1e9"
    return line


def main() -> None:
    """Print a line for each way, and one for each machine."""
    numbers = [int(word) for word in sys.argv[1:] if word.isdigit()]
    count, side = (*numbers, *(60, 512)[len(numbers) :])
    machines = [word for word in sys.argv[1:] if "=" in word] or ["1 core=1", "c7a.4xlarge=16", "c7a.16xlarge=64"]
    torch.set_num_threads(1)
    keep_memory()
    load = partial(start, "starry_night")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        fill(folder / "in", count, side)

        def pairs(out: str) -> list[tuple[str, str]]:
            return plan([str(folder / "in")], str(folder / out), Naming()).pairs

        loops = [measured(work_here(pairs("a"), load), WARM)]
        import ray

        began = time.perf_counter()
        ray.init("local", num_cpus=2, include_dashboard=False, object_store_memory=100 << 20, log_to_driver=False)
        name = processor().splitlines()[0].rpartition(":")[2].strip()
        print(f"processor: {name}; {count} pictures of {side} px; Ray {ray.__version__}")
        print(f"a cluster of this machine starts in {time.perf_counter() - began:.1f} s")
        ways = {}
        for workers in (1, 2):
            config = EngineConfig(engine="ray", workers=workers)
            ways[workers] = measured(on_ray(pairs(f"ray{workers}"), load, config, "cpu"), WARM * workers)
        ray.shutdown()
        loops.append(measured(work_here(pairs("b"), load), WARM))
    loop = sum(each.rate for each in loops) / 2
    for name, each in zip(("plain loop before", "plain loop after"), loops, strict=True):
        print(f"{name:18} {each.rate:6.2f} pictures per second, {each.cost:.3f} core seconds each")
    for workers, each in ways.items():
        name, ratio = f"Ray, {workers} worker(s)", each.rate / loop
        print(f"{name:18} {each.rate:6.2f} pictures per second, {each.cost:.3f} core seconds each", end="")
        print(f", {ratio:.2f} times the loop; the first after {each.first:.1f} s")
    print(f"at {ways[2].cost:.3f} core seconds for a picture:")
    for machine in machines:
        print(told(machine, ways[2].cost))


if __name__ == "__main__":
    main()
