"""Make the pictures in docs/ from scikit-image's free photos: python examples/pictures.py"""

from pathlib import Path

import skimage.data
import torch
from PIL import Image

from perceptual import Stylizer, Upscaler, degrade, images, modcrop
from perceptual.networks import enlarge

docs = Path(__file__).parents[1] / "docs"
gallery = Stylizer.load("gallery")
astronaut, cat, coffee = (images.from_any(getattr(skimage.data, name)()) for name in ("astronaut", "chelsea", "coffee"))
cat = images.resize(cat[..., :300, 75:375], shorter_side=512)
coffee = images.resize(coffee[..., :400, 90:490], shorter_side=512)


def sheet(name: str, pictures: dict[str, torch.Tensor], columns: int, side: int) -> None:
    """Write pictures (1, 3, h, w), made as wide as `side`, row by row with their names below."""
    page = images.labelled_sheet([(label.strip(), each) for label, each in pictures.items()], columns, side)
    images.to_kind_of(page, like=Image.new("RGB", (1, 1))).save(docs / f"{name}.png", optimize=True)


everything = {}
for photograph, where in ((astronaut, ""), (cat, " ")):  # a dictionary holds a name once: the blank makes another
    everything[f"photograph{where}"] = photograph
    everything |= {f"{style}{where}": gallery.stylize(photograph, style=style) for style in gallery.styles}
sheet("gallery", everything, 6, 256)

best = ("wave", "starry_night_solo", "the_scream", "udnie", "olive_trees", "mondrian")
pairs = zip(best, 2 * (astronaut, cat, coffee), strict=True)
sheet("best", {style: Stylizer.load(style).stylize(photograph) for style, photograph in pairs}, 3, 320)

strengths = {f"strength {s}": gallery.stylize(astronaut, style="wave", strength=s) for s in (0.0, 0.25, 0.5, 0.75, 1.0)}
sheet("strength", strengths | {"keep colours": gallery.stylize(astronaut, style="wave", keep_colors=True)}, 6, 224)

shares = (1.0, 0.7, 0.5, 0.3, 0.0)
blends = {
    f"the_scream:{s:.1f},wave:{1 - s:.1f}": gallery.stylize(coffee, style=f"the_scream:{s},wave:{1 - s}")
    for s in shares
}
sheet("blend", blends, 5, 288)

large = images.resize(astronaut[..., :384, :], longer_side=2048)
sizes = {f"2048 px, style scale {k}": gallery.stylize(large, style="wheat_field", style_scale=k) for k in (1, 2, 4)}
sheet("style_scale", sizes, 3, 480)

columns = {}
places = {"astronaut": (16, 160), "chelsea": (70, 120), "coffee": (96, 128)}  # top and left of 128 px
for scale in (4, 8):
    by_loss = {loss: Upscaler.at_scale(scale, loss) for loss in ("pixel", "feature")}
    for name, (top, left) in places.items():
        original = modcrop(images.from_any(getattr(skimage.data, name)()), scale)
        small = degrade(original, scale)
        made = {"bicubic": enlarge(small, scale).clamp(0, 1)}
        made |= {f"{loss} loss": upscaler.upscale(small) for loss, upscaler in by_loss.items()}
        for label, picture in {**made, "original": original}.items():
            cut = picture[..., top : top + 128, left : left + 128]
            columns[f"x{scale}, {label}{' ' * len(columns)}"] = cut.repeat_interleave(2, 2).repeat_interleave(2, 3)
sheet("upscale", columns, 4, 256)
