"""What `perceptual serve` costs: its throughput against a plain loop, and the seconds that clients wait.

python benchmarks/serve.py [PICTURES] [SIDE]

1, 8 and 64 clients on this computer send JPEGs of SIDE x SIDE px (512 by default), each client one after the other,
PICTURES (192 by default) in all. Before and after each of these runs, a plain loop in this process decodes, paints and
encodes the same JPEGs; its throughput is the mean of the two. Printed: pictures per second and their ratio to the loop,
and the median and the 99th percentile of the seconds from sending to receiving.

The last lines say what a batch brings: eight pictures at once through the network in PyTorch, against eight calls, and
against eight calls of the fast inference that the service uses. Needs `pip install 'perceptual[serve]' scikit-image`.
"""

import http.client
import io
import os
import re
import statistics
import subprocess
import sys
import threading
import time

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # for both sides: spinning threads are slow on a busy computer

import skimage.data
import torch
from PIL import Image
from timing import in_turn

from perceptual import Stylizer, images, keep_memory
from perceptual.fast import prepare_kernels

CLIENTS = (1, 8, 64)
NAMES = ("astronaut", "cat", "coffee", "rocket")


def pictures(side: int) -> list[bytes]:
    """JPEGs of that side."""
    found = []
    for name in NAMES:
        buffer = io.BytesIO()
        Image.fromarray(getattr(skimage.data, name)()).convert("RGB").resize((side, side)).save(
            buffer, "JPEG", quality=90
        )
        found.append(buffer.getvalue())
    return found


def plain(stylizer: Stylizer, jpegs: list[bytes], count: int) -> float:
    """Pictures per second of a loop without a service."""
    began = time.perf_counter()
    for number in range(count):
        picture = images.read_bytes(jpegs[number % len(jpegs)], levels=True, own_colours=True)
        images.as_bytes(images.Picture(stylizer.stylize(picture.pixels)), ".jpg")
    return count / (time.perf_counter() - began)


def served(port: int, jpegs: list[bytes], clients: int, count: int) -> tuple[float, list[float]]:
    """Pictures per second with that many clients, and the seconds that each picture took."""
    seconds: list[float] = []
    each = max(1, count // clients)

    def client() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port)
        for number in range(each):
            began = time.perf_counter()
            connection.request("POST", "/stylize", jpegs[number % len(jpegs)])
            reply = connection.getresponse()
            assert reply.read()[:2] == b"\xff\xd8", reply.status
            seconds.append(time.perf_counter() - began)
        connection.close()

    threads = [threading.Thread(target=client) for _ in range(clients)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return each * clients / (time.perf_counter() - began), seconds


def batch(stylizer: Stylizer, side: int) -> None:
    """Print what a batch of eight brings on a CPU."""
    pixels = torch.rand(8, 3, side, side)
    weights = torch.zeros(1, stylizer.network.styles)
    weights[0, 0] = 1
    noise = torch.rand(1, 1, side, side) if stylizer.network.config.noise else None

    def at_once() -> None:
        with torch.no_grad():
            stylizer.forward(pixels, weights, noise)

    def one_by_one() -> None:
        with torch.no_grad():
            for each in pixels.split(1):
                stylizer.forward(each, weights, noise)

    def fast() -> None:
        stylizer.stylize(pixels)

    times = in_turn({"at once": at_once, "one by one": one_by_one, "fast": fast}, rounds=3)
    print(f"8 pictures of {side} px: a batch in PyTorch {times['at once']:.3f} s")
    print(f"  one by one in PyTorch takes {times['one by one'] / times['at once']:.2f} times as long as the batch")
    print(f"  one by one by fast inference takes {times['fast'] / times['at once']:.2f} times as long as the batch")


def main() -> None:
    """Start a service, and print a line for each number of clients."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 192
    side = int(sys.argv[2]) if len(sys.argv) > 2 else 512
    jpegs = pictures(side)
    keep_memory()
    prepare_kernels(compile_here=os.environ.get("PERCEPTUAL_KERNELS") == "compile")
    stylizer = Stylizer.load("starry_night")
    command = [sys.executable, "-m", "perceptual", "serve", "--port", "0", "--max-queue", "64"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        port = int(re.search(r":(\d+)/", process.stdout.readline())[1])
        served(port, jpegs, 1, 4)
        plain(stylizer, jpegs, 4)
        loops = [plain(stylizer, jpegs, count // 4)]
        print(f"{'clients':>8} {'per second':>11} {'of the loop':>12} {'p50 s':>8} {'p99 s':>8}")
        for clients in CLIENTS:
            rate, seconds = served(port, jpegs, clients, count)
            loops.append(plain(stylizer, jpegs, count // 4))
            p99 = statistics.quantiles(seconds, n=100, method="inclusive")[98]
            loop = statistics.mean(loops[-2:])
            print(f"{clients:8} {rate:11.2f} {rate / loop:12.2f} {statistics.median(seconds):8.3f} {p99:8.3f}")
        print(f"the loop: {statistics.mean(loops):.2f} pictures per second")
        process.terminate()
        process.wait()
        print(f"exit code after SIGTERM: {process.returncode}")
    batch(stylizer, 256)


if __name__ == "__main__":
    main()
