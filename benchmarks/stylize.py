"""Seconds per image: the shipped network, the paper's architecture (supplement, Table 1), and their ratio.

python benchmarks/stylize.py [ROUNDS]
"""

import sys

import torch
from timing import in_turn

from perceptual import NetworkConfig, Stylizer, TransformationNetwork
from perceptual.checkpoints import Card

rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 7
paper = NetworkConfig()
ours = Stylizer.load("starry_night")
theirs = Stylizer(TransformationNetwork(paper), Card(task="style", network=paper))
print(f"{torch.get_num_threads()} threads on {ours.device}; ours is {ours.card.network.architecture!r}")
print("size   ours (s)   paper's architecture (s)   ratio")
for size in (256, 512, 1024):
    image = torch.rand(1, 3, size, size)
    times = in_turn(
        {"ours": lambda x=image: ours.stylize(x), "paper": lambda x=image: theirs.stylize(x)}, rounds=rounds
    )
    print(f"{size:4}   {times['ours']:8.3f}   {times['paper']:24.3f}   {times['paper'] / times['ours']:5.2f}")
