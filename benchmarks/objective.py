"""The objective (paper, eq. 5) of a trained network on photographs, per term, against the photographs' own.

python benchmarks/objective.py STYLE PAINTING FOLDER [SIZE]

STYLE is a shipped name or a trained file; PAINTING the style image that it was trained on; FOLDER holds photographs,
squared to SIZE (256) as the paper does. The loss networks are those of its card, found by PERCEPTUAL_WEIGHTS.
"""

import sys
from dataclasses import replace

import torch

from perceptual import Stylizer, images
from perceptual.config import StyleRecipe, from_dict
from perceptual.data import Photographs
from perceptual.losses import style_transfer_loss

name, painting, folder = sys.argv[1:4]
size = int(sys.argv[4]) if len(sys.argv) > 4 else 256
stylizer = Stylizer.load(name)
recipe = from_dict(StyleRecipe, stylizer.card.settings)
style = images.resize(images.read(painting).pixels, longer_side=recipe.style_size)
loss = style_transfer_loss(recipe.loss, [style])
loss.set_references(stylizer.card.references)
assert loss.networks is not None
assert loss.networks.hashes() == stylizer.card.loss_networks, "other weights than the network was trained with"

sums: dict[str, list[torch.Tensor]] = {}
photographs = replace(recipe.train, size=size, crop="squash")
dataset = Photographs(folder, photographs.size, crop=photographs.crop)
with torch.no_grad():
    for k in range(len(dataset)):
        photograph = dataset[k][0][None]
        own, ours = loss(photograph, photograph), loss(stylizer.stylize(photograph), photograph)
        for term in own:
            sums.setdefault(term, []).append(torch.stack([own[term], ours[term]]))

print(f"{name}: mean over {len(dataset)} photographs at {size} px")
print(f"{'term':34} {'photographs':>12} {'network':>12} {'network / photographs':>22}")
for term, values in sums.items():
    own_mean, our_mean = torch.stack(values).mean(0).tolist()
    ratio = f"{our_mean / own_mean:22.3f}" if own_mean else f"{'':22}"
    print(f"{term:34} {own_mean:12.5g} {our_mean:12.5g} {ratio}")
