"""How kernels.c, with the files that it includes, is compiled: the compiler, its flags, and the names of the files.

The wheel build (hatch_build.py) loads this file before the package is installed, so it imports the standard library
only. A wheel may run on another processor than the one that built it. So several variants are compiled, each for a
fixed set of instructions, and library.py picks one at run time.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

SOURCE = Path(__file__).with_name("kernels.c")
INCLUDED = ("convolve.c", "enlarge.c")
# The float flags allow vector instructions for minima and maxima. All values are finite; the sign of 0 does not matter.
FLAGS = ("-O3", "-ffinite-math-only", "-fno-signed-zeros", "-fno-trapping-math", "-fopenmp", "-fPIC")
_AVX512 = ("-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx2", "-mfma", "-mprefer-vector-width=512")
_VARIANTS = {
    "vbmi": (*_AVX512, "-mavx512vbmi", "-mavx512vbmi2"),
    "avx512": _AVX512,
    "avx2": ("-mavx2", "-mfma"),
    "baseline": (),
}
"""Name -> extra flags, the fastest first. avx512 and avx2 need the instructions that PyTorch means by these names.
vbmi adds instructions that permute bytes (Ice Lake, Zen 4 and later): converting to uint8 is about 8% faster."""
SECONDS = 120
"""Time limit for one run of the compiler."""


def variants() -> dict[str, tuple[str, ...]]:
    """The variants for this computer: name -> extra flags, fastest first. Only x86_64 has more than the baseline."""
    return _VARIANTS if platform.machine() == "x86_64" else {"baseline": ()}


def native_flags() -> tuple[str, ...]:
    """Flags for code that runs only on this very processor."""
    wide = ("-mprefer-vector-width=512",) if platform.machine() == "x86_64" else ()
    return (*FLAGS, "-march=native", *wide)


def source() -> bytes:
    """The source of the kernels: the file that is compiled, and what it includes."""
    return b"".join(path.read_bytes() for path in (SOURCE, *map(Path(__file__).with_name, INCLUDED)))


def library_name(variant: str) -> str:
    """The name of a variant's file. It has a hash of the source and flags, so an outdated file is never loaded."""
    flags = " ".join((*FLAGS, *variants()[variant])).encode()
    return f"kernels-{variant}-{hashlib.sha256(flags + source()).hexdigest()[:8]}.so"


def find_compiler() -> str | None:
    """The path of gcc or cc; None without one, or on a system other than Linux."""
    return (shutil.which("gcc") or shutil.which("cc")) if sys.platform == "linux" else None


def compile_library(compiler: str, flags: tuple[str, ...], name: str, source: Path = SOURCE, cwd: str = ".") -> bool:
    """Compile the kernels to the file `name` in the folder `cwd`, readable by this user only. False if that failed.

    The file is linked without an OpenMP library: it uses the one that PyTorch has loaded.
    """
    commands = (
        [compiler, *flags, "-c", "-o", f"{name}.o", str(source.absolute())],
        [compiler, "-shared", f"{name}.o", "-o", name],
    )
    for command in commands:
        try:
            subprocess.run(
                command,
                cwd=cwd,
                umask=0o077,
                timeout=SECONDS,
                check=True,
                capture_output=True,
                stdin=subprocess.DEVNULL,
            )
        except (OSError, subprocess.SubprocessError):
            return False
    return True


def build(folder: Path) -> list[Path]:
    """Compile every variant for this machine type into a folder; returns the files.

    Files of earlier builds are deleted first. The list is empty where the kernels cannot be compiled: without a
    compiler, on a system other than Linux, or if any variant fails.
    """
    for old in folder.glob("kernels-*.so"):
        old.unlink()
    compiler = find_compiler()
    if compiler is None:
        return []
    with tempfile.TemporaryDirectory() as work:
        for variant, flags in variants().items():
            name, plain = library_name(variant), "-DNO_AVX_VNNI"  # for an assembler that does not know AVX-VNNI
            made = compile_library(compiler, (*FLAGS, *flags), name, cwd=work)
            if not made and not compile_library(compiler, (*FLAGS, *flags, plain), name, cwd=work):
                return []
        built = [folder / library_name(variant) for variant in variants()]
        for path in built:
            shutil.copyfile(Path(work) / path.name, path)
            os.chmod(path, 0o755)
    return built
