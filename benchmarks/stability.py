"""Flicker: the temporal error of painted videos, with and without the network for video and steadying.

python benchmarks/stability.py [--photos FOLDER] [--clip CLIP] [--paintings FOLDER] [--networks NAME ...]
                               [--styles NAME ...] [--steady AMOUNT ...] [--sheet FILE]

Videos of known motion are made of each of the first two photographs of FOLDER, or of scikit-image's samples:

pan 1, pan 2   to the right by 1 or 2 whole pixels a frame, so that nothing is interpolated
drift          by 0.7 and 0.3 px a frame, and a turn of 0.1 degrees
zoom           by 0.5 % a frame
noise          a still picture, with fresh noise of 3 levels of 255 in each frame

CLIP is a video of your own. Its motion is found by optical flow. For each network it prints the temporal error of
its paintings, in levels, by video, as the mean over the styles, plain and steadied by each AMOUNT; and at the end the
mean ratio of its errors to those of the first. The frames' own error is what interpolation and noise make.
With PAINTINGS, the folder of the images that the networks were trained on, under the names of their styles, it also
prints the content and the style term of the last painting of each video that drifts, under the objective of the first
network, whose loss networks PERCEPTUAL_WEIGHTS finds: a network must not buy its calm with its style.
SHEET becomes a picture: four frames of a video that drifts, their paintings, and what flickers.
"""

import argparse
import itertools
import statistics
from collections.abc import Iterator
from pathlib import Path

import skimage.data
import torch

from perceptual import StyleRecipe, Stylizer, images, style_transfer_loss, temporal_error
from perceptual.config import STEADY_PAINTING, from_dict
from perceptual.images import finding
from perceptual.motion import Steady, carry, move, places_of, similarity
from perceptual.tasks.style import read_painting, style_name

SIDE, FRAMES, AROUND = 320, 6, 32
SAMPLES = ("astronaut", "coffee")
MOTIONS = {
    "pan 1": similarity(1, 0),
    "pan 2": similarity(2, 0),
    "drift": similarity(0.7, 0.3, degrees=0.1),
    "zoom": similarity(0, 0, scale=0.995),
    "noise": similarity(0, 0),
}


