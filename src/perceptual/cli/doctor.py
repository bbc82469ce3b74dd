"""perceptual doctor: what is installed, what this computer has, which path will be taken, and what is missing."""

from __future__ import annotations

import dataclasses
import os
import platform
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from perceptual.cli import results
from perceptual.cli.help import parse
from perceptual.cli.packages import OPTIONAL, REQUIRED, Check, optional, required
from perceptual.cli.terminal import FAILED, fail, show

REINSTALL = "pip install --force-reinstall perceptual"


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Doctor:
    """Print what is installed, what the processor has, which path will be taken, and what is missing.

    Each missing part is listed with the command that gets it. Nothing is downloaded, measured or changed. The exit code
    is 1 if an essential part does not work.
    Example: perceptual doctor
    perceptual doctor --json
    """


def doctor(arguments: Sequence[str]) -> int:
    """perceptual doctor: report the state of the installation. Returns the exit code, 1 if an essential part fails."""
    parse(_Doctor, arguments, "doctor")
    checks: list[Check] = []
    probes: dict[str, Callable[[], Iterator[Check]]] = {
        REQUIRED: required,
        OPTIONAL: optional,
        "Processor": _processor,
        "Path": _path,
        "Loss networks": _loss_networks,
        "Folders": _folders,
        "Memory": _memory,
    }
    for group, probe in probes.items():
        found = list(_guarded(group, probe, checks))
        if found:
            show(("\n" if checks else "") + group, lines=True)
        for check in found:
            show(f"  {'' if check.state == 'ok' else check.state:8} {check.name:26} {check.value}")
        checks += found
    return _end(checks)


def _guarded(group: str, probe: Callable[[], Iterator[Check]], before: Sequence[Check]) -> Iterator[Check]:
    """The checks of a probe. An error becomes a check of its own, because finding errors is what the command is for.

    before: the checks so far. If one of them is broken, it is the likely cause, so no other repair is named.
    """
    try:
        yield from probe()
    except Exception as error:
        why = " ".join(f"{type(error).__name__}: {error}".split())
        caused = any(check.state == "broken" for check in before)
        yield Check(group, "this check failed", why, "broken", "" if caused else REINSTALL)


def _end(checks: Sequence[Check]) -> int:
    """Print what is missing with its fix, and the verdict; the exit code."""
    broken = [check for check in checks if check.state == "broken"]
    results.put(healthy=not broken, checks=[check._asdict() for check in checks])
    if fixes := [check for check in checks if check.state != "ok" and check.fix]:
        show("\nWhat is missing, and how to get it", lines=True)
        for check in fixes:
            show(f"  {check.name:27} {check.fix}")
    if broken:
        names = ", ".join(dict.fromkeys(f"{check.group.lower()}: {check.name}" for check in broken))
        fail(f"Essential parts do not work ({names}): run the commands above.")
        return FAILED
    show("\nEverything essential works.", lines=True)
    return 0


_INSTRUCTIONS = {  # shown as: the flags of /proc/cpuinfo that mean it
    "AVX2": ("avx2",),
    "AVX-512": ("avx512f",),
    "VNNI": ("avx512_vnni", "avx_vnni"),
    "bfloat16": ("avx512_bf16", "bf16"),
    "AMX": ("amx_tile",),
    "NEON": ("asimd",),
    "SVE": ("sve",),
}


def _processor() -> Iterator[Check]:
    from perceptual.cache import processor, usable_processors

    fields = dict(line.partition(":")[::2] for line in processor().splitlines())
    name = next((value.strip() for key, value in fields.items() if key.strip() == "model name"), "")
    yield Check("Processor", "name", name or f"{platform.machine()} {platform.processor()}".strip())
    yield Check("Processor", "cores", f"{usable_processors()} usable of {os.cpu_count()}")
    flags = set(processor().split())
    has = [name for name, words in _INSTRUCTIONS.items() if flags & set(words)]
    yield Check("Processor", "instructions", ", ".join(has) or "unknown")
    import torch

    capability, threads = torch.backends.cpu.get_cpu_capability(), torch.get_num_threads()
    yield Check("Processor", "PyTorch uses", f"{capability}, {threads} thread{'s' * (threads != 1)}")
    for variable in ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "OMP_NUM_THREADS", "PERCEPTUAL_KERNELS"):
        if value := os.environ.get(variable):
            yield Check("Processor", "environment", f"{variable}={value}")
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    usable_gpu = torch.cuda.is_available()
    why = "none that this build of PyTorch can use" if not usable_gpu else ", ".join(gpus)
    yield Check("Processor", "GPU", why)


def _path() -> Iterator[Check]:
    """What painting, training and optimising will use; the smallest painting proves that it works."""
    import torch

    from perceptual import devices

    device = devices.choose_device()
    yield from _painting(device)
    if device.type == "cpu":
        gain = devices.bfloat16_gain()
        measured = f"measured: bfloat16 is {gain or 0:.2f} times as fast as float32"
        chosen = "bfloat16" if (gain or 0) > devices.BFLOAT16_GAIN else "float32"
        value = f"{chosen} ({measured})" if gain else "bfloat16 or float32: the first training measures which is faster"
    else:
        value = {"bf16": "bfloat16", "fp16": "float16", "no": "float32"}[devices.choose_precision(device)]
    compiled = "compiled" if devices.can_compile(device) else "eager"
    yield Check("Path", "training", f"{device.type}, {compiled}, {value}")
    yield Check("Path", "optimising", f"{device.type}, float32")
    try:
        from perceptual.apply import Stylizer
        from perceptual.checkpoints import shipped

        network = next(iter(shipped.networks("style")))
        Stylizer.load(network)(torch.zeros(1, 3, 16, 16))
        yield Check("Path", "test painting", f"16 x 16 px with {network}")
    except StopIteration:
        yield Check("Path", "test painting", "the shipped networks are missing", "broken", REINSTALL)


