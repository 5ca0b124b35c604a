"""Files of pictures: opened whatever their kind, measured before they are decoded, then decoded by Pillow.

What their colours mean is not its business, but it hands out the tags that tell.
"""

import base64
import contextlib
import dataclasses
import io
import math
import stat
import struct
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Literal

from PIL import ExifTags, Image, JpegImagePlugin, TiffImagePlugin

from ..errors import InputError, MachineError
from ..files.disk_errors import NOTHING_OPENS
from ..request import is_data_uri
from . import iso_boxes
from .colours import Tags
from .cut_files import DAMAGED, find_cut
from .jpeg_markers import rare_kind
from .png_chunks import SIGNATURE, pixels_only

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "AVIF", "HEIF", "JPEG2000", "PPM")
MIN_SIDE = 8
"""Pixels along the shorter side at least."""
MAX_MISSING = 50
"""Per cent of a picture that may be missing for it to be read in part."""
MAX_WHOLE_PIXELS = 178_956_970
"""Pixels of the largest picture that is decoded whole; a larger JPEG is decoded at a part of its size."""
MEMORY = 5 * 2**29
"""Bytes that reading a picture may take, for seconds. Two are never read at a time."""
MAX_JPEG_PIXELS = 2**30
"""Pixels of the largest JPEG: it takes ten seconds."""
_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_TIFF = (b"II*\0", b"MM\0*")
_PIXEL_BYTES = {"WEBP": 13, "AVIF": 14, "HEIF": 14, "JPEG2000": 17}
"""Bytes for a pixel while it is decoded, where a decoder keeps more than Pillow does."""
_MODE_BYTES = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2}
RGB_BYTES = 3
_one_at_a_time = threading.Lock()


@dataclasses.dataclass
class Picture:
    """An opened picture: its size and tags, and after `load` its pixels."""

    image: Image.Image
    tags: Tags
    source: IO[bytes]
    shown: str
    """Its name for messages."""

    @property
    def is_video_format(self) -> bool:
        return self.image.format in ("AVIF", "HEIF")

    def load(self, partial: bool) -> None:
        """Decode the pixels; of a picture that is cut, those that came.

        Raises:
            InputError: `image_cut`, where more are missing than may be.
        """
        kind, failure = "JPEG" if self._is_jpeg else self.image.format or "", None
        try:
            self.image.load()
        except OSError as error:
            failure = error
            if self._is_jpeg:
                _check_kind(self.source, self.shown)
        cut = find_cut(self.image, self.source, lambda file: _decoded(kind, file), failure is None)
        if cut is not None:
            percent = min(math.ceil(cut.missing * 100), 100)
            if percent > (MAX_MISSING if partial else 0):
                raise InputError("image_cut", image=self.shown, missing=percent)
            self.image = cut.read()
        elif failure is not None:
            raise failure

    @property
    def _is_jpeg(self) -> bool:
        return isinstance(self.image, JpegImagePlugin.JpegImageFile)

    def orientation(self) -> int:
        """Read how the picture is turned, and no other EXIF data, which is often odd; 1 for upright."""
        exif = Image.Exif()
        try:
            if data := self.tags.exif or self.image.info.get("exif"):
                exif.load(data)
            elif self.image.format == "TIFF":
                exif = self.image.getexif()
            orientation = exif.get(ExifTags.Base.Orientation)
        except (*DAMAGED, OSError, SyntaxError):
            return 1  # damaged EXIF data is no reason to reject the picture
        return orientation if isinstance(orientation, int) else 1


@contextlib.contextmanager
def opened(name: str) -> Iterator[Picture]:
    """Open a picture, a path or a `data:` URI, without its pixels.

    One at a time, whatever the thread: each may take all of `MEMORY`, and Pillow's settings and Python's
    warnings belong to the whole process.

    Raises:
        InputError: for whatever is wrong with it, also in the block.
        MachineError: no file can be opened now.
    """
    source, shown = open_source(name)
    try:
        with source, _one_at_a_time, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about odd files
            picture = _open_picture(source, shown)
            with picture.image:
                yield picture
    except (InputError, MemoryError):
        raise
    except Exception as error:  # a damaged file makes Pillow raise anything
        if isinstance(error, OSError) and error.errno in NOTHING_OPENS:  # a module of Pillow's is a file, too
            raise _unreadable(shown, error) from error
        reason = str(error) or type(error).__name__
        raise InputError("image_broken", image=shown, reason=reason) from error