def video_of(photograph: torch.Tensor, kind: str) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Frames, uint8 (1, 3, SIDE, SIDE), and the places of the known motion."""
    step = torch.cat([MOTIONS[kind], torch.tensor([[0.0, 0.0, 1.0]])])
    noise = torch.Generator().manual_seed(0)
    frames, total = [], torch.eye(3)
    for _ in range(FRAMES):
        frame = move(photograph, total[:2])[..., AROUND : AROUND + SIDE, AROUND : AROUND + SIDE]
        if kind == "noise":
            frame = frame + torch.randn(frame.shape, generator=noise) * 3 / 255
        frames.append((frame.clamp(0, 1) * 255 + 0.5).to(torch.uint8))
        total = total @ step
    return frames, [places_of(step[:2], SIDE, SIDE)] * (FRAMES - 1)


def painted(stylizer: Stylizer, style: str, frames: list[torch.Tensor], steady: float) -> Iterator[torch.Tensor]:
    """The paintings of a video."""
    smooth = Steady(steady)
    for frame in frames:
        yield smooth(frame, stylizer.stylize(frame, style=style))


class Objective:
    """Content and style terms, as the first network was trained."""

    def __init__(self, name: str, paintings: Path) -> None:
        self.stylizer = Stylizer.load(name)
        card = self.stylizer.card
        recipe = from_dict(StyleRecipe, card.settings)
        files = {style_name(path): path for path in paintings.iterdir()}
        self.loss = style_transfer_loss(recipe.loss, [read_painting(files[style], recipe) for style in card.styles])
        self.loss.set_references(card.references)

    @torch.no_grad()
    def __call__(self, painting: torch.Tensor, frame: torch.Tensor, style: str) -> tuple[float, float]:
        """Content and style, each over what photographs have on the average: as relative weights count them."""
        shares = torch.eye(len(self.stylizer.styles))[[self.stylizer.styles.index(style)]]
        values = self.loss(painting / 255, frame / 255, shares)
        found = {"content": 0.0, "style": 0.0}
        for name, term in self.loss.named_terms():
            if (kind := name.split()[0]) in found:
                reference = (shares * term.reference).sum() if len(term.reference) > 1 else term.reference[0]
                found[kind] += float(self.loss.weights[name] * values[name] / reference)
        return found["content"], found["style"]


def read_clip(path: Path, count: int) -> list[torch.Tensor]:
    """The first frames of a video, the longer side 640 px."""
    from perceptual.video import Reader

    with Reader(path, size=640) as reader:
        return [frame.pixels.clone() for frame in itertools.islice(reader, count)]


def photographs(folder: Path | None) -> list[torch.Tensor]:
    """Two squares of SIDE + 2 * AROUND pixels."""
    if folder:
        pictures = [images.read(found.path).pixels for found in finding.find([folder])[:2]]
    else:
        pictures = [images.from_any(getattr(skimage.data, name)()) for name in SAMPLES]
    whole = SIDE + 2 * AROUND
    return [images.resize(picture, shorter_side=whole)[..., :whole, :whole] for picture in pictures]


def draw(path: Path, networks: list[str], styles: list[str]) -> None:
    """Write the sheet: for each style frames, and below them paintings by each network; what flickers at the right."""
    frames, motion = video_of(photographs(None)[0], "drift")
    crop, places = (..., slice(20, 180), slice(90, 250)), motion[0].numpy()
    rows = []
    for style in styles:
        for name, steady in (("", 0.0), *((name, 0.0) for name in networks), (networks[-1], STEADY_PAINTING)):
            made = list(painted(Stylizer.load(name), style, frames, steady)) if name else frames
            flicker = (made[-1].float() - carry(made[-2], places).float()).abs() * 3
            last = [*made[-4:], flicker.clamp(0, 255)] if name else [*made[-4:], torch.full_like(made[0], 255)]
            rows.append(torch.cat([each[crop].float() / 255 for each in last], dim=3))
    images.write(path, torch.cat(rows, dim=2))


def main() -> None:
    """Print the table, or draw the sheet."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--sheet", type=Path)
    parser.add_argument("--clip", type=Path)
    parser.add_argument("--paintings", type=Path)
    parser.add_argument("--networks", nargs="+", default=["gallery", "gallery_video"])
    parser.add_argument("--styles", nargs="*")
    parser.add_argument("--steady", nargs="+", type=float, default=[0.0, STEADY_PAINTING])
    options = parser.parse_args()
    if options.sheet:
        return draw(options.sheet, options.networks, options.styles or ["wave", "udnie"])
    videos: dict[str, list[tuple[list[torch.Tensor], list[torch.Tensor] | None]]] = {kind: [] for kind in MOTIONS}
    for picture in photographs(options.photos):
        for kind in MOTIONS:
            videos[kind].append(video_of(picture, kind))
    if options.clip:
        videos["clip"] = [(read_clip(options.clip, 12), None)]
    objective = Objective(options.networks[0], options.paintings) if options.paintings else None
    columns = [*videos, "ratio", *(("content", "style") if objective else ())]
    print(f"| network | {' | '.join(columns)} |\n| --- |{' --- |' * len(columns)}")
    own = [statistics.mean(temporal_error(f, f, motion=m) for f, m in videos[kind]) for kind in videos]
    blank = " |" * (len(columns) - len(videos))
    print(f"| the frames themselves | {' | '.join(f'{value:.1f}' for value in own)} |{blank}", flush=True)
    first: list[float] = []
    for name, steady in itertools.product(options.networks, options.steady):
        stylizer = Stylizer.load(name)
        errors, terms = [], []
        for kind in videos:
            found = []
            for (frames, motion), style in itertools.product(videos[kind], options.styles or stylizer.styles):
                made = list(painted(stylizer, style, frames, steady))
                found.append(temporal_error(frames, made, motion=motion))
                if objective and kind == "drift":
                    terms.append(objective(made[-1], frames[-1], style))
            errors.append(statistics.mean(found))
        first = first or errors
        ratio = statistics.mean(ours / theirs for ours, theirs in zip(errors, first, strict=True))
        shown = [*(f"{value:.1f}" for value in errors), f"{ratio:.2f}"]
        shown += [f"{statistics.mean(values):.3f}" for values in zip(*terms, strict=True)]
        print(f"| {Path(name).stem}{f', steadied {steady:g}' * bool(steady)} | {' | '.join(shown)} |", flush=True)


if __name__ == "__main__":
    main()
