"""Style networks of pytorch/examples (fast_neural_style) as a TransformationNetwork.

Their network has the layers of Johnson et al. with nearest-neighbour doubling, instance normalisation and reflection
padding everywhere. It reads and writes levels 0..255; ours reads and writes [0, 1]. The difference is folded into the
first and the last convolution. That is exact: a constant passes through reflection padding unchanged.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from perceptual.config import NetworkConfig
from perceptual.errors import CheckpointError
from perceptual.networks import TransformationNetwork

FIRST, LAST = "conv1.conv2d.weight", "deconv3.conv2d.weight"


def recognises(state: Mapping[str, Tensor]) -> bool:
    """Whether tensors have the names of pytorch/examples."""
    return {FIRST, LAST, "res1.conv1.conv2d.weight", "in1.weight"} <= set(state)


def network_of(state: Mapping[str, Tensor]) -> TransformationNetwork:
    """Build the network from its tensors. The number of filters and of residual blocks may differ from theirs.

    Files from PyTorch 0.3 and earlier also hold `running_mean` and `running_var` of the instance norms. Their code does
    not use them, so they are left out.

    Raises:
        CheckpointError: a tensor is missing, or has a shape that does not fit.
    """
    blocks = sum(re.fullmatch(r"res\d+\.conv1\.conv2d\.weight", name) is not None for name in state)
    ours = _names(blocks)
    unused = re.compile(r".*\.(running_mean|running_var|num_batches_tracked)")
    kept = {name: value for name, value in state.items() if not unused.fullmatch(name)}
    if lacking := sorted(set(ours) - set(kept)):
        raise CheckpointError(f"The network of pytorch/examples lacks {lacking[0]}: get the file again.")
    try:
        network = TransformationNetwork(_config(state, blocks))
        tensors = {ours[name]: value[None] if ".norm." in ours[name] else value for name, value in kept.items()}
        network.load_state_dict(_folded(tensors))
    except (KeyError, RuntimeError, IndexError, ValueError) as error:
        raise CheckpointError(
            "A tensor of the network of pytorch/examples does not fit: get the file again."
        ) from error
    return network


def _config(state: Mapping[str, Tensor], blocks: int) -> NetworkConfig:
    def filters(name: str) -> int:
        return state[f"{name}.conv2d.weight"].shape[0]

    ends = [(state[name].shape[-1], state[name].shape[0]) for name in (FIRST, LAST)]
    (first, last), (down, deep) = [f"c{kernel}s1-{count}" for kernel, count in ends], map(filters, ("conv2", "conv3"))
    up = f"U{filters('deconv1')} U{filters('deconv2')}"
    words = f"{first} d{down} d{deep} r{deep}*{blocks} {up} {last}"
    return NetworkConfig(words, norm="instance", padding="reflect-crop", output="linear")


def _names(blocks: int) -> dict[str, str]:
    """{name of a tensor in pytorch/examples: its name in a TransformationNetwork}."""
    layers = {"conv1": "in1", "conv2": "in2", "conv3": "in3"}
    layers |= {f"res{k}": "" for k in range(1, blocks + 1)}
    layers |= {"deconv1": "in4", "deconv2": "in5", "deconv3": ""}
    found = {}
    for index, (name, norm) in enumerate(layers.items()):
        for kind in ("weight", "bias"):
            if name.startswith("res"):
                for number, part in ((1, "first"), (2, "second")):
                    found[f"{name}.conv{number}.conv2d.{kind}"] = f"layers.{index}.{part}.conv.{kind}"
                    found[f"{name}.in{number}.{kind}"] = f"layers.{index}.{part}.norm.{kind}"
            else:
                found[f"{name}.conv2d.{kind}"] = f"layers.{index}.conv.{kind}"
                if norm:
                    found[f"{norm}.{kind}"] = f"layers.{index}.norm.{kind}"
    return found


def _folded(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors for a network that reads -1..1 and writes -1..1 in place of levels 0..255."""
    last = max(int(name.split(".")[1]) for name in tensors)
    first, end = "layers.0.conv", f"layers.{last}.conv"
    weight = tensors[f"{first}.weight"]
    return {
        **tensors,
        f"{first}.weight": 127.5 * weight,  # levels = 127.5 * x + 127.5
        f"{first}.bias": tensors[f"{first}.bias"] + 127.5 * weight.sum((1, 2, 3)),
        f"{end}.weight": tensors[f"{end}.weight"] / 127.5,  # x = levels / 127.5 - 1
        f"{end}.bias": tensors[f"{end}.bias"] / 127.5 - 1,
    }
