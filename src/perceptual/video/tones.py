"""High dynamic range into standard: films in HLG or PQ, as phones make them, become BT.709.

signal (BT.2020, HLG or PQ) -> light in cd/m2 (BT.2100) -> the brightest channel of each pixel through a curve that
leaves the dark half alone and bends the rest towards white -> BT.709 primaries -> signal for a display of gamma 2.4
(BT.1886). FFmpeg's zscale filter, which does such things, is not in PyAV; its lut3d filter is, and gets a table.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from av import VideoFrame
from av.filter import Graph

from perceptual.video.filters import Filters

HDR = {16: "PQ", 18: "HLG"}  # transfers in the numbers of H.273
WHITE = 203.0  # cd/m2 of white paper in HDR (BT.2408), which SDR shows as its white, had it nothing brighter to show
PEAK = 1000.0  # cd/m2 of the brightest that HLG has, and PQ where the film does not say
KNEE = 0.3  # share of WHITE up to which light is left as it is
_POINTS = 49  # of the table, along each side
_MATRICES = (0, 1, 4, 5, 6, 7)  # that a film may name, and that are not BT.2020's

Array = np.ndarray[Any, np.dtype[np.float64]]

_LUMA_2020 = np.array([0.2627, 0.6780, 0.0593])
_LUMA_709 = np.array([0.2126, 0.7152, 0.0722])
_TO_709 = np.array([[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]])  # BT.2087


def light_of_hlg(signal: Array) -> Array:
    """(..., 3) HLG signal, 0 to 1 -> cd/m2 on a display of 1000 cd/m2 (BT.2100, table 5)."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    scene = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)
    luma = scene @ _LUMA_2020
    return np.asarray(PEAK * luma[..., None] ** 0.2 * scene)


def light_of_pq(signal: Array) -> Array:
    """PQ signal, 0 to 1 -> cd/m2 (BT.2100, table 4)."""
    m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
    power = signal ** (1 / m2)
    return np.asarray(10_000 * (np.maximum(power - c1, 0) / (c2 - c3 * power)) ** (1 / m1))


def bend(light: Array, peak: float) -> Array:
    """Light in units of white -> 0 to 1: as it is up to KNEE, from there on bent so that `peak` becomes 1.

    It is FFmpeg's `tonemap=mobius`: (x + a) / (x + b), scaled, with the slope of 1 at the knee.
    """
    if peak <= 1:
        return np.minimum(light, 1)
    a = -(KNEE**2) * (peak - 1) / (KNEE**2 - 2 * KNEE + peak)
    b = (KNEE**2 - 2 * KNEE * peak + peak) / (peak - 1)
    bent = (b**2 + 2 * b * KNEE + KNEE**2) / (b - a) * (light + a) / (light + b)
    return np.where(light <= KNEE, light, np.minimum(bent, 1))


def to_sdr(signal: Array, transfer: int, peak: float = PEAK) -> Array:
    """(..., 3) RGB signal in BT.2020, 0 to 1 -> RGB signal in BT.709, 0 to 1.

    transfer: 16 for PQ, 18 for HLG; peak: cd/m2 that become white.
    """
    light = (light_of_hlg(signal) if transfer == 18 else light_of_pq(signal)) / WHITE
    brightest = np.maximum(light.max(-1, keepdims=True), 1e-9)
    light = light * (bend(brightest, peak / WHITE) / brightest)
    light = light @ _TO_709.T
    luma = np.clip(light @ _LUMA_709, 0, 1)[..., None]
    # A colour that BT.709 does not have goes towards grey of the same luma, until it has it.
    away = light - luma
    room = np.where(away > 0, (1 - luma) / np.maximum(away, 1e-9), luma / np.maximum(-away, 1e-9))
    light = luma + away * np.minimum(room.min(-1, keepdims=True), 1)
    return np.asarray(np.clip(light, 0, 1) ** (1 / 2.4))


def peak_of(frame: VideoFrame) -> float:
    """The brightest light of a film in cd/m2: what the display had on which it was made, else 1000."""
    noted: Any = frame.side_data
    if frame.color_trc == 16 and "MASTERING_DISPLAY_METADATA" in noted:
        numbers = np.frombuffer(noted["MASTERING_DISPLAY_METADATA"], np.int32)  # ten fractions, two flags
        if len(numbers) >= 22 and numbers[21] and numbers[19] > 0:
            return float(np.clip(numbers[18] / numbers[19], WHITE, 10_000))
    return PEAK


class ToSDR(Filters):
    """Frames in HLG or PQ into rgb24 in BT.709, scaled to (width, height).

    transfer: 16 for PQ, 18 for HLG; matrix: of the frames, as H.273 numbers it, BT.2020's where the film does not say.
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
            table.write_text(cube(self._transfer, self._peak), encoding="ascii")
            self._steps = (
                ("scale", self._scale),
                ("format", {"pix_fmts": "gbrp16"}),
                ("lut3d", {"file": str(table), "interp": "tetrahedral"}),
                ("format", {"pix_fmts": "rgb24"}),
            )
            return super()._build(width, height, pixels, matrix, levels)


def cube(transfer: int, peak: float) -> str:
    """`to_sdr` as the text of a .cube file, red fastest."""
    side = np.linspace(0, 1, _POINTS)
    blue, green, red = np.meshgrid(side, side, side, indexing="ij")
    made = to_sdr(np.stack([red, green, blue], -1).reshape(-1, 3), transfer, peak)
    rows = "\n".join(f"{r:.6f} {g:.6f} {b:.6f}" for r, g, b in made.tolist())
    return f"LUT_3D_SIZE {_POINTS}\n{rows}\n"