def open_data_uri(uri: str) -> tuple[IO[bytes], str]:
    """Open the file in a `data:` URI; returns it with its kind.

    Raises:
        InputError: it is no base64.
    """
    header, _, payload = uri.partition(",")
    try:
        if not header.endswith(";base64"):
            raise InputError("data_uri_broken")
        return io.BytesIO(base64.b64decode(payload, validate=True)), header.partition(";")[0][:40]
    except ValueError as error:
        raise InputError("data_uri_broken") from error


def open_source(name: str) -> tuple[IO[bytes], str]:
    """Open a picture's file, a path or a `data:` URI; returns it with its name for messages.

    Raises:
        InputError: there is none, or it cannot be read.
        MachineError: no file can be opened now.
    """
    if is_data_uri(name):
        return open_data_uri(name)
    try:
        status = Path(name).stat()
        if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for ever
            raise InputError("image_not_a_file", image=name)
        if status.st_size == 0:
            raise InputError("image_empty", image=name)
        return Path(name).open("rb"), name
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError("image_missing", image=name) from error
    except OSError as error:  # a name that is too long, a file without permission to read
        raise _unreadable(name[:200], error) from error


def _unreadable(shown: str, error: OSError) -> InputError | MachineError:
    """Return the error for a picture that cannot be opened: the machine's if it can open no file."""
    kind = MachineError if error.errno in NOTHING_OPENS else InputError
    return kind("image_unreadable", image=shown, reason=error.strerror or str(error))


def _open_picture(source: IO[bytes], shown: str) -> Picture:
    start, tags = source.read(16), Tags()
    source.seek(0)
    if start.startswith(SIGNATURE):
        source, tags = pixels_only(source)
    image = _identified(source, start)
    if image is None:
        raise _refusal(source, start, shown)
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        if _has_deep_planes(image):
            image = _open_planes(source)
        elif _lacks_strips(image):
            raise InputError("image_broken", image=shown, reason="end of file")
    if image.format in ("AVIF", "HEIF", "JPEG2000"):
        tags = iso_boxes.read_tags(source)
    profile = image.info.get("icc_profile")
    if profile:  # it wins there; PNG's have been left out
        tags = dataclasses.replace(tags, profile=profile, cicp=None)
    _check_size(image, shown)
    if isinstance(image, JpegImagePlugin.JpegImageFile):
        _reduce(image)
    return Picture(image, tags, source, shown)


def _identified(source: IO[bytes], start: bytes) -> Image.Image | None:
    """Open by the first format that takes it. Image.open would do so, too, but has a limit of its own."""
    Image.init()
    _add_heif()
    # Pillow forgot it: grey of 16 bits and big-endian where 0 is white (images.py turns it round).
    TiffImagePlugin.OPEN_INFO.setdefault((b"MM", 0, (1,), 1, (16,), ()), ("I;16B", "I;16B"))
    # Only formats that this Pillow was built with: it fails on others' names.
    for kind in [kind for kind in FORMATS if kind in Image.OPEN]:
        accept = Image.OPEN[kind][1]
        if accept is None or accept(start) is True:
            with contextlib.suppress(SyntaxError, IndexError, TypeError, struct.error):
                return _open_as(kind, source)
    return None


def _open_as(kind: str, source: IO[bytes]) -> Image.Image:
    source.seek(0)
    try:
        return Image.OPEN[kind][0](source, "")
    except MemoryError as error:  # before it is decoded, only a damaged length asks for so much
        raise ValueError("a length is impossible") from error


def _lacks_strips(image: TiffImagePlugin.TiffImageFile) -> bool:
    """Check for rows of which there are no pixels in the file; Pillow takes them for black."""
    reached = max((tile.extents[3] for tile in image.tile if tile.extents), default=0)
    return bool(reached < image.tag_v2[TiffImagePlugin.IMAGELENGTH])


