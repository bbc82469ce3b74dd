"""Write the Gram matrices of the gallery's paintings, for the paper's experiments where no painting is at hand.

python tools/targets.py PAINTINGS    PAINTINGS is what tools/paintings.py wrote; loss networks by PERCEPTUAL_WEIGHTS

They are the style targets of the recipes `fast` and `sketch`, and for the styles of Figures 6 and 7 also those that
`gallery_video` was trained with. They are sums over a whole painting: it cannot be made from them.
"""

import sys
from pathlib import Path

from perceptual.checkpoints import find_style, gallery, read_card, save_targets
from perceptual.config import LossConfig, from_dict
from perceptual.losses import full_name, style_targets
from perceptual.losses.networks import LossNetworks
from perceptual.reproduce import sheets
from perceptual.tasks.style import Style, StyleRecipe, read_painting, style_name

LAYERS = ("relu1_2", "relu2_2", "relu3_3", *(f"vgg19-distilled:relu{layer}" for layer in ("1_2", "2_2", "3_3", "4_3")))

alone = read_card(find_style("starry_night_solo")[0])  # the network of Figure 5, with layers of its own
files = {style_name(path): path for path in Path(sys.argv[1]).iterdir()}
more = alone.settings["loss"]["style_layers"]
networks = LossNetworks([full_name(layer) for layer in (*LAYERS, *more)])
recipe, targets = Style.recipe("fast"), {}
for style in gallery():
    config = LossConfig(style_layers=(*LAYERS, *(more if style in alone.styles else ())))
    targets[style] = style_targets(config, read_painting(files[style], recipe), networks)
video = from_dict(StyleRecipe, read_card(find_style(sheets.NETWORK)[0]).settings)
layers = LossNetworks(map(full_name, video.loss.style_layers))
for style in sheets.STYLES:
    targets[style] |= style_targets(video.loss, read_painting(files[style], video), layers)
path = Path(__file__).parents[1] / "src" / "perceptual" / "targets" / "gallery.safetensors"
save_targets(path, targets)
print(f"{path}: {path.stat().st_size / 1e6:.2f} MB, {len(targets)} styles")
