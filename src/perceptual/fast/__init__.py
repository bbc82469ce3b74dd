"""Fast painting on a CPU: style networks as convolutions on folded grids, in int8 or float32.

Other parts of the program import only these names:

- `supports(network)`: whether fast inference can run a network.
- `Inference(network, precision)`: runs it. `BAND`: pixels of one band of a large picture.
- `reads_bytes()`: whether this processor paints in int8.
- `enlarges(network)`, `enlarge_bytes(network, ...)`: the same for networks of super-resolution.
- `prepare_kernels(...)`: chooses the compiled kernels of this process. `kernels_in_use()`: names them.
"""

from perceptual.fast.enlarging import enlarge_bytes, enlarges
from perceptual.fast.inference import BAND, Inference
from perceptual.fast.library import kernels_in_use, prepare_kernels
from perceptual.fast.plan import reads_bytes, supports

__all__ = [
    "BAND",
    "Inference",
    "enlarge_bytes",
    "enlarges",
    "kernels_in_use",
    "prepare_kernels",
    "reads_bytes",
    "supports",
]
