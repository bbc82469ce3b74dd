"""How fast one GPU paints, trains and optimises, against the way of pytorch/examples on the same GPU, in one run.

python benchmarks/gpu.py                         about 2 minutes on one GPU; needs no weights and no photos
python benchmarks/gpu.py --device cpu --quick    a short try on any computer; its times say nothing

`plain` is the network of pytorch/examples (fast_neural_style) as a PyTorch model of our own: full width, float32,
eager, NCHW, one picture after the other, with weights by chance. Its training step is theirs too: VGG-16 to relu4_3 for
the output and the photo. The loss networks have weights by chance, which cost the same. Pictures go from the memory of
the computer to the GPU and back. Videos are read from a file and written to a file. Photos for training are read once
from JPEGs, those of `plain` lie on the GPU. Training has --precision auto. Rows without a plain column have nothing to
compare with.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import safetensors.torch
import torch
from timing import in_turn
from torch import Tensor, nn

from perceptual import Stylizer, images
from perceptual.checkpoints import Card
from perceptual.config import BASELINE_LOSS, NetworkConfig, OptimizeConfig, VideoConfig
from perceptual.data import Photographs
from perceptual.fast import prepare_kernels
from perceptual.losses.architectures import ARCHITECTURES
from perceptual.networks import TransformationNetwork
from perceptual.optimize import optimize_style
from perceptual.tasks.style import Style
from perceptual.train import Trainer

FULL = "c9s1-32 d64 d128 r128*5 U64 U32 c9s1-3"
DEEPEST = "relu4_3"


@dataclass(frozen=True)
class Sizes:
    """How much is measured. Sides in pixels; steps and iterations after `unmeasured` ones that pay for starting."""

    side: int = 512
    rounds: int = 50
    video: tuple[int, int] = (3840, 2160)
    frames: int = 96
    crop: int = 256
    steps: int = 300
    iterations: int = 100
    unmeasured: int = 20


QUICK = Sizes(64, 2, (96, 64), 6, 64, 3, 3, 1)


class Plain(nn.Sequential):
    """The network of pytorch/examples: reflection padding, instance norm with gamma and beta, nearest-neighbour."""

    def __init__(self) -> None:
        def layer(inner: int, outer: int, kernel: int, stride: int = 1, norm: bool = True) -> list[nn.Module]:
            made = [nn.ReflectionPad2d(kernel // 2), nn.Conv2d(inner, outer, kernel, stride)]
            return [*made, nn.InstanceNorm2d(outer, affine=True), nn.ReLU()] if norm else made

        super().__init__(
            *(*layer(3, 32, 9), *layer(32, 64, 3, 2), *layer(64, 128, 3, 2)),
            *(PlainBlock(layer(128, 128, 3) + layer(128, 128, 3)[:-1]) for _ in range(5)),
            *(nn.Upsample(scale_factor=2), *layer(128, 64, 3), nn.Upsample(scale_factor=2), *layer(64, 32, 3)),
            *layer(32, 3, 9, norm=False),
        )


class PlainBlock(nn.Sequential):
    """A residual block without ReLU after the sum."""

    def __init__(self, layers: list[nn.Module]) -> None:
        super().__init__(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x)


class Bench:
    """All measurements on one device. Each yields rows: what, goal, ours, plain."""

    def __init__(self, device: torch.device, sizes: Sizes, folder: Path) -> None:
        self.device, self.sizes, self.folder = device, sizes, folder
        self.paths = {name: folder / "vgg16.safetensors" for name in ("vgg16", "vgg16-torchvision")}
        stages, self.vgg = ARCHITECTURES["vgg16"]("vgg16"), nn.Sequential()
        self.taps: list[int] = []
        state = {}
        for index, (name, stage) in enumerate(stages):
            state |= {f"features.{index}.{key}": value.detach() for key, value in stage.named_parameters()}
            self.vgg.append(stage)
            self.taps += [index] if name in ("relu1_2", "relu2_2", "relu3_3", DEEPEST) else []
            if name == DEEPEST:
                break
        safetensors.torch.save_file(state, self.paths["vgg16"])
        self.vgg.requires_grad_(False).to(device)
        self.photo = torch.rand(1, 3, sizes.side, sizes.side)

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def paint(self) -> Iterator[tuple[str, str, str, str]]:
        config = NetworkConfig(architecture=FULL, norm="instance", padding="reflect")
        torch.manual_seed(0)
        full = Stylizer(TransformationNetwork(config), Card("style", config), device=str(self.device))
        gallery, plain = Stylizer.load("gallery", device=str(self.device)), Plain().to(self.device).eval()
        levels = (self.photo * 255).to(torch.uint8)

        @torch.no_grad()
        def plainly() -> Tensor:
            x = levels.float().to(self.device)
            return plain(x).clamp(0, 255).to(torch.uint8).cpu()

        sides = {
            "gallery": lambda: gallery.stylize(levels),
            "full": lambda: full.stylize(levels),
            "plain": plainly,
        }
        for _, side in itertools.product(range(5), sides.values()):  # the CUDA graphs are made
            side()
        times = in_turn(sides, rounds=self.sizes.rounds)
        for name, goal in (("gallery", "1 ms"), ("full", "2 ms")):
            what = f"{name}, {self.sizes.side} px, one picture"
            yield what, f"below {goal}", f"{1000 * times[name]:.2f} ms", f"{1000 * times['plain']:.2f} ms"
        batch = levels.repeat(16, 1, 1, 1)
        one = in_turn({"batch": lambda: gallery.stylize(batch)}, rounds=max(2, self.sizes.rounds // 5))["batch"] / 16
        yield f"gallery, {self.sizes.side} px, 16 pictures at once", "", f"{1000 * one:.2f} ms each", ""

    def video(self) -> Iterator[tuple[str, str, str, str]]:
        import av

        from perceptual.video import Conversion, Reader

        source, (width, height) = self.folder / "video.mp4", self.sizes.video
        noise = images.resize(torch.rand(1, 3, height // 16, width // 16), size=(height, width))
        levels = (noise * 255).to(torch.uint8)
        with av.open(str(source), "w") as out:
            stream = out.add_stream("libx264", rate=30, options={"preset": "ultrafast"})
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            for k in range(self.sizes.frames):
                array = levels[0].roll(2 * k, -1).permute(1, 2, 0).contiguous().numpy()
                out.mux(stream.encode(av.VideoFrame.from_ndarray(array, format="rgb24")))
            out.mux(stream.encode(None))
        stylizer = Stylizer.load("starry_night", video=True, device=str(self.device))
        plain = Plain().to(self.device).eval()

        @torch.no_grad()
        def plainly(frame: Tensor) -> Tensor:
            return plain(frame.float().to(self.device)).clamp(0, 255).to(torch.uint8).cpu()

        def rate(convert: object, encoder: str) -> tuple[str, str | None]:
            conversion = Conversion(source, self.folder / "out.mp4", convert, config=VideoConfig(encoder=encoder))
            times, said = [], None
            for step in conversion.run():
                times.append(time.perf_counter())
                said = step.message or said
            first = self.sizes.unmeasured
            return f"{(len(times) - 1 - first) / (times[-1] - times[first]):.1f} frames/s", said

        what = f"video, {width} x {height}, "
        with Reader(source) as reader:
            frame = next(iter(reader)).pixels.clone()
        for _ in range(5):
            stylizer.stylize(frame)
        alone = in_turn({"paint": lambda: stylizer.stylize(frame)}, rounds=max(2, self.sizes.rounds // 5))["paint"]
        yield what + "painting alone", "", f"{1 / alone:.1f} frames/s", ""
        for encoder in ("nvenc", "software"):
            ours, said = rate(stylizer.stylize, encoder)
            copied, _ = rate(lambda pixels: pixels, encoder)
            note = " (NVENC is not there: software)" if said and "NVENC" in said else ""
            theirs = rate(plainly, encoder)[0] if encoder == "nvenc" else ""
            yield what + f"end to end, {encoder}{note}", "above 60 frames/s", ours, theirs
            yield what + f"reading and writing alone, {encoder}{note}", "", copied, ""

    def photos(self) -> Path:
        folder = self.folder / "photos"
        folder.mkdir(exist_ok=True)
        for k in range(64):
            if not (folder / f"{k}.jpg").exists():
                small = torch.rand(1, 3, 48, 64, generator=torch.Generator().manual_seed(k))
                images.write(folder / f"{k}.jpg", images.resize(small, size=(480, 640)))
        return folder

    def train(self) -> Iterator[tuple[str, str, str, str]]:
        plain = self.plain_step()
        for _ in range(self.sizes.unmeasured):
            plain()
        plainly = in_turn({"plain": plain}, rounds=self.sizes.steps // 3)["plain"]
        for name, pictures, goal in (("paper", 160_000, "10 minutes"), ("gallery", 160_000, "30 minutes")):
            settings = Style.recipe(name)
            crop, count = self.sizes.crop, self.sizes.unmeasured + self.sizes.steps
            few = replace(
                settings.train,
                size=crop,
                batch=4,
                steps=count,
                precision="auto",
                keep_photos=True,
                preview_every=0,
                save_every=100_000,
            )
            settings = replace(settings, train=few, style_size=256)
            photos = Photographs(self.photos(), crop, skip_flat=True)
            paintings = {"one": ("", self.photo)}
            if name == "gallery":
                paintings = {f"style_{k}": ("", self.photo.roll(k, 1)) for k in range(11)}
            trainer = Trainer(
                Style(paintings, settings, photos, paths=self.paths),
                few,
                self.folder / f"{name}.safetensors",
                device=str(self.device),
            )
            trainer.begin(overwrite=True)
            times = [time.perf_counter() for _ in trainer.run(photos)]
            ours = (times[-1] - times[self.sizes.unmeasured - 1]) / (len(times) - self.sizes.unmeasured)
            minutes = [pictures / 4 * each / 60 for each in (ours, plainly)]
            what = f"training, {name}, batch 4 at {crop} px, {trainer.describe()}"
            theirs = f"{1 / plainly:.1f} steps/s, {minutes[1]:.1f} minutes" if name == "paper" else ""
            goal_text = f"{pictures:,} pictures below {goal}"
            yield what, goal_text, f"{1 / ours:.1f} steps/s, {minutes[0]:.1f} minutes", theirs

    def features(self, x: Tensor) -> list[Tensor]:
        found = []
        for index, stage in enumerate(self.vgg):
            x = stage(x)
            found += [x] if index in self.taps else []
        return found

    def plain_loss(self, out: Tensor, photo: Tensor, grams: list[Tensor]) -> Tensor:
        made, goal = self.features(out), self.features(photo)
        style = sum(nn.functional.mse_loss(gram(each), wanted) for each, wanted in zip(made, grams, strict=True))
        return nn.functional.mse_loss(made[1], goal[1]) + style

    def plain_step(self):
        """A training step as in pytorch/examples: float32, eager; photos that lie on the device."""
        network = Plain().to(self.device)
        optimizer = torch.optim.Adam(network.parameters(), 1e-3)
        photos = torch.rand(4, 3, self.sizes.crop, self.sizes.crop, device=self.device)
        with torch.no_grad():
            grams = [gram(each).expand(4, -1, -1) for each in self.features(self.photo.to(self.device))]

        def step() -> None:
            optimizer.zero_grad()
            self.plain_loss(network(photos), photos, grams).backward()
            optimizer.step()
            self.wait()

        return step

    def optimise(self) -> Iterator[tuple[str, str, str, str]]:
        side, count = self.sizes.side, self.sizes.iterations
        x = self.photo.to(self.device).requires_grad_()
        with torch.no_grad():
            grams = [gram(each) for each in self.features(self.photo.flip(3).to(self.device))]
        adam = torch.optim.Adam([x], 0.02)

        def plainly() -> None:
            adam.zero_grad()
            self.plain_loss(x, self.photo.to(self.device), grams).backward()
            adam.step()
            self.wait()

        for _ in range(3):
            plainly()
        theirs = 500 * in_turn({"plain": plainly}, rounds=count)["plain"]
        for method in ("lbfgs", "adam"):
            config = OptimizeConfig(
                size=side, iterations=count + 3, method=method, preview_every=0, device=str(self.device)
            )
            run = optimize_style(self.photo, self.photo.flip(3), loss=BASELINE_LOSS, config=config, paths=self.paths)
            times = [time.perf_counter() for _ in run.run()]
            ours = 500 * (times[-1] - times[2]) / max(1, len(times) - 3)
            plain = f"{theirs:.1f} s" if method == "adam" else ""
            yield f"optimize, {side} px, {method}, 500 iterations", "below 10 s", f"{ours:.1f} s", plain


def gram(features: Tensor) -> Tensor:
    """Gram matrices (N, C, C) of features (N, C, H, W), divided by C H W."""
    flat = features.flatten(2)
    return flat @ flat.transpose(1, 2) / flat[0].numel()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1 ... or cpu")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to try the script")
    chosen = parser.parse_args()
    device = torch.device(chosen.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        sys.exit("There is no CUDA GPU on this computer: run this where there is one, or add --device cpu --quick.")
    prepare_kernels()
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    print(f"{name}, PyTorch {torch.__version__}, {torch.get_num_threads()} threads{', quick' * chosen.quick}\n")
    print("| what | goal on one H100 | ours | plain |\n| --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(device, QUICK if chosen.quick else Sizes(), Path(folder))
        for part in (bench.paint, bench.video, bench.train, bench.optimise):
            for row in part():
                print("| " + " | ".join(row) + " |", flush=True)


if __name__ == "__main__":
    main()
