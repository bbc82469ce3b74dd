"""Install a wheel into a fresh environment without the repository, and try what users try first.

python tools/check_wheel.py dist/perceptual-0.1.0-py3-none-linux_x86_64.whl

The packages that perceptual needs come from the environment that runs this script, so nothing is downloaded. The
perceptual in that environment is not used. Prints the size of the wheel and of the installed files.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tempfile
import venv
from importlib.metadata import distribution
from pathlib import Path

INSIDE = """
import sys
from importlib.metadata import files, requires
from pathlib import Path
from packaging.requirements import Requirement
from PIL import Image
import perceptual
from perceptual.checkpoints import shipped
from perceptual.fast import prepare_kernels

assert Path(perceptual.__file__).is_relative_to(sys.prefix), perceptual.__file__
listed = files("perceptual")
assert not [path for path in listed if path.parts[0] in ("tests", "benchmarks", "docs", "src")], listed
compiled = [path for path in listed if path.suffix == ".so"]
assert prepare_kernels() == bool(compiled), "The compiled kernels cannot be loaded here."
Image.linear_gradient("L").convert("RGB").save("photo.png")
models = {task: len(shipped.networks(task)) for task in ("style", "upscale")}
print(f"networks: {models}; compiled kernels: {len(compiled)}")


def size(name):
    return sum(Path(path.locate()).stat().st_size for path in files(name) if Path(path.locate()).is_file())


def needed(name, found):
    found.add(name)
    for each in map(Requirement, requires(name) or ()):
        if each.name.lower() not in found and (each.marker is None or each.marker.evaluate({"extra": ""})):
            needed(each.name.lower(), found)
    return found


everything = needed("perceptual", set())
print(f"installed: {size('perceptual') / 1e6:.1f} MB, and {sum(map(size, everything)) / 1e6:.0f} MB with "
      f"the {len(everything) - 1} packages that it needs")
"""
COMMANDS = (
    ["--help"],
    ["--version"],
    ["stylize", "photo.png", "-o", "painting.png", "--style", "wave"],
    ["upscale", "photo.png", "-o", "large.png", "--loss", "srcnn"],
)


def main(wheel: Path) -> None:
    """Check one wheel. Raises an error if anything fails."""
    print(f"wheel: {wheel.name}, {wheel.stat().st_size / 1e6:.1f} MB")
    with tempfile.TemporaryDirectory(prefix="perceptual-wheel-") as name:
        folder = Path(name)
        python = made(folder / "venv", wheel.resolve())
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "PERCEPTUAL"))}

        def run(*words: str) -> str:
            done = subprocess.run([python, *words], cwd=folder, env=environment, capture_output=True, text=True)
            if done.returncode:
                raise SystemExit(f"{' '.join(words)[:80]} failed:\n{done.stdout}{done.stderr}")
            return done.stdout

        print(run("-c", INSIDE), end="")
        for words in COMMANDS:
            run("-m", "perceptual", *words)
            print(f"perceptual {' '.join(words)}: passed")
        assert (folder / "painting.png").stat().st_size > 1000
        assert (folder / "large.png").stat().st_size > 1000


def made(place: Path, wheel: Path) -> Path:
    """The Python of a new environment with the wheel, and with the packages of this environment behind it."""
    venv.create(place, symlinks=os.name != "nt", with_pip=False)
    python = place / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    install = ["-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", "--no-index", str(wheel)]
    subprocess.run([sys.executable, *install], check=True)
    where = [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    own = Path(subprocess.check_output(where, text=True).strip())
    others = [sysconfig.get_path("purelib"), str(Path(distribution("torch").locate_file("")))]
    (own / "packages.pth").write_text("\n".join(dict.fromkeys(others)) + "\n")
    return python


if __name__ == "__main__":
    main(Path(sys.argv[1]))
