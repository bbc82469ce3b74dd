"""How often `--loss auto` takes a picture as compressed, noisy or aliased: as it is, and after it was made small.

python benchmarks/damage.py FOLDER ... [--scale 4]

The table has the number of pictures of each folder, and how many of them are taken so: as they are, and after each
way of upscale_photo.py to make them small. "original" and "bicubic" should be 0, and the others all pictures.
"""

import argparse

from upscale_photo import originals, ways

from perceptual.quality import damage

SIDE = 1024


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+")
    parser.add_argument("--scale", type=int, default=4)
    arguments = parser.parse_args()
    made = {"original": lambda picture: picture, **ways(arguments.scale)}
    made["nearest pixel"] = lambda picture: picture[..., 1 :: arguments.scale, 1 :: arguments.scale]
    print(f"| folder | pictures | {' | '.join(made)} |")
    print("| --- " * (len(made) + 2) + "|")
    for folder in arguments.folders:
        counts, total = dict.fromkeys(made, 0), 0
        for picture in originals(folder, SIDE, arguments.scale):
            total += 1
            for name, change in made.items():
                counts[name] += bool(damage((change(picture) * 255).round().byte()))
        print(f"| {folder} | {total} | {' | '.join(str(count) for count in counts.values())} |", flush=True)


if __name__ == "__main__":
    main()
