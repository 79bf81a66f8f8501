"""Reading a picture as a viewer shows it: one way for files, for parquet and for what users hand over."""

from __future__ import annotations

import io
import os
import stat
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from typing import Any, BinaryIO, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageCms, UnidentifiedImageError

from ssl_dc.errors import DataError
from ssl_dc.printable import name_of

T = TypeVar("T")

BACKGROUND = (255, 255, 255)
"""What shows through where a picture is transparent: white."""
PICTURE_ENDINGS = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".jp2", ".png", ".gif", ".webp", ".avif", ".heic", ".heif", ".tif", ".tiff"}
    | {".bmp", ".dib", ".ppm", ".pgm", ".pbm", ".pnm"}
)
"""Endings, in lower case, of files that are meant to be pictures. The content decides whether they are."""
CAMERA_ENDINGS = frozenset({".dng", ".nef", ".cr2", ".cr3", ".arw", ".orf", ".rw2", ".raf", ".pef", ".srw"})
"""Endings of raw camera files. Many are TIFF files whose first image is a thumbnail, so they are not read."""

# Pillow knows more formats. Some of them run another program on the file (EPS: Ghostscript).
_FORMATS = ("JPEG", "PNG", "GIF", "BMP", "DIB", "TIFF", "WEBP", "AVIF", "PPM", "JPEG2000")
_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1")
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""How to turn a picture with each EXIF orientation."""
_COLOUR_SPACES = {"RGB": "RGB", "CMYK": "CMYK", "L": "GRAY"}
"""The colour space that a profile must have for each mode."""
NOT_A_FILE = "pipes, devices or sockets"
"""The kind of fault of what is neither a file nor a folder: to open it could wait for ever."""
_BITS_PER_SAMPLE, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339  # tags of TIFF files


class PictureError(Exception):
    """A file or a value that cannot be read as a picture.

    Args:
        kind: The kind of fault, as it is counted: ``broken``, ``not pictures``, ``too large``, ...
        reason: What is wrong, in words.
    """

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind


class LeastSize(NamedTuple):
    """How small a picture may be decoded.

    Attributes:
        side: Pixels of its shorter side.
        area: Pixels in all.
    """

    side: int
    area: float


_REDUCTIONS = (8, 4, 2)
"""By how much a JPEG decoder can reduce both sides on its way, which saves most of its work. The largest comes first."""
_least_size: ContextVar[LeastSize | None] = ContextVar("least_size", default=None)


@contextmanager
def decoded_smaller(least: LeastSize | None) -> Iterator[None]:
    """Inside, JPEG pictures are decoded at a half, a quarter or an eighth of their size, if they stay as large as this.

    Args:
        least: How large they stay; None decodes them at their full size.
    """
    token = _least_size.set(least)
    try:
        yield
    finally:
        _least_size.reset(token)


def read_rgb(source: str | BinaryIO, name: str) -> Image.Image:
    """Read a picture as a viewer shows it, in RGB.

    The content decides what a file is, not its name. A picture of more pixels than :data:`PIL.Image.MAX_IMAGE_PIXELS`
    (89 million) is refused before it takes memory. See :func:`as_rgb` for how modes are converted.

    Args:
        source: Path or open file.
        name: What to call it in messages.

    Raises:
        DataError: If it cannot be read. The message says why.
    """
    return _read(source, name, _decoded)


def read_size(source: str | BinaryIO, name: str) -> tuple[int, int]:
    """Width and height of a picture in pixels, as it is stored: from its head, without decoding it.

    Args:
        source: Path or open file.
        name: What to call it in messages.

    Raises:
        DataError: If the head cannot be read. The message says why.
    """
    return _read(source, name, _stored_size)


def _read(source: str | BinaryIO, name: str, read: Callable[[BinaryIO], T]) -> T:
    """What is read of a path or an open file; whatever keeps it from being read is a :class:`DataError`."""
    try:
        if not isinstance(source, str):
            return read(source)
        with open_regular(source) as file:
            return read(file)
    except PictureError as error:
        raise DataError(f"image {name} cannot be read: {error}.") from error


def _stored_size(file: BinaryIO) -> tuple[int, int]:
    with _identified(file) as image:
        return image.size


def open_regular(path: str) -> BinaryIO:
    """Open a regular file for reading, or what a link to one names. Nothing else is waited for.

    Raises:
        PictureError: If it is a folder, a pipe, a device or the like, or cannot be opened.
    """
    try:
        # Without O_NONBLOCK, opening a pipe would wait until somebody writes to it. Windows has no such flag.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except (OSError, ValueError) as error:
        raise PictureError("cannot be opened", getattr(error, "strerror", None) or str(error)) from error
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        other = "pipe, device or socket, which is never opened"
        raise PictureError(NOT_A_FILE, f"it is a {'folder, and no picture' if stat.S_ISDIR(mode) else other}")
    return os.fdopen(descriptor, "rb")


def fault_of(path: str) -> PictureError | None:
    """What keeps a file from being read as a picture, or None.

    JPEG and PNG files that end as whole files do are taken for whole. All others are decoded.
    """
    try:
        with open_regular(path) as file:
            if not _ends_as_a_whole_picture(file):
                _decoded(file)
            return None
    except PictureError as error:
        return error


def as_rgb(image: Image.Image) -> Image.Image:
    """A PIL image of any mode as a viewer shows it, in RGB.

    - It is turned as its EXIF orientation says. Of a moving picture the first frame is shown.
    - Transparent parts show :data:`BACKGROUND`.
    - Colours are converted by the embedded profile to sRGB, where there is one.
    - Grey values of 16 bits are cut to 8 bits. Those of 32 bits, integers or floats, are scaled by their range, see
      :func:`grey_by_range`.

    Raises:
        PictureError: If the image is damaged, or of a mode that has no colours that can be shown.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of damaged EXIF data and the like, which the picture does not need
            shown = _in_colour(_upright(image))
    except PictureError:
        raise
    except Exception as error:  # a damaged file may raise anything: OSError, SyntaxError, struct.error, ...
        raise PictureError("broken", name_of(str(error).rstrip(".")) or type(error).__name__) from error
    shown.info = {}  # its EXIF data and its profile are of the image as it was stored
    return shown


