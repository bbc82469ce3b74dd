"""The gallery's paintings: their titles, and the part of each scan that a network may learn from.

python tools/paintings.py FOLDER OUT      copies FOLDER/NAME.jpg to OUT/NAME.png, without the marks of the scans
"""

import sys
from pathlib import Path

from PIL import Image

TITLES = {
    "composition_vii": "Composition VII, Wassily Kandinsky, 1913",
    "edtaonisl": "Edtaonisl, Francis Picabia, 1913",
    "mondrian": "Tableau No. 2, Piet Mondrian, 1913",
    "night_cafe": "The Night Café, Vincent van Gogh, 1888",
    "olive_trees": "Olive Trees, Vincent van Gogh, 1889",
    "starry_night": "The Starry Night, Vincent van Gogh, 1889",
    "the_scream": "The Scream, Edvard Munch, 1893",
    "udnie": "Udnie, Francis Picabia, 1913",
    "water_lilies": "Water Lilies, Claude Monet, about 1917",
    "wave": "The Great Wave off Kanagawa, Katsushika Hokusai, about 1831",
    "wheat_field": "Wheat Field with Cypresses, Vincent van Gogh, 1889",
}
SIDES = dict.fromkeys(TITLES, 768) | {
    "edtaonisl": 512,
    "starry_night": 576,
    "udnie": 512,
    "water_lilies": 448,
    "wheat_field": 576,
}
"""Longer side in pixels: it sets the size of the strokes. Large shapes need a small painting. The threads of a canvas
are not seen in a small painting, so the network does not learn them."""
BELOW = {"night_cafe": 42, "olive_trees": 42}
"""Pixels to cut off: a mark of the scan's publisher lies there."""

if __name__ == "__main__":
    folder, out = map(Path, sys.argv[1:3])
    out.mkdir(parents=True, exist_ok=True)
    for name in TITLES:
        with Image.open(folder / f"{name}.jpg") as scan:
            width, height = scan.size
            painting = scan.convert("RGB").crop((0, 0, width, height - BELOW.get(name, 0)))
            painting.thumbnail((SIDES[name], SIDES[name]), Image.Resampling.LANCZOS)
            painting.save(out / f"{name}.png")
