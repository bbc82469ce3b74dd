"""The known weight files: names, hashes, addresses, preprocessing, and tensors that identify their networks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Preprocessing:
    """How the network's training images were prepared: (pixels in [0, 1] * scale - mean) / std, channels in `order`.

    mean and std: one value for each channel in `order`, in the unit after scaling.
    """

    order: Literal["RGB", "BGR"]
    scale: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)


CAFFE_VGG = Preprocessing("BGR", 255.0, (103.939, 116.779, 123.68))
CAFFE_SQUEEZENET = Preprocessing("BGR", 255.0, (104.0, 117.0, 123.0))
IMAGENET = Preprocessing("RGB", 1.0, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
RAW = Preprocessing("RGB", 1.0, (0.0, 0.0, 0.0))


@dataclass(frozen=True)
class WeightFile:
    """A known file.

    sha256: 64 hex digits; 8 digits or "" if the full hash is not known.
    url: the address to download it from; None if it is not downloaded. size: in bytes, if known. tensor_bytes: 4 times
    the number of its weights, which is nearly its size, for messages where `size` is not known.
    tensors: the SHA-256 of its tensors, as `tensors_digest` computes it. It is given if the file's full SHA-256 is not
    known, because 8 digits can be forged. names: the tensors that it covers; all of the network's when empty.
    flag: how to name a copy of it on the command line, for messages.
    """

    file: str
    sha256: str
    url: str | None = None
    size: int | None = None
    tensors: str = ""
    names: tuple[str, ...] = ()
    tensor_bytes: int = 0
    flag: str = "--weights NAME=FILE"


@dataclass(frozen=True)
class Pretrained:
    """Known weights of one network.

    network: key of the architecture. files: the files with these weights, the best first. about: a description with the
    authors and the licence. origin: where to find a file that is not downloaded. strict: True if a file that
    is given by its path must contain exactly these tensors. Other networks have tensors with the same names and shapes.
    """

    network: str
    preprocessing: Preprocessing
    files: tuple[WeightFile, ...]
    about: str
    origin: str = ""
    strict: bool = False


def _johnson(file: str, weights: int) -> WeightFile:
    """A file on Justin Johnson's page. Only the 8 hash digits in its name are known."""
    digits = file.removesuffix(".pth").rpartition("-")[2]
    url = f"https://web.eecs.umich.edu/~justincj/models/{file}"
    return WeightFile(file, digits, url, tensor_bytes=4 * weights)


def _torchvision(network: str, file: str, sha256: str, size: int | None, *others: WeightFile) -> Pretrained:
    files = (WeightFile(file, sha256, f"https://download.pytorch.org/models/{file}", size), *others)
    return Pretrained(network, IMAGENET, files, f"{network}, trained on ImageNet by torchvision; BSD 3-clause")


_DISTILLED = "88c50eb5add4eb1138e02a469a96cb82dea136361c57280ab34ba3d4ddb500e7"

PRETRAINED: dict[str, Pretrained] = {
    "vgg16": Pretrained("vgg16", CAFFE_VGG, (_johnson("vgg16-00b39a1b.pth", 138_357_544), WeightFile(
        "vgg16_conv1_1-conv3_3.safetensors", "df26a9fe17f5986cb2886437d5617962a63860f0e860a622c097683736ea1cab")),
        "VGG-16, Caffe weights of Simonyan and Zisserman converted by Justin Johnson, as in the paper; CC BY 4.0"),
    "vgg16-torchvision": _torchvision("vgg16", "vgg16-397923af.pth",
        "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0", 553_433_881, WeightFile(
        "vgg16_torchvision_features.safetensors", "cabd922aeb0dd6d56f2bed33221aee74b7f1e760ddd105c0e0891606cbab6d0d")),
    "vgg19": Pretrained("vgg19", CAFFE_VGG, (_johnson("vgg19-d01eb7cb.pth", 143_667_240), WeightFile(
        "vgg19_conv1_1-conv3_4.safetensors", "eaab9b1c1035f802c694a0bb6b63a22de4da10a0bfada1e844977bc5e4e60cec")),
        "VGG-19, Caffe weights of Simonyan and Zisserman converted by Justin Johnson; CC BY 4.0"),
    "vgg19-torchvision": _torchvision("vgg19", "vgg19-dcbb9e9d.pth",
        "dcbb9e9dad569fff7a846263a77324fc34978fea2bfb039c012d710e1776ae44", 574_673_361),
    "vgg19-distilled": Pretrained("vgg19_distilled", RAW, (
        WeightFile("5SE.pth", "", tensors=_DISTILLED), WeightFile("vgg19_distilled_se16x_to_relu5_1.safetensors",
        "b9c8d3a00bb1c308850845e6ce388eec9248ba8eede1e4ef8aaca9aa7c94af3c")),
        "VGG-19 distilled to a quarter of its channels, Wang et al., Collaborative Distillation, CVPR 2020; MIT",
        "trained_models/wct_se_16x_new/5SE.pth of https://github.com/MingSun-Tse/Collaborative-Distillation", True),
    "squeezenet1_0": Pretrained("squeezenet1_0", CAFFE_SQUEEZENET, (WeightFile("squeezenet1_0.safetensors",
        "fdb640499914f9e03f42a5fc36fe481cf39e9470c51b46ebdd6294eb770aaa7a"),),
        "SqueezeNet 1.0, Caffe weights, deep-compressed by Song Han; BSD 2-clause"),
    "squeezenet1_0-torchvision": _torchvision("squeezenet1_0", "squeezenet1_0-b66bff10.pth", "b66bff10", None),
    "squeezenet1_1": Pretrained("squeezenet1_1", CAFFE_SQUEEZENET, (WeightFile("squeezenet1_1_features.safetensors",
        "52511200eede2a02b60885fb60596acaceec636ec896f80021c6705561619791"),),
        "SqueezeNet 1.1, Caffe weights of DeepScale, without the classifier; BSD 2-clause"),
    "alexnet-torchvision": _torchvision("alexnet", "alexnet-owt-7be5be79.pth",
        "7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02", 244_408_911,
        WeightFile("alexnet_torchvision_features.safetensors",
        "9f97fd313f4da83dbe6bbfbe6effca1241de9edfcd7c53386261ed9697286dd9")),
    "squeezenet1_1-torchvision": _torchvision("squeezenet1_1", "squeezenet1_1-b8a52dc0.pth",
        "b8a52dc049b60e4b6ab68ad0df457362afab8b6304b2febdc1650a5dab4d7e7b", 4_958_839),
}  # fmt: skip

# network: key and shape of its first convolution, and keys that only similar networks have (batch norm, VGG-19, ...)
_VGG, _NO_VGG = ("features.0.weight", (64, 3, 3, 3)), ("features.1.weight", "features.3.squeeze.weight")
LOOKS: dict[str, tuple[str, tuple[int, ...], tuple[str, ...]]] = {
    "vgg16": (*_VGG, (*_NO_VGG, "features.16.weight")),
    "vgg19": (*_VGG, (*_NO_VGG, "features.17.weight")),
    "vgg19_distilled": ("conv0.weight", (3, 3, 1, 1), ()),
    "alexnet": ("features.0.weight", (64, 3, 11, 11), ()),
    "squeezenet1_0": ("features.0.weight", (96, 3, 7, 7), ()),
    "squeezenet1_1": ("features.0.weight", (64, 3, 3, 3), ("features.1.weight", "features.2.weight")),
}
