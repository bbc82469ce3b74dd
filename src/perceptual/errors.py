"""The exceptions for all errors that a user can cause. The text is one sentence that says how to fix the problem.

PerceptualError
├── ConfigError      a setting is unknown, out of range or contradicts another setting
├── ImageError       an image cannot be read, or its kind is not supported
├── VideoError       a video cannot be read, or contains no frames
├── OutputError      a result cannot be written (disk full, no permission, a folder of the same name)
├── WeightsError     pretrained weights are missing or incomplete, have the wrong hash, or lack a layer
├── CheckpointError  a file is not a checkpoint of this package, or is for another task
├── DataError        a folder of images for training or measuring is missing, empty or unreadable
└── TrainingError    training cannot continue (a loss is not a number, or --resume does not fit the run)
"""

from __future__ import annotations


def shown(value: object, most: int = 80) -> str:
    """A user's value as text for an error message: at most `most` characters, one line, no control characters."""
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 200:
        return f"a number of about {int(value.bit_length() * 0.30103) + 1} digits"  # Python may refuse to print it
    try:
        text = str(value) if isinstance(value, (int, float)) else repr(value)
    except (ValueError, RecursionError):  # a list with such a number, or one that contains itself
        text = f"a {type(value).__name__}"
    return text if len(text) <= most else f"{text[: most - 4]} ..."


class PerceptualError(Exception):
    """Base class of all errors that a user can fix. Its text is one sentence for the terminal."""


class ConfigError(PerceptualError):
    """A setting is unknown, out of range or contradicts another setting."""


class ImageError(PerceptualError):
    """An image cannot be read, or its kind is not supported."""


class VideoError(PerceptualError):
    """A video cannot be read, or contains no frames."""


class OutputError(PerceptualError):
    """A result cannot be written. No incomplete file is left behind."""


class WeightsError(PerceptualError):
    """Pretrained weights are missing or incomplete, have the wrong hash, or lack a layer."""


class CheckpointError(PerceptualError):
    """A file is not a checkpoint of this package, or is for another task."""


class DataError(PerceptualError):
    """A folder of images for training or measuring is missing, empty or unreadable."""


class TrainingError(PerceptualError):
    """Training cannot continue: a loss is not a number, or the saved state does not fit the run."""
