"""perceptual doctor: it reports what is missing or broken, names a fix, and never fails itself."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import assert_one_sentence
from packaging.requirements import Requirement
from test_cli import run

from perceptual import devices, fast
from perceptual.cli.packages import Check
from perceptual.losses.weights import PRETRAINED

Capture = pytest.CaptureFixture[str]
command = importlib.import_module("perceptual.cli.doctor")  # the package has a function of the same name
packages = importlib.import_module("perceptual.cli.packages")
PROBES = ("required", "optional", "_processor", "_path", "_loss_networks", "_folders", "_memory")


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERCEPTUAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PERCEPTUAL_WEIGHTS", str(tmp_path))


def checks(capsys: Capture, expected: int = 0) -> dict[str, dict[str, str]]:
    """The checks of `perceptual doctor --json` by name."""
    code, out, err = run(capsys, "doctor", "--json")
    assert code == expected, err
    document = json.loads(out)
    assert (document["command"], document["exit_code"]) == ("doctor", expected)
    assert document["healthy"] == (expected == 0)
    return {check["name"]: check for check in document["checks"]}


def test_a_working_installation_is_reported_and_exits_0(capsys: Capture) -> None:
    code, out, err = run(capsys, "doctor")
    assert (code, err) == (0, "")
    for part in ("Packages", metadata.version("torch"), "Processor", "painting", "training", "vgg16", "Memory"):
        assert part in out
    assert out.strip().endswith("Everything essential works.")


def test_the_report_of_json_has_a_group_a_value_and_a_state_for_each_check(capsys: Capture) -> None:
    found = checks(capsys)
    assert found["torch"] == {
        "group": "Packages",
        "name": "torch",
        "value": metadata.version("torch"),
        "state": "ok",
        "fix": "",
    }
    assert set(PRETRAINED) < set(found)
    assert found["test painting"]["state"] == "ok"


@pytest.mark.parametrize("probe", PROBES)
def test_a_probe_that_fails_is_reported_and_the_others_go_on(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, probe: str
) -> None:
    def fails() -> Iterator[Check]:
        yield from ()
        raise RuntimeError("no such\nluck")

    others = {name: lambda name=name: iter([Check("Group", name, "fine")]) for name in PROBES if name != probe}
    for name, replaced in {**others, probe: fails}.items():
        monkeypatch.setattr(command, name, replaced)
    found = checks(capsys, expected=1)
    assert found["this check failed"]["value"] == "RuntimeError: no such luck"
    assert found["this check failed"]["state"] == "broken"
    assert set(others) < set(found)
    code, _, err = run(capsys, "doctor")
    assert code == 1
    assert_one_sentence(err, "Essential parts do not work")


@pytest.mark.parametrize(
    ("error", "value"),
    [
        (ModuleNotFoundError("No module named 'safetensors'"), "No module named 'safetensors'"),
        (OSError("libfoo.so: cannot open"), "cannot be imported (OSError: libfoo.so: cannot open)"),
    ],
)
def test_a_package_that_cannot_be_imported_is_broken_and_has_a_fix(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, error: Exception, value: str
) -> None:
    def import_module(name: str) -> Any:
        if name.startswith("safetensors"):
            raise error
        return importlib.import_module(name)

    monkeypatch.setattr(packages, "import_module", import_module)
    found = checks(capsys, expected=1)["safetensors"]
    assert (found["value"], found["state"]) == (value, "broken")
    assert found["fix"].startswith("pip install 'safetensors>=")


def with_versions(monkeypatch: pytest.MonkeyPatch, **versions: str | None) -> None:
    """Let packages have other versions; None for a package that is not installed."""

    def version(name: str) -> str:
        if name not in versions:
            return metadata.version(name)
        if versions[name] is None:
            raise metadata.PackageNotFoundError(name)
        return str(versions[name])

    stand_in = SimpleNamespace(**{**vars(metadata), "version": version})
    monkeypatch.setattr(packages, "metadata", stand_in)


def test_a_package_that_is_too_old_is_broken(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    with_versions(monkeypatch, pillow="9.0")
    found = checks(capsys, expected=1)["pillow"]
    assert (found["value"], found["state"]) == ("9.0, which is too old", "broken")


def test_an_optional_package_that_is_missing_has_its_extra_as_fix(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_versions(monkeypatch, av=None)
    found = checks(capsys)["video"]
    assert (found["value"], found["state"], found["fix"]) == (
        "av is missing",
        "missing",
        "pip install 'perceptual[video]'",
    )
    video = next(r for r in map(Requirement, metadata.requires("perceptual") or ()) if r.name == "av")
    with_versions(monkeypatch, av="2.0")
    assert checks(capsys)["video"]["value"] == f"av 2.0 (av{video.specifier} is needed)"


def test_the_path_is_that_of_this_processor(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    if torch.cuda.is_available():
        pytest.skip("on a GPU there is one path")
    monkeypatch.setattr(fast, "reads_bytes", lambda: True)
    monkeypatch.setattr(fast, "kernels_in_use", lambda: "avx2")
    found = checks(capsys)
    assert (found["painting"]["value"], found["compiled kernels"]["value"]) == ("cpu, int8", "avx2")
    assert found["training"]["value"].endswith("the first training measures which is faster")
    monkeypatch.setattr(fast, "reads_bytes", lambda: False)
    monkeypatch.setattr(devices, "bfloat16_gain", lambda: 2.0)
    monkeypatch.setattr(fast, "kernels_in_use", lambda: None)
    monkeypatch.delenv("PERCEPTUAL_KERNELS", raising=False)
    found = checks(capsys)
    assert found["painting"]["value"].startswith("cpu, float32 (")
    assert found["training"]["value"].startswith("cpu, eager, bfloat16 (measured: bfloat16 is 2.00 times")
    assert found["compiled kernels"]["state"] == "missing"


def test_nothing_is_measured_or_written(capsys: Capture, tmp_path: Path) -> None:
    checks(capsys)
    assert list(tmp_path.iterdir()) == []


def test_weights_that_are_half_downloaded_are_found(capsys: Capture, tmp_path: Path) -> None:
    known = PRETRAINED["vgg19-torchvision"].files[0]
    (tmp_path / known.file).write_bytes(b"0123456789")
    found = checks(capsys)["vgg19-torchvision"]
    assert found["state"] == "missing"
    assert f"has 10 bytes, not {known.size}" in found["value"]
    assert "perceptual weights fetch vgg19-torchvision" in found["fix"]


def test_a_cache_that_cannot_be_made_is_reported(
    capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PERCEPTUAL_CACHE", str(tmp_path / "file" / "cache"))
    assert checks(capsys)["cache"]["state"] == "missing"


def test_shipped_networks_that_are_missing_are_reported(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    from perceptual.checkpoints import shipped

    monkeypatch.setattr(shipped, "networks", lambda task: {})
    found = checks(capsys, expected=1)["test painting"]
    assert (found["state"], "reinstall" in found["fix"]) == ("broken", True)


WITHOUT = """
import sys
class Missing:
    def find_spec(self, name, *rest):
        if name == sys.argv[1]:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Missing())
from perceptual import cli
sys.exit(cli.main(["doctor"]))
"""


def without(library: str) -> subprocess.CompletedProcess[str]:
    """Run the command where a library is missing."""
    return subprocess.run([sys.executable, "-c", WITHOUT, library], capture_output=True, text=True)


def test_without_pytorch_the_command_still_reports() -> None:
    done = without("torch")
    assert done.returncode == 1
    assert_one_sentence(done.stderr, "packages: torch")
    assert "pip install 'torch>=" in done.stdout
    assert "--force-reinstall" not in done.stdout  # the one repair is that of PyTorch
    assert "instructions" in done.stdout


def test_a_missing_library_of_the_command_itself_is_one_sentence() -> None:
    done = without("tyro")
    assert (done.returncode, done.stdout) == (1, "")
    assert_one_sentence(done.stderr, "tyro")


@pytest.mark.parametrize(
    ("device", "said"), [("cuda", "cuda, float16"), ("mps", "mps, float16"), ("xpu", "xpu, float32")]
)
def test_painting_on_a_gpu_is_named_with_its_precision(device: str, said: str) -> None:
    (found,) = command._painting(torch.device(device))
    assert found.value == said
