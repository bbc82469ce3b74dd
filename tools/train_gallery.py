"""Train the shipped gallery, or go on with it: the recipe `gallery` on all its paintings.

python tools/train_gallery.py PAINTINGS PHOTOS RUN [FLAG ...]

PAINTINGS: a folder of NAME.jpg as `tools/paintings.py` lists them. PHOTOS: photographs. RUN: a folder for the
network, the paintings without the marks of their scans, the log and the state. The same command goes on from there.
Further flags go to `perceptual train style`, such as --steps 1000. Ctrl-C or SIGTERM saves the state.
"""

import subprocess
import sys
from pathlib import Path

from paintings import TITLES

from perceptual import keep_memory
from perceptual.cli import main

FACTORS = {
    "composition_vii": 0.5,
    "edtaonisl": 0.52,
    "mondrian": 0.53,
    "night_cafe": 0.6,
    "olive_trees": 0.8,
    "starry_night": 0.6,
    "the_scream": 0.25,
    "udnie": 0.42,
    "water_lilies": 0.7,
    "wave": 0.66,
    "wheat_field": 0.75,
}
"""Style weight of a painting where it is not 1, chosen by what `judge` measures."""

paintings, photographs, run = map(Path, sys.argv[1:4])
copies = run / "paintings"
if not copies.is_dir():
    subprocess.run([sys.executable, Path(__file__).with_name("paintings.py"), paintings, copies], check=True)
out = run / "gallery.safetensors"
settings = ["--recipe", "gallery", "--from", "gallery", "--size", "384", "--data", str(photographs), "--out", str(out)]
settings += ["--style", *(str(copies / f"{name}.png") for name in TITLES)]
settings += ["--style-factors", *(str(FACTORS.get(name, 1.0)) for name in TITLES)]
if out.with_suffix(".state").exists():
    settings.append("--resume")
keep_memory()  # as the installed command does
sys.exit(main(["train", "style", *settings, *sys.argv[4:]]))
