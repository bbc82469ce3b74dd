"""The page in the browser: paint photos, train styles, enlarge, convert videos, use the camera.

`perceptual studio` starts it. The page uses the same classes as the commands: `Stylizer`, `Upscaler` and Steps. It
computes nothing on images itself.
"""

from perceptual.studio.server import Address, running

__all__ = ["Address", "running"]
