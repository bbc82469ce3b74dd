"""Put a trained network among the shipped ones: half precision, with what people should know in its card.

python tools/publish.py TRAINED.safetensors NAME --data "..."

The golden pictures of its styles are made anew too. Then look at its pictures: examples/pictures.py.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import skimage.data
from paintings import TITLES
from PIL import Image

from perceptual import Stylizer
from perceptual.checkpoints import load, save

parser = argparse.ArgumentParser()
parser.add_argument("trained", type=Path)
parser.add_argument("name")
parser.add_argument("--data", required=True, help="what it was trained on, in words")
arguments = parser.parse_args()

root = Path(__file__).parents[1]
network, card = load(arguments.trained)
if not card.about or not card.licence:
    parser.error("train it with --about and --licence")
card = replace(card, data=arguments.data, titles={style: TITLES[style] for style in card.styles})
target = root / "src" / "perceptual" / "models" / f"{arguments.name}.safetensors"
save(target, network, card, half=True)

photograph = Image.fromarray(skimage.data.chelsea()).resize((225, 150), Image.Resampling.BICUBIC)
for style in card.styles:
    golden = root / "tests" / "golden" / f"{style}.png"
    Stylizer.load(target)(photograph, style=style).save(golden)
print(f"{target}: {target.stat().st_size / 1e6:.2f} MB, {len(card.styles)} golden pictures")
