"""Change the last layer of a super-resolution network a little, so that pictures of one colour stay as they are.

python tools/flatten.py TRAINED.safetensors FLAT.safetensors       then publish FLAT.safetensors

The change is the smallest one (ridge regression) that removes the network's output for 125 flat pictures.
"""

import itertools
import sys
from dataclasses import replace
from pathlib import Path

import torch

from perceptual.checkpoints import load, save

SIDE, RIDGE = 48, 1.0


def middle(x: torch.Tensor) -> torch.Tensor:
    return x[0, :, x.shape[2] // 2, x.shape[3] // 2]


network, card = load(Path(sys.argv[1]))
last, inputs = network.eval().layers[-1].conv, []
network.layers[-1].register_forward_pre_hook(lambda _, given: inputs.append(middle(given[0])))
with torch.no_grad():
    for colour in itertools.product((0.0, 0.25, 0.5, 0.75, 1.0), repeat=3):
        network(torch.tensor(colour).view(1, 3, 1, 1).expand(1, 3, SIDE, SIDE))
    seen, taps = torch.stack(inputs), last.weight[0, 0].numel()
    wrong = (seen @ last.weight.sum((2, 3)).T + last.bias).double()
    known = torch.cat([seen * taps**0.5, torch.ones(len(seen), 1)], 1).double()  # the weights of all taps, and the bias
    square = known.T @ known
    change = torch.linalg.solve(
        square + RIDGE * known.square().mean() * torch.eye(len(square)), known.T @ wrong
    ).float()
    last.weight -= change[:-1].T[..., None, None] / taps**0.5
    last.bias -= change[-1]
changed = "its last layer was changed so that flat pictures stay flat (tools/flatten.py)"
save(Path(sys.argv[2]), network, replace(card, began_from=f"{card.began_from}; {changed}"))
