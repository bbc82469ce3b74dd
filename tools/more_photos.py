"""Make more photos for training networks that enlarge: each photo, its copy of 65 % of the size, and a blurred copy.

python tools/more_photos.py PHOTOS OUT

The smaller copies are sharper, pixel by pixel. The blurred ones teach `--degradation photo` that a soft picture may
have a soft original. Without them the network sharpens everything, and soft photos become worse than by bicubic
interpolation.
"""

import random
import sys
from pathlib import Path

from PIL import Image, ImageFilter

from perceptual.images import finding

SHARE, LEAST = 0.65, 136
"""Size of the smaller copy, and its least side in pixels: photos below are not reduced."""
SIGMA = 0.7, 1.8
"""Range of the Gaussian blur in pixels, drawn for each photo."""

rng, out = random.Random(0), Path(sys.argv[2])
out.mkdir(parents=True, exist_ok=True)
for number, file in enumerate(finding.find([sys.argv[1]])):
    photo = Image.open(file.path).convert("RGB")
    copies = {"a": photo, "c": photo.filter(ImageFilter.GaussianBlur(rng.uniform(*SIGMA)))}
    small = round(SHARE * photo.width), round(SHARE * photo.height)
    if min(small) >= LEAST:
        copies["b"] = photo.resize(small, Image.Resampling.LANCZOS)
    for letter, copy in copies.items():
        copy.save(out / f"{number:06d}_{letter}.png", compress_level=1)
