"""Style networks of TensorFlow as a TransformationNetwork: lengstrom/fast-style-transfer, and magenta.

Both normalise also after the last convolution, where ours do not. So the last convolution computes y and -y, both are
normalised, and a convolution 1x1 after the ReLU puts them together: y = relu(y) - relu(-y).
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping

import torch
from torch import Tensor

from perceptual.config import NetworkConfig
from perceptual.errors import CheckpointError
from perceptual.networks import TransformationNetwork

_OUR_EPS, _LENGSTROM_EPS = 1e-5, 1e-3
_FIRST = "transformer/contract/conv1/weights"
_Part = tuple[Tensor, Tensor, Tensor]
"""Weight of a convolution in TensorFlow's order (k, k, in, out); beta and gamma of its norm, (C,) or (styles, C)."""


def lengstrom(state: Mapping[str, Tensor]) -> TransformationNetwork | None:
    """The network of fast-style-transfer; None if the names are not its own. Filters and blocks may differ in number.

    Its tensors have no names: Variable, Variable_1 and so on are weight, beta and gamma of each convolution. As in
    their evaluate.py it reads levels of 0..255.

    Raises:
        CheckpointError: a tensor has a shape that does not fit.
    """
    names = ("Variable" if k == 0 else f"Variable_{k}" for k in itertools.count())
    own = [state[name] for name in itertools.takewhile(state.__contains__, names)]
    if len(own) < 18 or len(own) % 6:
        return None
    share = (_OUR_EPS / _LENGSTROM_EPS) ** 0.5  # with smaller weights the smaller epsilon of our norms is the same
    parts = [(share * own[k], own[k + 1], own[k + 2]) for k in range(0, len(own), 3)]
    parts[0] = (255 * parts[0][0], *parts[0][1:])
    try:
        config = NetworkConfig(_words(parts, "u"), norm="instance", padding="same-crop", tanh_scale=150)
        return _filled(TransformationNetwork(config), parts)
    except (RuntimeError, IndexError, ValueError) as error:
        raise CheckpointError("A tensor of fast-style-transfer does not fit: get the file again.") from error


def magenta(state: Mapping[str, Tensor]) -> TransformationNetwork | None:
    """The network of magenta's image_stylization; None if the names are not its own. It holds one style or more.

    Raises:
        CheckpointError: a tensor is missing, or has a shape that does not fit.
    """
    if _FIRST not in state:
        return None
    blocks = sum(re.fullmatch(r"transformer/residual/residual\d+/conv1/weights", name) is not None for name in state)
    layers = [f"contract/conv{k}" for k in (1, 2, 3)]
    layers += [f"residual/residual{k}/conv{j}" for k in range(1, blocks + 1) for j in (1, 2)]
    layers += [f"expand/conv{k}/conv" for k in (1, 2, 3)]
    try:
        parts = list[_Part]()
        for name in (f"transformer/{layer}" for layer in layers):
            beta, gamma = (state[f"{name}/InstanceNorm/{kind}"] for kind in ("beta", "gamma"))
            parts.append((state[f"{name}/weights"], beta, gamma))
        config = NetworkConfig(
            _words(parts, "U"), norm="conditional_instance", padding="reflect-crop", styles=len(parts[0][1])
        )
        network = _filled(TransformationNetwork(config), parts)
    except (KeyError, RuntimeError, IndexError, ValueError, TypeError) as error:
        raise CheckpointError("A tensor of the network of magenta is missing or does not fit: get it again.") from error
    held = network.state_dict()
    held["layers.0.conv.weight"].div_(2)  # it reads [0, 1], and ours -1..1
    held["layers.0.conv.bias"].add_(held["layers.0.conv.weight"].sum((1, 2, 3)))
    held[f"layers.{len(network.layers) - 1}.conv.weight"].div_(2)  # sigmoid(y) is 0.5 + 0.5 * tanh(y / 2)
    return network


def _words(parts: list[_Part], up: str) -> str:
    """The architecture. up: "u" or "U", the kind of the two layers that double the size."""
    widths = [part[1].shape[-1] for part in parts]
    first, down, deep, *_ = widths
    blocks, (kernel, end) = (len(parts) - 6) // 2, (parts[0][0].shape[0], parts[-1][0].shape[0])
    ups = [f"{up}{width}" for width in widths[-3:-1]]
    body = [f"r{deep}*{blocks}"] if blocks else []
    words = [f"c{kernel}s1-{first}", f"d{down}", f"d{deep}", *body, *ups, f"c{end}s1-{2 * widths[-1]}", "c1s1-3"]
    return " ".join(words)


def _filled(network: TransformationNetwork, parts: list[_Part]) -> TransformationNetwork:
    """Put the tensors of all convolutions into a network of `_words`."""
    weight, beta, gamma = parts[-1]
    last = (torch.cat([weight, -weight], 3), torch.cat([beta, -beta], -1), torch.cat([gamma, gamma], -1))
    blocks = range(3, len(network.layers) - 4)
    names = [f"layers.{k}.{half}" for k in blocks for half in ("first", "second")]
    names = [f"layers.{k}" for k in (0, 1, 2)] + names + [f"layers.{len(network.layers) - k}" for k in (4, 3, 2)]
    state: dict[str, Tensor] = {}
    for name, (weight, beta, gamma) in zip(names, [*parts[:-1], last], strict=True):
        norm = {f"{name}.norm.weight": gamma, f"{name}.norm.bias": beta}
        state |= {key: value if value.ndim == 2 else value[None] for key, value in norm.items()}
        state[f"{name}.conv.weight"] = weight.permute(3, 2, 0, 1)
        state[f"{name}.conv.bias"] = torch.zeros(beta.shape[-1])
    end = f"layers.{len(network.layers) - 1}.conv"
    state |= {f"{end}.weight": torch.cat([torch.eye(3), -torch.eye(3)], 1)[..., None, None]}
    network.load_state_dict({**state, f"{end}.bias": torch.zeros(3)})
    return network