def _painting(device: Any) -> Iterator[Check]:
    from perceptual.fast import kernels_in_use, prepare_kernels, reads_bytes
    from perceptual.gpu import half_precision

    if device.type != "cpu":
        yield Check("Path", "painting", f"{device.type}, {'float16' if half_precision(device) else 'float32'}")
        return
    prepare_kernels(compile_here=os.environ.get("PERCEPTUAL_KERNELS") == "compile")
    kernels, precision = kernels_in_use(), "int8" if reads_bytes() else "float32"
    why = "" if precision == "int8" else " (the processor or this PyTorch has no exact 8-bit products)"
    yield Check("Path", "painting", f"cpu, {precision}{why}")
    if kernels:
        yield Check("Path", "compiled kernels", kernels)
    elif os.environ.get("PERCEPTUAL_KERNELS") == "0":
        yield Check("Path", "compiled kernels", "switched off by PERCEPTUAL_KERNELS=0", "missing",
                    "unset PERCEPTUAL_KERNELS")  # fmt: skip
    else:
        compiler = "" if shutil.which("gcc") or shutil.which("cc") else "install gcc, then: "
        fix = f"{compiler}export PERCEPTUAL_KERNELS=compile"
        value = "none, PyTorch's operations are used: the result is the same, but slower"
        yield Check("Path", "compiled kernels", value, "missing", fix if platform.system() == "Linux" else "")


def _loss_networks() -> Iterator[Check]:
    """The weights at hand, by name and size: their hashes are checked when they are loaded."""
    import torch

    from perceptual.losses.weights import PRETRAINED, find, weight_folders

    places = [*weight_folders(), Path(torch.hub.get_dir()) / "checkpoints"]
    for name, entry in PRETRAINED.items():
        path = find(entry.files, places)
        known = next((each for each in entry.files if path and each.file == path.name), None)
        fetch = f"perceptual weights fetch {name}" if entry.files[0].url else ""
        if path is None:
            yield Check("Loss networks", name, "not on this computer", "missing", fetch)
        elif known and known.size not in (None, (size := path.stat().st_size)):
            value = f"{path} has {size} bytes, not {known.size}"
            yield Check("Loss networks", name, value, "missing", f"delete {path}, then: {fetch}")
        else:
            yield Check("Loss networks", name, str(path))


def _folders() -> Iterator[Check]:
    from perceptual.cache import cache_folder

    cache_path = cache_folder()
    if not _writable(cache_path):
        fix = "export PERCEPTUAL_CACHE=FOLDER, a folder that you may write to"
        yield Check("Folders", "cache", f"{cache_path} cannot be written to", "missing", fix)
    else:
        yield Check("Folders", "cache", f"{cache_path} ({_size(cache_path)})")
    for folder in filter(None, os.environ.get("PERCEPTUAL_WEIGHTS", "").split(os.pathsep)):
        there = os.path.isdir(os.path.expanduser(folder))
        value = folder if there else f"{folder} does not exist"
        yield Check("Folders", "PERCEPTUAL_WEIGHTS", value, "ok" if there else "missing")
    import torch

    hub = Path(torch.hub.get_dir())
    yield Check("Folders", "torch.hub", f"{hub} ({_size(hub)})")
    home = os.environ.get("HF_HOME") or "~/.cache/huggingface"
    cached = Path(os.path.expanduser(os.environ.get("HF_HUB_CACHE") or os.path.join(home, "hub")))
    yield Check("Folders", "Hugging Face hub", f"{cached} ({_size(cached)})")
    free = shutil.disk_usage(".").free
    yield Check("Folders", "disk", f"{free / 1e9:.1f} GB free in the current folder", "ok" if free > 1e8 else "missing")


def _writable(folder: Path) -> bool:
    """Whether a folder can be written to, or made."""
    there = next((each for each in (folder, *folder.parents) if os.path.exists(each)), folder)
    return os.path.isdir(there) and os.access(there, os.W_OK | os.X_OK)


def _size(folder: Path) -> str:
    """The size of a folder's files; a lower bound after 0.2 seconds."""
    if not os.path.isdir(folder):
        return "empty"
    total, until = 0, time.monotonic() + 0.2
    for root, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(root, name)).st_size
            except OSError:  # deleted meanwhile
                continue
        if time.monotonic() > until:
            return f"more than {total / 1e6:.1f} MB"
    return f"{total / 1e6:.1f} MB"


def _memory() -> Iterator[Check]:
    import torch

    from perceptual.devices import free_memory

    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        free = free_memory(torch.device("cuda", index))
        yield Check("Memory", f"GPU {index}", f"{free / 1e9:.1f} GB free")
    free = free_memory(torch.device("cpu"))
    value = "unknown: psutil is missing" if free == float("inf") else f"{free / 1e9:.1f} GB free for this process"
    yield Check("Memory", "memory", value)
