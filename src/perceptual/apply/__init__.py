"""Applies trained networks to images: `Model` and its subclasses in memory, `convert_files` on files."""

from perceptual.apply.files import Outcome, Work, convert_files, output_name, plan_outputs
from perceptual.apply.model import Model
from perceptual.apply.stylizer import Part, Stylizer, parse_blend
from perceptual.apply.upscaler import Upscaler

__all__ = [
    "Model",
    "Outcome",
    "Part",
    "Stylizer",
    "Upscaler",
    "Work",
    "convert_files",
    "output_name",
    "parse_blend",
    "plan_outputs",
]