def grey_by_range(values: npt.NDArray[Any], scales: tuple[float, ...] = (1.0, 255.0, 65535.0)) -> npt.NDArray[np.uint8]:
    """Grey values without a stated scale as 0 to 255.

    The scale is the smallest that holds all values: 0 to 1, 0 to 255 or 0 to 65,535. For floats a tenth more on both sides
    counts as inside and is clipped. Where none holds them, as for negative values, the least value becomes black and the
    largest white. Values that are not finite become black.

    Args:
        values: Of any shape, integers or floats.
        scales: The largest values of the scales, ascending.
    """
    numbers = values.astype(np.float64)
    finite = np.isfinite(numbers)
    if not finite.any():
        return np.zeros(values.shape, np.uint8)
    numbers = np.where(finite, numbers, numbers[finite].min())
    least, largest = float(numbers.min()), float(numbers.max())
    slack = 0.1 if values.dtype.kind == "f" else 0.0
    for scale in scales:
        if -slack * scale <= least and largest <= (1 + slack) * scale:
            grey = numbers * (255 / scale)
            break
    else:
        grey = (numbers - least) * (255 / (largest - least or 1.0))
    return np.where(finite, np.rint(grey.clip(0, 255)), 0).astype(np.uint8)


def _decoded(file: BinaryIO) -> Image.Image:
    """The picture in an open file, in RGB.

    Raises:
        PictureError: If it cannot be read.
    """
    with _identified(file) as image:
        _reduce(image)
        return as_rgb(image)


