"""Training steps per second of two processes against one, with one thread each, on the same batch.

python benchmarks/processes.py PHOTOS PAINTING [ROUNDS]     (the weights of vgg16 must be on this computer)

Both sides are started by torchrun, in turn. The first step of each run is not counted. Two processes with one thread
each need two free cores.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

photos, painting, *more = sys.argv[1:]
rounds, steps = int(more[0]) if more else 2, 9
words = ["train", "style", "--style", painting, "--data", photos, "--recipe", "fast", "--weighting", "absolute"]
words += ["--batch", "2", "--size", "128", "--style-size", "256", "--precision", "float32", "--device", "cpu"]
words += ["--steps", str(steps), "--tick-every", "1", "--preview-every", "0", "--workers", "0", "--overwrite"]
words += ["--style-layers", "vgg16:relu1_2", "vgg16:relu2_2", "vgg16:relu3_3"]  # VGG-16's first layers are enough


def seconds_per_step(processes: int, out: Path) -> float:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command = [*launcher, "-m", "perceptual", *words, "--quiet", "--out", str(out)]
    subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    lines = [json.loads(line) for line in out.with_suffix(".jsonl").read_text().splitlines()]
    first, last = lines[0], lines[-1]
    return (last["step"] * last["seconds_per_step"] - first["seconds_per_step"]) / (last["step"] - 1)


with tempfile.TemporaryDirectory() as folder:
    times = {1: [], 2: []}
    for _ in range(rounds):
        for processes, found in times.items():
            found.append(seconds_per_step(processes, Path(folder) / "net.safetensors"))
one, two = (statistics.median(found) for found in times.values())
print(f"{1 / one:.2f} steps per second with one process, {1 / two:.2f} with two: {one / two:.2f} times as many")
