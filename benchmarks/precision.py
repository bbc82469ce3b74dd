"""What painting in 8 bits costs: PSNR of int8 against float32 over folders of photographs, and the least of all.

python benchmarks/precision.py FOLDER ... [--size N] [--styles NAME ...]

FOLDER holds photographs. --size scales their longer side to N. --styles measures these styles only.

Both sides are the shipped networks as `perceptual stylize` runs them, with --precision int8 and float32. PSNR is over
the RGB levels of the two paintings. A processor without int8 instructions has nothing to measure. The last column is
the mean number of layers of a painting that do not read bytes, because bytes are too coarse for this photograph.
"""

import argparse
import statistics

from perceptual import Stylizer, images, psnr
from perceptual.checkpoints import shipped
from perceptual.fast import painting
from perceptual.images import finding

COLUMNS = ["network", "style", "least", "photograph", "next", "median", "below 42 dB", "largest difference, levels"]
COLUMNS += ["finer layers"]
finer: list[int] = []
"""For each painting in int8 the number of layers that read 12 bits or floats because bytes are too coarse."""


def count_finer() -> None:
    """From here on, each painting in int8 adds a number to `finer`."""
    coarse, paint = painting.too_coarse, painting.Painting.paint

    def noted(*arguments) -> bool:
        found = coarse(*arguments)
        finer[-1] += found
        return found

    def begun(self):
        if any(self.tops):
            finer.append(0)
        return paint(self)

    painting.too_coarse, painting.Painting.paint = noted, begun


def measure(stylizer: Stylizer, style: str, picture) -> tuple[float, int]:
    """PSNR in dB, and the greatest difference of a value in levels, of a painting in int8 against float32."""
    painted = {}
    for precision in ("int8", "float32"):
        painted[precision] = stylizer.stylize(picture, style=style, precision=precision)
    decibels = psnr(painted["int8"], painted["float32"], color="rgb")
    return decibels, int((painted["int8"].int() - painted["float32"].int()).abs().max())


def main() -> None:
    """Print a row for each style of each shipped network, and the least of all."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folders", nargs="+")
    parser.add_argument("--size", type=int)
    parser.add_argument("--styles", nargs="+", default=[])
    options = parser.parse_args()
    count_finer()
    pictures = {}
    for file in finding.find(options.folders):
        pixels = images.read(file.path, levels=True).pixels
        if options.size:
            pixels = images.like(images.resize(images.unit(pixels), longer_side=options.size), pixels)
        pictures[file.relative.stem] = pixels
    print(
        f"{len(pictures)} photographs at {options.size or 'their own'} px: least PSNR of int8 against float32, in dB\n"
    )
    print(f"| {' | '.join(COLUMNS)} |\n|{' --- |' * len(COLUMNS)}")
    all_of_them = []
    for network, file in shipped.networks("style").items():
        stylizer = Stylizer.load(file, device="cpu")
        for style in [each for each in stylizer.styles if each in options.styles or not options.styles]:
            before = len(finer)
            found = [(*measure(stylizer, style, pixels), name) for name, pixels in pictures.items()]
            all_of_them += [(decibels, network, style, name) for decibels, _, name in found]
            (least, _, name), second = sorted(found)[:2] if len(found) > 1 else (found[0], found[0])
            below = sum(decibels < 42 for decibels, _, _ in found)
            row = [f"{least:.1f}", name, f"{second[0]:.1f} ({second[2]})"]
            row += [f"{statistics.median(each[0] for each in found):.1f}", str(below), str(max(e[1] for e in found))]
            row += [f"{statistics.mean(finer[before:] or [0]):.1f}"]
            print(f"| {network} | {style} | {' | '.join(row)} |", flush=True)
    decibels, network, style, name = min(all_of_them)
    print(f"\nThe least of {len(all_of_them)} pairs: {decibels:.1f} dB, {style} of {network} on {name}.")
    print(
        f"Layers that do not read bytes because these are too coarse: {statistics.mean(finer or [0]):.1f} a painting."
    )


if __name__ == "__main__":
    main()
