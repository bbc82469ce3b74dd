"""Trained networks on images: in memory by `Stylizer` and `Upscaler`, on files by `convert_files`."""

from perceptual.apply.files import Conversion, Outcome, convert_files, plan_outputs
from perceptual.apply.stylizer import Stylizer, parse_blend
from perceptual.apply.upscaler import Upscaler

__all__ = ["Conversion", "Outcome", "Stylizer", "Upscaler", "convert_files", "parse_blend", "plan_outputs"]
