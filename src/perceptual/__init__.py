"""Images into images with networks trained by perceptual losses.

After Johnson, Alahi and Fei-Fei, "Perceptual Losses for Real-Time Style Transfer and Super-Resolution" (ECCV 2016).

>>> from perceptual import Stylizer
>>> Stylizer.load("starry_night")(photograph)

The names below are the public interface; each is imported when it is first used, so that `import perceptual` is quick.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
