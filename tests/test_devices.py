"""What the computer can do: names of devices and precisions, and what counts as memory running out."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from perceptual import devices
from perceptual.cache import cache_folder
from perceptual.devices import can_compile, channels_last, choose_device, choose_precision, free_memory, out_of_memory
from perceptual.errors import ConfigError

CPU = torch.device("cpu")


def test_auto_is_a_gpu_where_there_is_one() -> None:
    assert choose_device().type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert choose_device("cpu") == CPU


@pytest.mark.parametrize("name", ["abacus", "", "cpu:x"])
def test_a_device_that_is_not_there_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="no device"):
        choose_device(name)


def test_precisions_have_accelerates_names() -> None:
    assert choose_precision(CPU, "float32") == "no"
    assert choose_precision(CPU, "bfloat16") == "bf16"
    assert choose_precision(torch.device("cuda"), "float16") == "fp16"
    assert choose_precision(CPU) in ("no", "bf16")
    with pytest.raises(ConfigError, match="GPU"):
        choose_precision(CPU, "float16")


def test_memory_running_out_is_told_from_other_errors() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60)
    assert out_of_memory(caught.value)
    assert out_of_memory(MemoryError())
    assert not out_of_memory(RuntimeError("shapes differ"))
    assert free_memory(CPU) > 0


@pytest.mark.parametrize(
    ("device", "precision", "fused"),
    [("cuda", "bf16", True), ("cuda", "no", True), ("cuda", "fp16", None), ("cpu", "bf16", None)],
)
def test_adam_is_fused_and_products_have_tf32_on_cuda_only(
    monkeypatch: pytest.MonkeyPatch, device: str, precision: str, fused: bool | None
) -> None:
    seen: list[object] = []
    monkeypatch.setattr(torch, "set_float32_matmul_precision", seen.append)
    monkeypatch.setattr(torch.optim, "Adam", lambda parameters, lr, fused: seen.append(fused))
    devices.make_adam([], 0.1, torch.device(device), precision)
    assert seen == (["high", fused] if device == "cuda" else [fused])


def test_channels_last_changes_the_layout_and_not_the_values() -> None:
    conv = torch.nn.Conv2d(3, 4, 3)
    before = conv.weight.clone()
    assert channels_last(conv).weight.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(conv.weight, before)


def test_nothing_is_compiled_for_a_cpu() -> None:
    assert not can_compile(CPU)
    assert not can_compile(torch.device("meta"))


def test_bfloat16_is_taken_where_it_was_measured_to_be_faster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERCEPTUAL_CACHE", str(tmp_path))
    faster = {torch.float32: 3.0, torch.bfloat16: 2.0}
    monkeypatch.setattr(devices, "_seconds_of_convolution", faster.__getitem__)
    devices.faster_in_bfloat16.cache_clear()
    assert choose_precision(CPU) == "bf16"
    (kept,) = tmp_path.iterdir()
    assert kept.read_text() == "1.500\n"
    monkeypatch.setattr(devices, "_seconds_of_convolution", lambda dtype: 1 / 0)  # what is kept is not measured again
    for text, precision in (("1.1", "no"), ("1.3", "bf16")):
        kept.write_text(text)
        devices.faster_in_bfloat16.cache_clear()
        assert choose_precision(CPU) == precision
    devices.faster_in_bfloat16.cache_clear()


@pytest.mark.parametrize("version", [1, 2])
def test_the_memory_of_a_container_is_what_its_limit_leaves(tmp_path: Path, version: int) -> None:
    names = ("memory.max", "memory.current", "inactive_file")
    folder = tmp_path
    if version == 1:
        names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        folder = tmp_path / "memory"
    inner = folder / "outer" / "inner"
    inner.mkdir(parents=True)
    for group, limit, used, cached in ((inner, 1000, 700, 100), (inner.parent, 500, 400, 0), (folder, 2**63, 1, 0)):
        (group / names[0]).write_text(f"{limit}\n")
        (group / names[1]).write_text(f"{used}\n")
        (group / "memory.stat").write_text(f"anon 5\n{names[2]} {cached}\n")
    own = tmp_path / "own"
    own.write_text(f"7:cpu:/elsewhere\n{'3:memory' if version == 1 else '0:'}:/outer/inner\n")
    assert sorted(devices._free_of_cgroups(tmp_path, own))[:2] == [100, 400]
    (inner.parent / names[0]).write_text("max\n" if version == 2 else f"{2**63}\n")
    assert min(devices._free_of_cgroups(tmp_path, own)) == 400
    assert list(devices._free_of_cgroups(tmp_path, tmp_path / "nowhere")) == [float("inf")]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="limits of address space are read from /proc")
def test_a_limit_of_address_space_counts() -> None:
    code = (
        "import resource, torch; from perceptual.devices import free_memory\n"
        "resource.setrlimit(resource.RLIMIT_AS, (64 << 30, 64 << 30)); one = free_memory(torch.device('cpu'))\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + (100 << 20), 64 << 30))\n"
        "print(free_memory(torch.device('cpu')) <= 100 << 20 < one)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "True\n", done.stderr


@pytest.mark.parametrize("name", ["meta", "hpu", "privateuseone", "mkldnn", "lazy", "", "cpu:-1", "nonsense"])
def test_a_device_that_holds_no_numbers_here_is_one_sentence(name: str) -> None:
    with pytest.raises(ConfigError, match="choose auto or cpu"):
        choose_device(name)


@pytest.mark.skipif(os.name != "posix", reason="users of POSIX")
def test_a_user_without_a_home_has_a_cache_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    import pwd

    def nobody(user: int) -> None:
        raise KeyError(user)

    for name in ("HOME", "PERCEPTUAL_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    assert cache_folder().is_absolute()
    assert cache_folder().name == f"perceptual-{os.getuid()}"
