"""Painting beside other work: threads that spin while they wait, and threads that sleep.

python benchmarks/busy.py [RUNS]

Times the whole command `perceptual stylize` on eight photographs of 640 x 360 px, with 0, 1 and 2 other processes that
keep a core busy each, in turn: with threads that spin (libgomp's default for idle computers), with threads that sleep
(OMP_WAIT_POLICY=PASSIVE), and as the command chooses. Prints the median seconds, and each as a ratio to spinning
threads on the idle computer.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import skimage.data
from PIL import Image

RUNS = int(sys.argv[1]) if len(sys.argv) > 1 else 3
PLAIN = {name: value for name, value in os.environ.items() if name not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
WAYS = {
    "spinning": {**PLAIN, "GOMP_SPINCOUNT": "300000"},
    "sleeping": {**PLAIN, "OMP_WAIT_POLICY": "PASSIVE"},
    "as chosen": PLAIN,
}

with tempfile.TemporaryDirectory() as name:
    folder = Path(name)
    (folder / "in").mkdir()
    for number in range(8):
        Image.fromarray(skimage.data.astronaut()).resize((640, 360)).save(folder / "in" / f"{number}.png")
    command = [sys.executable, "-c", "from perceptual.cli import entry; entry()"]
    command += ["stylize", str(folder / "in"), "-o", str(folder / "out"), "--overwrite"]
    subprocess.run(command, env=PLAIN, check=True, capture_output=True)  # kernels and caches
    seconds: dict[tuple[int, str], list[float]] = {}
    for _ in range(RUNS):
        for burners in (0, 1, 2):
            others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(burners)]
            try:
                for way, environment in WAYS.items():
                    began = time.perf_counter()
                    subprocess.run(command, env=environment, check=True, capture_output=True)
                    seconds.setdefault((burners, way), []).append(time.perf_counter() - began)
            finally:
                for other in others:
                    other.kill()
                    other.wait()
    idle = statistics.median(seconds[0, "spinning"])
    print(f"| other processes | {' | '.join(WAYS)} |")
    print("| --- " * (1 + len(WAYS)) + "|")
    for burners in (0, 1, 2):
        cells = [statistics.median(seconds[burners, way]) for way in WAYS]
        print(f"| {burners} | " + " | ".join(f"{cell:.2f} s, {cell / idle:.2f}" for cell in cells) + " |")
