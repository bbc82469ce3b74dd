"""One exception tree: whatever a user can do wrong ends in one of these, with one sentence that says the mend.

PerceptualError
├── ConfigError      a setting is unknown, out of range or contradicts another
├── ImageError       a picture cannot be read, or is of a kind that is not supported
├── VideoError       a film cannot be read, or holds no pictures
├── OutputError      a result cannot be written (disk full, no permission, a folder in the way)
├── WeightsError     pretrained weights are missing, cut short, of the wrong hash or too shallow
├── CheckpointError  a file is not a checkpoint of ours, or of another kind than the one asked for
├── DataError        a folder of pictures to learn from or to measure on is missing, empty or unreadable
└── TrainingError    training cannot go on (not-a-number, a resume that does not fit)
"""

from __future__ import annotations


def shown(value: object, most: int = 80) -> str:
    """A value of others as a sentence quotes it: short, on one line, and without control characters."""
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 200:
        return f"a number of about {int(value.bit_length() * 0.30103) + 1} digits"  # which Python refuses to write
    try:
        text = str(value) if isinstance(value, (int, float)) else repr(value)
    except (ValueError, RecursionError):  # such a number within a list
        text = f"a {type(value).__name__}"
    return text if len(text) <= most else f"{text[: most - 4]} ..."


class PerceptualError(Exception):
    """Base of all errors that a user can mend; its text is one clear sentence for the terminal."""


class ConfigError(PerceptualError):
    """A setting is unknown, out of range or contradicts another."""


class ImageError(PerceptualError):
    """A picture cannot be read, or is of a kind that is not supported."""


class VideoError(PerceptualError):
    """A film cannot be read, or holds no pictures."""


class OutputError(PerceptualError):
    """A result cannot be written; nothing half-written is left behind."""


class WeightsError(PerceptualError):
    """Pretrained weights are missing, cut short, of the wrong hash, or too shallow."""


class CheckpointError(PerceptualError):
    """A file is not a checkpoint of ours, or of another kind than the one asked for."""


class DataError(PerceptualError):
    """A folder of pictures to learn from or to measure on is missing, empty or unreadable."""


class TrainingError(PerceptualError):
    """Training cannot go on: the losses are not numbers, or a resume does not fit the run."""
