"""How trained networks balance content and style: means over the last 100 steps of their logs, over the references.

python benchmarks/balance.py TRAINED.safetensors ...     (with the .jsonl beside each, written with --tick-every 1)
"""

import json
import sys
from pathlib import Path
from statistics import mean

from perceptual.checkpoints import read_card

print(f"{'network':16} {'content':>8} {'style':>8} {'objective':>10}   references of style")
for name in sys.argv[1:]:
    card = read_card(name)
    lines = [json.loads(line) for line in Path(name).with_suffix(".jsonl").read_text().splitlines()][-100:]
    terms = {term: mean(line[term] for line in lines) / value[0] for term, value in card.references.items()}
    content = mean(value for term, value in terms.items() if term.startswith("content"))
    style = mean(value for term, value in terms.items() if term.startswith("style"))
    references = " ".join(f"{value[0]:.4g}" for term, value in card.references.items() if term.startswith("style"))
    print(f"{Path(name).stem:16} {content:8.3f} {style:8.3f} {mean(x['total'] for x in lines):10.3f}   {references}")
