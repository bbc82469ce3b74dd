"""Tone mapping from high to standard dynamic range: HLG or PQ video, as recorded by phones, becomes BT.709.

Steps: signal (BT.2020, HLG or PQ) -> light in cd/m2 (BT.2100) -> tone curve on the brightest channel of each pixel,
which keeps dark values and compresses bright ones -> BT.709 primaries -> signal for a display of gamma 2.4 (BT.1886).
PyAV does not include FFmpeg's zscale filter, so the result is put into a table for its lut3d filter.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from av import VideoFrame
from av.filter import Graph

from perceptual.video.filters import Filters

HDR = {16: "PQ", 18: "HLG"}  # transfer (H.273) -> name
WHITE = 203.0  # cd/m2 of the reference white in HDR (BT.2408); without brighter parts it becomes the white of SDR
PEAK = 1000.0  # brightest light in cd/m2: of HLG, and of PQ if the file gives none
KNEE = 0.3  # light up to this share of WHITE is unchanged
_POINTS = 49  # points of the table along each axis
_MATRICES = (0, 1, 4, 5, 6, 7)  # matrices (H.273) other than that of BT.2020

Array = np.ndarray[Any, np.dtype[np.float64]]

_LUMA_2020 = np.array([0.2627, 0.6780, 0.0593])
_LUMA_709 = np.array([0.2126, 0.7152, 0.0722])
_TO_709 = np.array([[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]])  # BT.2087


def hlg_to_light(signal: Array) -> Array:
    """HLG signal (..., 3) in [0, 1] -> light in cd/m2 on a display of 1000 cd/m2 (BT.2100, table 5)."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    scene = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)
    luma = scene @ _LUMA_2020
    return np.asarray(PEAK * luma[..., None] ** 0.2 * scene)


def pq_to_light(signal: Array) -> Array:
    """PQ signal in [0, 1], any shape -> light in cd/m2 (BT.2100, table 4)."""
    m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
    power = signal ** (1 / m2)
    return np.asarray(10_000 * (np.maximum(power - c1, 0) / (c2 - c3 * power)) ** (1 / m1))


def tone_map(light: Array, peak: float) -> Array:
    """Compress light in units of WHITE to [0, 1]: unchanged up to KNEE, then a curve that maps `peak` to 1.

    The curve is that of FFmpeg's `tonemap=mobius`: (x + a) / (x + b), scaled, with slope 1 at KNEE.
    """
    if peak <= 1:
        return np.minimum(light, 1)
    a = -(KNEE**2) * (peak - 1) / (KNEE**2 - 2 * KNEE + peak)
    b = (KNEE**2 - 2 * KNEE * peak + peak) / (peak - 1)
    compressed = (b**2 + 2 * b * KNEE + KNEE**2) / (b - a) * (light + a) / (light + b)
    return np.where(light <= KNEE, light, np.minimum(compressed, 1))


def to_sdr(signal: Array, transfer: int, peak: float = PEAK) -> Array:
    """RGB signal (..., 3) in BT.2020, [0, 1] -> RGB signal (..., 3) in BT.709, [0, 1].

    transfer: 16 for PQ, 18 for HLG. peak: light in cd/m2 that becomes white.
    """
    light = (hlg_to_light(signal) if transfer == 18 else pq_to_light(signal)) / WHITE
    brightest = np.maximum(light.max(-1, keepdims=True), 1e-9)
    light = light * (tone_map(brightest, peak / WHITE) / brightest)
    light = light @ _TO_709.T
    luma = np.clip(light @ _LUMA_709, 0, 1)[..., None]
    # A colour outside BT.709 is mixed with grey of the same luma until it is inside.
    away = light - luma
    room = np.where(away > 0, (1 - luma) / np.maximum(away, 1e-9), luma / np.maximum(-away, 1e-9))
    light = luma + away * np.minimum(room.min(-1, keepdims=True), 1)
    return np.asarray(np.clip(light, 0, 1) ** (1 / 2.4))


def peak_light(frame: VideoFrame) -> float:
    """The brightest light of a video in cd/m2: that of the mastering display if the file gives it, else PEAK."""
    side_data: Any = frame.side_data
    if frame.color_trc == 16 and "MASTERING_DISPLAY_METADATA" in side_data:
        numbers = np.frombuffer(side_data["MASTERING_DISPLAY_METADATA"], np.int32)  # 10 fractions (20 numbers), 2 flags
        if len(numbers) >= 22 and numbers[21] and numbers[19] > 0:
            return float(np.clip(numbers[18] / numbers[19], WHITE, 10_000))
    return PEAK


class ToSDR(Filters):
    """Converts HLG or PQ frames to rgb24 frames in BT.709.

    Args:
        transfer: 16 for PQ, 18 for HLG.
        peak: light in cd/m2 that becomes white.
        matrix: YUV matrix of the frames in H.273; BT.2020 is assumed if it is not specified.
        size: (width, height) to scale to.
    """

    def __init__(self, transfer: int, peak: float, matrix: int, size: tuple[int, int]) -> None:
        self._transfer, self._peak = transfer, peak
        self._scale = {"w": str(size[0]), "h": str(size[1]), "flags": "bicubic+accurate_rnd+full_chroma_int"}
        if matrix not in _MATRICES:
            self._scale["in_color_matrix"] = "bt2020"
        super().__init__()

    def _build(self, width: int, height: int, pixels: str, matrix: int, levels: int) -> Graph:
        with tempfile.TemporaryDirectory() as folder:
            table = Path(folder) / "table.cube"
            table.write_text(lut_text(self._transfer, self._peak), encoding="ascii")
            self._steps = (
                ("scale", self._scale),
                ("format", {"pix_fmts": "gbrp16"}),
                ("lut3d", {"file": str(table), "interp": "tetrahedral"}),
                ("format", {"pix_fmts": "rgb24"}),
            )
            return super()._build(width, height, pixels, matrix, levels)


def lut_text(transfer: int, peak: float) -> str:
    """The function `to_sdr` as the text of a .cube file, in which red changes fastest."""
    side = np.linspace(0, 1, _POINTS)
    blue, green, red = np.meshgrid(side, side, side, indexing="ij")
    mapped = to_sdr(np.stack([red, green, blue], -1).reshape(-1, 3), transfer, peak)
    rows = "\n".join(f"{r:.6f} {g:.6f} {b:.6f}" for r, g, b in mapped.tolist())
    return f"LUT_3D_SIZE {_POINTS}\n{rows}\n"
