"""What painting in 8 bits costs: PSNR of int8 against float32 over folders of photographs, and the least of all.

python benchmarks/precision.py FOLDER ... [--size N]     FOLDER holds photographs; --size scales their longer side to N

Both sides are the shipped networks as `perceptual stylize` runs them, with --precision int8 and float32. PSNR is over
the RGB levels of the two paintings. A processor without instructions for int8 has nothing to measure.
"""

import argparse
import statistics

from perceptual import Stylizer, images, psnr
from perceptual.checkpoints import shipped
from perceptual.images import finding


def measure(stylizer: Stylizer, style: str, picture) -> tuple[float, int]:
    """PSNR in dB, and the greatest difference of a value in levels, of a painting in int8 against float32."""
    painted = {}
    for precision in ("int8", "float32"):
        stylizer.precision = precision
        painted[precision] = stylizer.stylize(picture, style=style)
    decibels = psnr(painted["int8"], painted["float32"], color="rgb")
    return decibels, int((painted["int8"].int() - painted["float32"].int()).abs().max())


def main() -> None:
    """Print a row for each style of each shipped network, and the least of all."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folders", nargs="+")
    parser.add_argument("--size", type=int)
    options = parser.parse_args()
    pictures = {}
    for file in finding.find(options.folders):
        pixels = images.read(file.path, levels=True).pixels
        if options.size:
            pixels = images.like(images.resize(images.unit(pixels), longer_side=options.size), pixels)
        pictures[file.relative.stem] = pixels
    print(
        f"{len(pictures)} photographs at {options.size or 'their own'} px: least PSNR of int8 against float32, in dB\n"
    )
    print("| network | style | least | photograph | next | median | below 40 dB | largest difference, levels |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    all_of_them = []
    for network, file in shipped.networks("style").items():
        stylizer = Stylizer.load(file, device="cpu")
        for style in stylizer.styles:
            found = [(*measure(stylizer, style, pixels), name) for name, pixels in pictures.items()]
            all_of_them += [(decibels, network, style, name) for decibels, _, name in found]
            (least, _, name), second = sorted(found)[:2] if len(found) > 1 else (found[0], found[0])
            below = sum(decibels < 40 for decibels, _, _ in found)
            row = [f"{least:.1f}", name, f"{second[0]:.1f} ({second[2]})"]
            row += [f"{statistics.median(each[0] for each in found):.1f}", str(below), str(max(e[1] for e in found))]
            print(f"| {network} | {style} | {' | '.join(row)} |", flush=True)
    decibels, network, style, name = min(all_of_them)
    print(f"\nThe least of {len(all_of_them)} pairs: {decibels:.1f} dB, {style} of {network} on {name}.")


if __name__ == "__main__":
    main()
