"""Networks on a GPU: float16, CUDA graphs for pictures of one size, and copies through pinned memory.

It was run on one NVIDIA H200. The tests run it on a CPU, with a graph that records PyTorch's operations and repeats
them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress

import torch
from torch import Tensor

Function = Callable[..., tuple[Tensor, ...]]
Inputs = Sequence[Tensor | None]

EAGER = 3
"""Number of calls with one size that run without a CUDA graph. A graph costs about as much as several calls."""


def half_precision(device: torch.device) -> torch.dtype | None:
    """The precision of networks on a device when `precision` is auto: float16 on a GPU, None for float32.

    Only convolutions run in float16. A norm computes its statistics in float32, because a variance can be larger than
    65,504, the largest number of float16. Pixels stay in float32 too.
    """
    return torch.float16 if device.type in ("cuda", "mps") else None


def send(x: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor to a device. On CUDA the copy does not block: the tensor is first put into pinned memory."""
    if device.type == "cuda" and x.device.type == "cpu":
        return x.pin_memory().to(device, non_blocking=True)
    return x.to(device)


def fetch(x: Tensor) -> Tensor:
    """Copy a tensor to the CPU. From CUDA it goes into pinned memory, which is several times faster."""
    if x.device.type != "cuda":
        return x.cpu()
    pinned = torch.empty_like(x, device="cpu", pin_memory=True)
    pinned.copy_(x, non_blocking=True)
    torch.cuda.current_stream(x.device).synchronize()
    return pinned


class Graphs:
    """Calls a function of tensors on a CUDA GPU, from a CUDA graph where the sizes repeat.

    A graph starts all kernels of a network at once, so the CPU does not limit the speed for small pictures. A call with
    another size than the last one runs without a graph, and so does every call after a graph could not be recorded.
    One graph is kept at a time, because it keeps the memory of all activations.

    function: from tensors on the GPU, or None, to tensors. It must not wait for the GPU.
    """

    def __init__(self, function: Function) -> None:
        self.function = function
        self._sizes: Sequence[object] = ()
        self._calls, self._possible = 0, True
        self._graph: _Graph | None = None
        self._lock = threading.Lock()  # a graph has one set of inputs

    def __call__(self, *inputs: Tensor | None) -> tuple[Tensor, ...]:
        sizes = [None if x is None else (x.shape, x.dtype) for x in inputs]
        with self._lock:
            if sizes != self._sizes:
                self._sizes, self._calls, self._graph = sizes, 0, None
            self._calls += 1
            if self._calls > EAGER and self._graph is None and self._possible:
                self._possible = False  # unless the next lines succeed
                with suppress(RuntimeError):  # the memory is short, or an operation cannot be recorded
                    self._graph, self._possible = _Graph(self.function, inputs), True
            return self.function(*inputs) if self._graph is None else self._graph(inputs)


class _Graph:
    """A function that was recorded for inputs of one size."""

    def __init__(self, function: Function, inputs: Inputs) -> None:
        self.inputs = [None if x is None else x.clone() for x in inputs]
        device = next(x.device for x in inputs if x is not None)
        cudnn = torch.backends.cudnn
        measured = cudnn.flags(enabled=True, benchmark=True, allow_tf32=cudnn.allow_tf32)  # the fastest algorithms
        with torch.cuda.device(device), measured:
            side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(2):  # algorithms are chosen and memory is reserved before the recording
                    function(*self.inputs)
            torch.cuda.current_stream().wait_stream(side)
            self.graph = torch.cuda.CUDAGraph()
            # thread_local: other threads may use the GPU meanwhile
            with torch.cuda.graph(self.graph, stream=side, capture_error_mode="thread_local"):
                self.outputs = function(*self.inputs)

    def __call__(self, inputs: Inputs) -> tuple[Tensor, ...]:
        for own, x in zip(self.inputs, inputs, strict=True):
            if own is not None and x is not None:
                own.copy_(x, non_blocking=True)
        self.graph.replay()
        return tuple(output.clone() for output in self.outputs)
