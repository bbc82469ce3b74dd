"""The page in the browser: paint, learn styles, enlarge, videos, camera. Start it with `perceptual studio`.

Models and jobs are those of the command: `Stylizer`, `Upscaler` and Steps. The page itself does no image mathematics.
"""

from perceptual.studio.server import Address, running

__all__ = ["Address", "running"]
