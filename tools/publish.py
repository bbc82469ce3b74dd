"""Put a trained network among the shipped ones: half precision, with what people should know in its card.

python tools/publish.py TRAINED.safetensors NAME --data "..."

The golden pictures of its styles, or of its enlargements, are made anew too. Then look at its pictures:
examples/pictures.py, or `perceptual evaluate sr`.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import skimage.data
import torch
from paintings import TITLES
from PIL import Image

from perceptual import Stylizer, Upscaler
from perceptual.checkpoints import gallery, load, save

parser = argparse.ArgumentParser()
parser.add_argument("trained", type=Path)
parser.add_argument("name")
parser.add_argument("--data", required=True, help="what it was trained on, in words")
parser.add_argument("--about", help="one line for people, when training gave none")
parser.add_argument("--licence", help="its terms, when training gave none")
parser.add_argument("--mixed-with", type=Path, help="a network that it began from, to interpolate weights with")
parser.add_argument("--share", type=float, default=0.7, help="how much of the trained network is in the mixture")
parser.add_argument("--styles", nargs="+", default=[], metavar="FILE=SHARE",
                    help="styles that were learnt further from it: move its gamma and beta towards theirs")  # fmt: skip
arguments = parser.parse_args()

root = Path(__file__).parents[1]
network, card = load(arguments.trained)
about, licence = arguments.about or card.about, arguments.licence or card.licence
if not about or not licence:
    parser.error("give --about and --licence: its card has none")
if arguments.mixed_with:  # network interpolation (Wang et al., ESRGAN, 2018): less grain, and nearly as sharp
    other, _ = load(arguments.mixed_with)
    state = network.state_dict()
    network.load_state_dict({k: torch.lerp(v, state[k], arguments.share) for k, v in other.state_dict().items()})
    mixture = f"its weights are {arguments.share:g} of the trained ones and the rest of {arguments.mixed_with.name}'s"
    card = replace(card, began_from=f"{card.began_from}; {mixture}")
for file, _, share in (each.rpartition("=") for each in arguments.styles):
    learnt, theirs = load(Path(file))
    further = f"gamma and beta of {', '.join(theirs.styles)} are {share} of those after {theirs.steps} further steps"
    card = replace(card, began_from=f"{card.began_from}; {further}")
    for name, values in network.style_parameters().items():
        for k, style in enumerate(theirs.styles):
            row = values.data[card.styles.index(style)]
            row.lerp_(learnt.style_parameters()[name].data[k], float(share))
titles = {style: TITLES[style] for style in card.styles}
card = replace(card, data=arguments.data, about=about, licence=licence, titles=titles)
target = root / "src" / "perceptual" / "models" / card.task / f"{arguments.name}.safetensors"
save(target, network, card, half=True)

photograph = Image.fromarray(skimage.data.chelsea()).resize((225, 150), Image.Resampling.BICUBIC)
golden = root / "tests" / "golden"
if card.task == "upscale":
    Upscaler.load(target)(photograph.crop((80, 30, 128, 78))).save(golden / f"{arguments.name}.png")
for style in card.styles:
    for ending, video in (("", False), ("_video", True)):
        if gallery(video=video)[style] == target and not (video and gallery()[style] == target):
            stylizer = Stylizer.load(target, precision="float32")  # the same on every processor
            stylizer(photograph, style=style).save(golden / f"{style}{ending}.png")
print(f"{target}: {target.stat().st_size / 1e6:.2f} MB; its golden pictures are made anew")