def _has_deep_planes(image: TiffImagePlugin.TiffImageFile) -> bool:
    bits = image.tag_v2.get(TiffImagePlugin.BITSPERSAMPLE, (1,))
    return image.tag_v2.get(TiffImagePlugin.PLANAR_CONFIGURATION) == 2 and max(bits) > 8


def _open_planes(source: IO[bytes]) -> Image.Image:
    """Open a TIFF of 16 bits with a plane for each colour by libtiff: Pillow's own way mixes them up."""
    TiffImagePlugin.READ_LIBTIFF = True
    try:
        return _open_as("TIFF", source)
    finally:
        TiffImagePlugin.READ_LIBTIFF = False


def _add_heif() -> None:
    """Let Pillow open HEIC, the pictures of iPhones, where its package is installed."""
    if "HEIF" not in Image.OPEN:
        with contextlib.suppress(ImportError):
            import pillow_heif

            pillow_heif.register_heif_opener()


def _refusal(source: IO[bytes], start: bytes, shown: str) -> InputError:
    """Return the error about a file that no format takes."""
    if start[4:8] == b"ftyp" and start[8:12] in _HEIC_BRANDS and "HEIF" not in Image.OPEN:
        return InputError("image_heic", image=shown)
    if start[4:8] == b"ftyp" or (start.startswith(_TIFF) and _has_lost_tags(source, start)):
        return InputError("image_broken", image=shown, reason="end of file")
    if start.startswith(b"\xff\xd8"):
        _check_kind(source, shown)
    if start.startswith(_TIFF):
        return InputError("image_kind", image=shown, kind="TIFF")
    return InputError("not_an_image", image=shown)


def _check_kind(jpeg: IO[bytes], shown: str) -> None:
    """Refuse a kind of JPEG that cannot be decoded by its name."""
    jpeg.seek(0)
    kind = rare_kind(jpeg.read())
    if kind is not None:
        raise InputError("image_kind", image=shown, kind=kind)


def _has_lost_tags(tiff: IO[bytes], start: bytes) -> bool:
    """Check whether the table of a TIFF file's tags, which may be its last part, is cut or zero."""
    order: Literal["little", "big"] = "little" if start.startswith(b"II") else "big"
    tiff.seek(int.from_bytes(start[4:8], order))
    count = int.from_bytes(tiff.read(2), order)
    table = tiff.read(12 * count)
    return len(table) < 12 * count or not table[-12:].rstrip(b"\0")


def _check_size(image: Image.Image, shown: str) -> None:
    width, height = image.size
    if min(width, height) < MIN_SIDE:
        raise InputError("image_too_small", image=shown, width=width, height=height, least=MIN_SIDE)
    most = _most_pixels(image)
    if width * height > most:
        pixels = math.ceil(width * height / 10**6)
        raise InputError("image_too_large", image=shown, megapixels=pixels, most=most // 10**6)


def _most_pixels(image: Image.Image) -> int:
    """Return how many pixels of such a picture fit into memory."""
    if isinstance(image, JpegImagePlugin.JpegImageFile):
        # A progressive one keeps all coefficients, of two bytes, whatever the size that is asked for.
        whole = 2 * len(image.getbands()) if "progressive" in image.info else 0
        reduced = MAX_WHOLE_PIXELS * (4 + RGB_BYTES)
        return min((MEMORY - reduced) // whole if whole else MAX_JPEG_PIXELS, MAX_JPEG_PIXELS)
    decoding = _PIXEL_BYTES.get(image.format or "", _MODE_BYTES.get(image.mode, 4))
    return min(MEMORY // (decoding + RGB_BYTES), MAX_WHOLE_PIXELS)


def _reduce(image: JpegImagePlugin.JpegImageFile) -> None:
    """Have a huge JPEG decoded at a part of its size, which is still far larger than a video."""
    width, height = image.size
    part = next((part for part in (1, 2, 4) if width * height <= MAX_WHOLE_PIXELS * part**2), 8)
    if part > 1:
        image.draft(None, (width // part, height // part))


def _decoded(kind: str, file: IO[bytes]) -> Image.Image:
    """Open a file of a format and decode it."""
    image = _open_as(kind, file)
    if isinstance(image, JpegImagePlugin.JpegImageFile):
        _reduce(image)
    image.load()
    return image
