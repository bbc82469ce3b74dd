"""The objective (paper, eq. 5) of each style of a trained network on photographs, against the photographs' own.

python benchmarks/objective.py NETWORK PAINTINGS FOLDER [SIZE]

NETWORK is a shipped name or a trained file; PAINTINGS a folder that holds the images that it was trained on, under the
names of its styles; FOLDER holds photographs, squared to SIZE (256) as the paper does. The loss networks are those of
its card, found by PERCEPTUAL_WEIGHTS. Content, style and variation are weighted, so that they add up to the objective.
"""

import sys
from pathlib import Path

import torch

from perceptual import Stylizer
from perceptual.checkpoints import find_style
from perceptual.config import from_dict
from perceptual.data import Photographs
from perceptual.losses import style_transfer_loss
from perceptual.tasks.style import read_painting, style_name
from perceptual.tasks.style_recipes import StyleRecipe

name, paintings, folder = sys.argv[1:4]
size = int(sys.argv[4]) if len(sys.argv) > 4 else 256
stylizer = Stylizer.load(find_style(name)[0])
recipe = from_dict(StyleRecipe, stylizer.card.settings)
files = {style_name(path): path for path in Path(paintings).iterdir()}
pictures = [read_painting(files[s], recipe) for s in stylizer.styles]
loss = style_transfer_loss(recipe.loss, pictures)
loss.set_references(stylizer.card.references)
assert loss.networks is not None
assert loss.networks.hashes() == stylizer.card.loss_networks, "other weights than the network was trained with"


def parts(output: torch.Tensor, photograph: torch.Tensor, style: int) -> torch.Tensor:
    """Content, style and variation, weighted, and their sum."""
    chosen = torch.nn.functional.one_hot(torch.tensor([style]), len(stylizer.styles)).float()
    values = loss(output, photograph, chosen)
    sums = dict.fromkeys(("content", "style", "tv"), 0.0)
    for term, module in loss.named_terms():
        reference = module.reference[style if len(module.reference) > 1 else 0]
        kind = term.split()[0]
        if kind in sums:  # the penalty on grids is in the total alone
            sums[kind] += float(loss.weights[term] * values[term] / reference)
    return torch.tensor([*sums.values(), float(values["total"])])


dataset = Photographs(folder, size, crop="squash")
photographs = [dataset[k][0][None] for k in range(len(dataset))]
print(f"{name}: mean over {len(photographs)} photographs at {size} px")
print("| style | photographs | content | style | variation | network | network / photographs |")
print("| --- | --- | --- | --- | --- | --- | --- |")
ratios = []
with torch.no_grad():
    for index, style in enumerate(stylizer.styles):
        own = torch.stack([parts(p, p, index) for p in photographs]).mean(0)
        ours = torch.stack([parts(stylizer.stylize(p, style=style), p, index) for p in photographs]).mean(0)
        content, painted, variation, total = ours.tolist()
        ratios.append(total / own[-1].item())
        print(
            f"| {style} | {own[-1]:.3f} | {content:.3f} | {painted:.3f} | {variation:.3f} | {total:.3f} "
            f"| {ratios[-1]:.3f} |",
            flush=True,
        )
print(f"network / photographs: from {min(ratios):.3f} to {max(ratios):.3f}")
