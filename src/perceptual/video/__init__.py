"""Films: read, painted or enlarged frame by frame, and written with their sound; the only room that knows PyAV.

file -> `Reader` -> (1, 3, H, W) uint8 -> what is done to each picture -> `Writer`, which copies sound, subtitles and
the rest as they are. `convert_video` runs all of it, each part in a thread of its own.

Raises:
    VideoError: PyAV is not installed.
"""

from perceptual.errors import VideoError

try:
    import av  # noqa: F401
except ImportError as error:
    raise VideoError("Films need PyAV: pip install 'perceptual[video]'.") from error

from perceptual.video.convert import Conversion, check_conversion, convert_video
from perceptual.video.film import Frame
from perceptual.video.reader import Reader
from perceptual.video.source import Info
from perceptual.video.writer import Writer

__all__ = ["Conversion", "Frame", "Info", "Reader", "Writer", "check_conversion", "convert_video"]
