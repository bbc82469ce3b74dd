"""Video: read, painted or enlarged frame by frame, and written with its sound. Only this package imports PyAV.

file -> `Reader` -> frames (1, 3, H, W), uint8 -> conversion of each frame -> `Writer`, which also copies sound,
subtitles and other streams. `convert_video` runs all steps, each in its own thread.

Raises:
    VideoError: PyAV is not installed.
"""

from perceptual.errors import VideoError

try:
    import av  # noqa: F401
except ImportError as error:
    raise VideoError("Videos need PyAV: pip install 'perceptual[video]'.") from error

from perceptual.video.base import Frame
from perceptual.video.convert import Conversion, check_conversion, convert_video
from perceptual.video.reader import Reader
from perceptual.video.recorder import Recorder
from perceptual.video.source import Info
from perceptual.video.stills import open_video, stills
from perceptual.video.writer import Writer

__all__ = [
    "Conversion",
    "Frame",
    "Info",
    "Reader",
    "Recorder",
    "Writer",
    "check_conversion",
    "convert_video",
    "open_video",
    "stills",
]