def _reduce(image: Image.Image) -> None:
    """Have an image that is not yet decoded decoded smaller, as :func:`decoded_smaller` allows."""
    least, (width, height) = _least_size.get(), image.size
    if least is None:
        return
    for times in _REDUCTIONS:
        if min(width, height) >= times * least.side and width * height >= times**2 * least.area:
            image.draft(None, (width // times, height // times))  # only JPEG's decoder does something about it
            return


def _identified(file: BinaryIO) -> Image.Image:
    """The picture in an open file, its format and size known, its pixels not yet read."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            return _opened_by_content(file)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        limit = (Image.MAX_IMAGE_PIXELS or 0) / 1e6
        raise PictureError("too large", f"it has more pixels than the {limit:.0f} million that are read") from error
    except PictureError:
        raise
    except UnidentifiedImageError as error:
        raise PictureError("not pictures", "it is not a picture of a format that is read") from error
    except Exception as error:  # of a damaged head
        reason = name_of(str(error).rstrip(".")) or type(error).__name__
        raise PictureError("not pictures", f"its head is damaged ({reason})") from error


@lru_cache(maxsize=1)
def _formats() -> tuple[str, ...]:
    """The formats to read that this Pillow was built with."""
    Image.init()
    return tuple(form for form in _FORMATS if form in Image.OPEN)


def _opened_by_content(file: BinaryIO) -> Image.Image:
    try:
        return Image.open(file, formats=_formats())
    except UnidentifiedImageError:
        file.seek(0)
        head = file.read(12)
        file.seek(0)
        if not head:
            raise PictureError("not pictures", "it is empty") from None
        if head[4:8] != b"ftyp" or head[8:12] not in (*_HEIC_BRANDS, b"avif", b"avis"):
            raise
        if head[8:11] == b"avi":
            raise PictureError(
                "AVIF", "it is an AVIF picture, which this Pillow cannot read: install Pillow 11.3"
            ) from None
        _register_heic()
        return Image.open(file, formats=("HEIF",))


def _register_heic() -> None:
    """Make Pillow read HEIC pictures.

    Raises:
        PictureError: If ``pillow-heif`` is not installed.
    """
    try:
        import pillow_heif
    except ImportError:
        raise PictureError("HEIC", "it is a HEIC picture; to read it: pip install 'ssl-dc[heic]'") from None
    pillow_heif.register_heif_opener()


def _ends_as_a_whole_picture(file: BinaryIO) -> bool:
    """Whether a file is JPEG or PNG and ends with the mark that ends such files. Leaves the file at its start.

    Raises:
        PictureError: If its head is not that of a picture.
    """
    with _identified(file) as image:
        form = image.format
        file.seek(max(0, file.seek(0, io.SEEK_END) - 64))
        end = file.read().rstrip(b"\0") if form != "PNG" else file.read()
    file.seek(0)
    return (form in ("JPEG", "MPO") and end.endswith(b"\xff\xd9")) or (form == "PNG" and end.endswith(b"IEND\xaeB`\x82"))


def _upright(image: Image.Image) -> Image.Image:
    """The image, turned as its EXIF data says."""
    image.load()  # some formats keep EXIF data behind the pixels
    try:
        turned = _UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # damaged EXIF data may raise anything, and the picture does not need it
        return image
    return image if turned is None else image.transpose(turned)


def _in_colour(image: Image.Image) -> Image.Image:
    """The image in RGB."""
    if image.mode.startswith("I;16"):
        return Image.fromarray(_eight_bits(image)).convert("RGB")
    if image.mode in ("I", "F"):
        return Image.fromarray(_scaled_grey(image)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        return _in_srgb(_over_background(image), image.info)
    if image.mode == "LAB":
        return _from_lab(image)
    if image.mode not in _COLOUR_SPACES:
        return _in_srgb(image.convert("RGB"), image.info)
    return _in_srgb(image, image.info)


def _eight_bits(image: Image.Image) -> npt.NDArray[np.uint8]:
    """Grey values of up to 16 bits as 8 bits, the lower bits cut."""
    bits = _of_tiff(image, _BITS_PER_SAMPLE, 16)  # some cameras use 10, 12 or 14 of the 16
    grey = (np.asarray(image) >> max(0, min(bits, 16) - 8)).astype(np.uint8)
    return _black_is_zero(image, grey)


def _scaled_grey(image: Image.Image) -> npt.NDArray[np.uint8]:
    """Grey values of 32 bits as 8 bits, by their range."""
    values = np.asarray(image)
    if image.mode == "F":
        return _black_is_zero(image, grey_by_range(values))
    unsigned = _of_tiff(image, _SAMPLE_FORMAT, 2) == 1
    return _black_is_zero(image, grey_by_range(values.view(np.uint32) if unsigned else values, (255.0, 65535.0)))


def _black_is_zero(image: Image.Image, grey: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Grey values with 0 for black; TIFF files may use it for white."""
    return ~grey if _of_tiff(image, _PHOTOMETRIC, 1) == 0 else grey


def _of_tiff(image: Image.Image, tag: int, default: int) -> int:
    """A number that a TIFF file says of its pixels; the default for other files."""
    value = getattr(image, "tag_v2", {}).get(tag, default)
    return int(value[0] if isinstance(value, tuple) else value)


def _over_background(image: Image.Image) -> Image.Image:
    """A transparent image over :data:`BACKGROUND`, in RGB."""
    if image.mode == "La":
        image = image.convert("LA")
    image = image.convert("RGBA")
    if image.getchannel("A").getextrema() == (255, 255):  # nothing shows through
        return image.convert("RGB")
    return Image.alpha_composite(Image.new("RGBA", image.size, (*BACKGROUND, 255)), image).convert("RGB")


def _in_srgb(image: Image.Image, info: dict[str | tuple[int, int], Any]) -> Image.Image:
    """An image in RGB, CMYK or grey as sRGB, by the profile that its file holds."""
    profile = info.get("icc_profile")
    conversion = _conversion(profile, image.mode) if profile else None
    if conversion is None:
        return image.convert("RGB")
    return conversion.apply(image)


@lru_cache(maxsize=32)
def _conversion(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """From a colour profile to sRGB; None if it is sRGB already, damaged, or of another kind of image."""
    try:
        opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if opened.profile.xcolor_space.strip() != _COLOUR_SPACES[mode] or "sRGB" in ImageCms.getProfileDescription(opened):
            return None
        return ImageCms.buildTransform(opened, ImageCms.createProfile("sRGB"), mode, "RGB")
    except Exception:  # a damaged profile may raise anything, and the picture can be shown without it
        return None


def _from_lab(image: Image.Image) -> Image.Image:
    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    return ImageCms.buildTransform(lab, srgb, "LAB", "RGB").apply(image)
