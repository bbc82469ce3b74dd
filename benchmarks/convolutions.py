"""What kernel size and precision cost, forward and backward: the reasons for the lean network's choices.

python benchmarks/convolutions.py [ROUNDS]
"""

import sys
from collections.abc import Callable

import torch
from timing import in_turn

from perceptual.devices import channels_last

rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 7


def both_ways(channels: int, filters: int, kernel: int, size: int, dtype: torch.dtype) -> Callable[[], None]:
    conv = channels_last(torch.nn.Conv2d(channels, filters, kernel, padding=kernel // 2).to(dtype))
    x = torch.randn(4, channels, size, size, dtype=dtype).contiguous(memory_format=torch.channels_last)
    x.requires_grad_(channels > 3)  # no gradient reaches the image

    def run() -> None:
        conv.zero_grad()
        conv(x).sum().backward()

    return run


f32, bf16 = torch.float32, torch.bfloat16
times = in_turn(
    {
        "9 x 9 first": both_ways(3, 16, 9, 256, f32),
        "5 x 5 first": both_ways(3, 16, 5, 256, f32),
        "9 x 9 last": both_ways(16, 3, 9, 256, f32),
        "5 x 5 last": both_ways(16, 3, 5, 256, f32),
        "float32 block": both_ways(128, 128, 3, 64, f32),
        "bfloat16 block": both_ways(128, 128, 3, 64, bf16),
    },
    rounds=rounds,
)
for name, seconds in times.items():
    print(f"{name:16} {1000 * seconds:6.0f} ms")
print(f"9 x 9 over 5 x 5: first {times['9 x 9 first'] / times['5 x 5 first']:.1f}", end=", ")
print(f"last {times['9 x 9 last'] / times['5 x 5 last']:.1f}", end="; ")
print(f"bfloat16 over float32 {times['bfloat16 block'] / times['float32 block']:.1f}")
