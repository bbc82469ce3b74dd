"""Hatch build hook: compile the kernels of perceptual.fast into the wheel, where a C compiler is there.

Without a compiler, on systems other than Linux, or with PERCEPTUAL_KERNELS=0, the wheel is pure Python and PyTorch's
own operations do the same work. An editable install gets the compiled files in the source folder; git ignores them.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sysconfig
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FAST = Path("src", "perceptual", "fast")


class KernelsBuildHook(BuildHookInterface):
    """Compiles before the wheel is packed, and removes the temporary folder afterwards."""

    work: str | None = None

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add the compiled files to the wheel, and name the platform in its tag."""
        if os.environ.get("PERCEPTUAL_KERNELS") == "0":
            return
        fast = Path(self.root, FAST)
        editable = version == "editable"
        self.work = None if editable else tempfile.mkdtemp(prefix="perceptual-")
        try:
            files = build_module(fast / "build.py").build(fast if editable else Path(self.work or ""))
        except OSError as error:
            self.app.display_warning(f"The kernels could not be written: {error}")
            files = []
        if not files:
            self.app.display_info("No compiled kernels: PyTorch's own operations are used in their place.")
        elif not editable:
            build_data["force_include"] |= {str(path): f"perceptual/fast/{path.name}" for path in files}
            build_data["pure_python"] = False
            platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
            build_data["tag"] = f"py3-none-{platform}"  # ctypes loads the files: they fit any version of Python

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove the temporary folder."""
        if self.work is not None:
            shutil.rmtree(self.work, ignore_errors=True)


def build_module(path: Path) -> ModuleType:
    """Import build.py by its path: the package around it needs PyTorch, which a wheel build does not have."""
    spec = importlib.util.spec_from_file_location("perceptual_fast_build", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
