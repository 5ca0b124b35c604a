"""Colours of every kind become sRGB, as Chromium shows them on a screen without HDR.

Where tags contradict each other, the first of these counts: code points (cICP, nclx), a profile (ICC), sRGB,
gamma with its primaries. Knows no file formats.
"""

import dataclasses
import functools
import io
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageCms

Points = tuple[float, ...]
"""Chromaticities: x and y of white, red, green and blue."""
D65 = (0.3127, 0.3290)
_C, _E = (0.310, 0.316), (1 / 3, 1 / 3)
PRIMARIES: dict[int, Points] = {
    1: (*D65, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06),
    4: (*_C, 0.67, 0.33, 0.21, 0.71, 0.14, 0.08),
    5: (*D65, 0.64, 0.33, 0.29, 0.60, 0.15, 0.06),
    6: (*D65, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070),
    7: (*D65, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070),
    8: (*_C, 0.681, 0.319, 0.243, 0.692, 0.145, 0.049),
    9: (*D65, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046),
    10: (*_E, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0),
    11: (0.314, 0.351, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
    12: (*D65, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
    22: (*D65, 0.630, 0.340, 0.295, 0.605, 0.155, 0.077),
}
"""The primaries of ITU-T H.273 by their code points."""
SRGB, BT2020 = PRIMARIES[1], PRIMARIES[9]
WHITE_NITS, PEAK_NITS = 203, 1000
"""Nits of white in a picture of HDR (ITU-R BT.2408), and of its brightest where it does not tell."""
_PQ, _HLG = 16, 18
_UNSPECIFIED = 2
_BT709 = frozenset({1, 6, 11, 14, 15})
_GAMMA_TOLERANCE = 0.05
"""As in libpng: a gamma this near to 2.2 means sRGB."""
_LEVELS = np.arange(256, dtype=np.float64) / 255
_SAME_LEVELS = 1
"""The largest difference of 255 between sRGB and what a profile makes of it for the profile to be sRGB's."""


@dataclasses.dataclass(frozen=True)
class Tags:
    """The tags of a file: its colours, and how it is turned.

    Attributes:
        cicp: code points of H.273 for the primaries and the transfer function.
        profile: an ICC profile.
        gamma: the exponent that makes values linear.
        is_grey: it has no colours, even where Pillow makes RGB of it.
        peak: nits of the brightest in a picture of HDR.
        exif: EXIF data, for the orientation.
    """

    cicp: tuple[int, int] | None = None
    profile: bytes | None = None
    is_srgb: bool = False
    gamma: float | None = None
    primaries: Points | None = None
    peak: float | None = None
    exif: bytes | None = None
    is_grey: bool = False


Conversion = Callable[[Image.Image], Image.Image]
"""Makes sRGB (mode RGB) of a picture or a part of one in mode RGB, L, CMYK or LAB."""


def conversion(tags: Tags, mode: str, is_video: bool = False) -> Conversion | None:
    """Return how colours of a mode (RGB, L, CMYK or LAB) become sRGB; None where they are taken as such.

    `is_video` is for formats of video codecs, where BT.709 means sRGB as in browsers.
    """
    for cicp in (tags.cicp, _cicp_of_profile(tags.profile or b"")):
        if mode in ("RGB", "L") and cicp is not None:
            known = _by_code_points(cicp, tags.peak, is_video)
            if known is not None:
                return known.conversion
    if tags.profile and (by_profile := _by_profile(tags.profile, mode)) is not None:
        return None if by_profile is _unchanged else by_profile
    if mode == "LAB":
        lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
        return _transformation(lab, "LAB", "LAB")
    if mode in ("RGB", "L") and tags.gamma is not None and not tags.is_srgb:
        return _by_gamma(tags.gamma, tags.primaries)
    return None


@dataclasses.dataclass(frozen=True)
class _Space:
    """A colour space: what its 256 levels mean in linear light, its primaries, and the peak of HDR."""

    linear: np.ndarray
    points: Points
    peak: float | None = None
    is_hlg: bool = False

    @property
    def conversion(self) -> Conversion | None:
        """The conversion to sRGB; None for sRGB itself. White is 1 in `linear`."""
        if self.peak is None and self.points == SRGB:
            table = _encoded(self.linear)
            if np.array_equal(table, np.arange(256)):
                return None
            return lambda part: part.convert("RGB").point(table.tolist() * 3)
        return self._convert

    def _convert(self, part: Image.Image) -> Image.Image:
        light = self.linear.astype(np.float32)[np.asarray(part.convert("RGB"))]
        if self.peak is None:
            return Image.fromarray(_encoded(light @ _matrix(self.points, SRGB)))
        if self.is_hlg:
            light = _display_light(light, self.points)
        mapped = _tone_mapped(light @ _matrix(self.points, BT2020), self.peak)
        return Image.fromarray(_encoded(mapped @ _matrix(BT2020, SRGB)))


def _by_code_points(cicp: tuple[int, int], peak: float | None, is_video: bool) -> _Space | None:
    """Return the space of code points; None where one of them says nothing."""
    primaries, transfer = cicp
    if is_video:
        # Browsers take what they do not know there for sRGB.
        primaries = primaries if primaries in PRIMARIES else 1
        transfer = 13 if transfer in _BT709 or transfer == _UNSPECIFIED else transfer
    linear = _linear(transfer)
    if primaries not in PRIMARIES or linear is None:
        return None
    if transfer not in (_PQ, _HLG):
        return _Space(linear, PRIMARIES[primaries])
    return _Space(linear, PRIMARIES[primaries], peak or PEAK_NITS, transfer == _HLG)


def _cicp_of_profile(profile: bytes) -> tuple[int, int] | None:
    """Read the code points that a profile may hold (ICC.1:2022)."""
    count = int.from_bytes(profile[128:132], "big")
    for place in range(132, min(132 + 12 * count, len(profile) - 11), 12):
        if profile[place : place + 4] == b"cicp":
            data = profile[int.from_bytes(profile[place + 4 : place + 8], "big") :][:12]
            return (data[8], data[9]) if len(data) == 12 and data[:4] == b"cicp" else None
    return None


def _by_gamma(gamma: float, points: Points | None) -> Conversion | None:
    if points is None and abs(2.2 / gamma - 1) <= _GAMMA_TOLERANCE:
        return None
    points = points or SRGB
    try:
        _matrix(points, SRGB)
    except (np.linalg.LinAlgError, ZeroDivisionError):  # they span nothing
        return None
    return _Space(_LEVELS**gamma, points).conversion


def _srgb_to_linear(values: np.ndarray) -> np.ndarray:
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


@functools.cache
def _linear(transfer: int) -> np.ndarray | None:
    """Return what the 256 levels mean in linear light, by the code point of H.273: 1 is white."""
    v = _LEVELS
    if transfer in _BT709:  # as screens show it (BT.1886)
        return v**2.4
    if transfer == 7:
        return np.where(v < 0.0913, v / 4, ((v + 0.1115) / 1.1115) ** (1 / 0.45))
    if transfer == _PQ:
        power = v ** (32 / 2523)
        ratio = np.maximum(power - 107 / 128, 0) / (2413 / 128 - 2392 / 128 * power)
        return ratio ** (8192 / 1305) * 10_000 / WHITE_NITS
    if transfer == _HLG:
        a, b, c = 0.17883277, 0.28466892, 0.55991073
        return np.where(v <= 0.5, v**2 / 3, (np.exp((v - c) / a) + b) / 12)
    known = {4: lambda: v**2.2, 5: lambda: v**2.8, 8: lambda: v, 13: lambda: _srgb_to_linear(v)}
    known[17] = lambda: v**2.6 * 52.37 / 48
    return known[transfer]() if transfer in known else None


@functools.cache
def _matrix(source: Points, target: Points) -> np.ndarray:
    """Return the matrix that takes rows of linear RGB from some primaries to others, white to white.

    Raises:
        numpy.linalg.LinAlgError, ZeroDivisionError: the primaries span nothing.
    """
    combined = np.linalg.inv(_to_xyz(target)) @ _to_xyz(source)
    return combined.T.astype(np.float32)


def _to_xyz(points: Points) -> np.ndarray:
    """Return the matrix from linear RGB to XYZ, adapted to D65 (Bradford)."""
    white, *primaries = [(points[i], points[i + 1]) for i in range(0, 8, 2)]
    columns = np.array([[x, y, 1 - x - y] for x, y in primaries]).T
    goal = _xyz(white)
    to_xyz = columns * np.linalg.solve(columns, goal)
    bradford = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
    gains = (bradford @ _xyz(D65)) / (bradford @ goal)
    return np.linalg.inv(bradford) @ (gains[:, None] * bradford) @ to_xyz


def _xyz(point: tuple[float, float]) -> np.ndarray:
    x, y = point
    return np.array([x / y, 1, (1 - x - y) / y])


@functools.cache
def _encoding_table() -> np.ndarray:
    """Return the levels of sRGB for linear light in steps of 1/65535."""
    light = np.arange(65536) / 65535
    values = np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)
    return np.rint(values * 255).astype(np.uint8)


def _encoded(light: np.ndarray) -> np.ndarray:
    """Encode linear light, 1 for white, as sRGB."""
    return _encoding_table()[(light.clip(0, 1) * 65535 + 0.5).astype(np.uint16)]


def _display_light(light: np.ndarray, points: Points) -> np.ndarray:
    """Make light of a screen of 1000 nits from HLG's light of the scene (ITU-R BT.2100), 1 for white."""
    luminance = (light @ _to_xyz(points)[1].astype(np.float32))[..., None]
    return light * (np.maximum(luminance, 0) ** 0.2 * np.float32(PEAK_NITS / WHITE_NITS))


def _tone_mapped(light: np.ndarray, peak: float) -> np.ndarray:
    """Map light of HDR (BT.2020, 1 for white) to what a screen can show, by its brightest channel.

    The curve is the one for reference white of SMPTE ST 2094-50: half of the light up to white, then a
    parabola that ends level with the peak.
    """
    if peak <= WHITE_NITS:
        return light
    knee, brightest = _knee(peak)
    strongest = light.max(axis=-1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        gain = np.where(strongest > 1, _shoulder(strongest, knee, brightest) / strongest, knee)
    return light * gain.astype(np.float32)


def _knee(peak: float) -> tuple[float, float]:
    brightest = peak / WHITE_NITS
    return 1 - 0.5 * min(np.log(brightest) / np.log(PEAK_NITS / WHITE_NITS), 1), brightest


def _shoulder(light: np.ndarray, knee: float, brightest: float) -> np.ndarray:
    """Bend light from the knee at 1 to 1 at the brightest, along a quadratic Bezier curve."""
    bend = 0.65
    middle_x, middle_y = (1 - bend) + bend / knee, (1 - bend) * knee + bend
    a, b = 1 - 2 * middle_x + brightest, 2 * middle_x - 2
    c = 1 - np.minimum(light, brightest)
    t = 2 * -c / (b + np.sqrt(np.maximum(b * b - 4 * a * c, 0)) + 1e-12)
    return (1 - t) ** 2 * knee + 2 * t * (1 - t) * middle_y + t**2


def _unchanged(part: Image.Image) -> Image.Image:
    return part


def _by_profile(profile: bytes, mode: str) -> Conversion | None:
    """Return the conversion by an ICC profile; `_unchanged` for another mode's, None where it is broken."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        space = source.profile.xcolor_space.strip()
        own_mode = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK", "Lab": "LAB"}.get(space)
        if own_mode is None or (own_mode != mode and (own_mode, mode) != ("RGB", "L")):
            return _unchanged if mode in ("RGB", "L") else None
        convert = _transformation(source, own_mode, mode)
        return _unchanged if own_mode == "RGB" and _is_srgb(convert) else convert
    except (ImageCms.PyCMSError, OSError, ValueError):
        return None


def _transformation(source: ImageCms.ImageCmsProfile, own_mode: str, mode: str) -> Conversion:
    # By the perceptual intent, lcms would stretch a printer's black to the screen's, which browsers do not.
    intent, target = ImageCms.Intent.RELATIVE_COLORIMETRIC, ImageCms.createProfile("sRGB")
    # Of grey, it would make a table that is coarse in the dark.
    flags = ImageCms.Flags.NOOPTIMIZE if own_mode == "L" else ImageCms.Flags.NONE
    transform = ImageCms.buildTransform(source, target, own_mode, "RGB", intent, flags)

    def convert(part: Image.Image) -> Image.Image:
        changed = ImageCms.applyTransform(part if mode == own_mode else part.convert(own_mode), transform)
        assert changed is not None  # it is where nothing is changed in place
        return changed

    return convert


def _is_srgb(convert: Conversion) -> bool:
    """Check by its numbers whether a profile is sRGB's."""
    steps = np.linspace(0, 255, 9).astype(np.uint8)
    cube = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(27, 27, 3)
    greys = np.repeat(np.arange(256, dtype=np.uint8), 3).reshape(1, 256, 3)
    return all(
        np.abs(np.asarray(convert(Image.fromarray(colours))).astype(int) - colours).max() <= _SAME_LEVELS
        for colours in (cube, greys)
    )
