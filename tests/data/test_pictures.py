"""Pictures of every kind as viewers show them, in RGB."""

from __future__ import annotations

import json
import os
import runpy
import struct
import sys
import warnings
from io import BytesIO
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, features

from ssl_dc.data import pictures
from ssl_dc.data.pictures import (
    BACKGROUND,
    LeastSize,
    as_rgb,
    decoded_smaller,
    fault_of,
    grey_by_range,
    read_rgb,
    read_size,
)
from ssl_dc.errors import DataError

RAMP = np.tile(np.arange(256), (4, 1))
"""Grey values that rise from left to right."""


def scene() -> Image.Image:
    """A picture whose four quarters differ: red, green above, blue, white below."""
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[:20, :30], pixels[:20, 30:], pixels[20:, :30], pixels[20:][:, 30:] = (200, 0, 0), (0, 200, 0), (0, 0, 200), 200
    return Image.fromarray(pixels)


def read(image: Image.Image, path: Path, **options: object) -> npt.NDArray[np.int64]:
    image.save(path, **options)
    shown = read_rgb(str(path), "it")
    assert shown.mode == "RGB"
    return np.asarray(shown).astype(np.int64)


def quarters(pixels: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """The mean colour of each quarter, (4, 3): upper left, upper right, lower left, lower right."""
    y, x = pixels.shape[0] // 2, pixels.shape[1] // 2
    parts = (pixels[:y, :x], pixels[:y, x:], pixels[y:, :x], pixels[y:, x:])
    return np.array([part.mean((0, 1)) for part in parts])


SCENE = quarters(np.asarray(scene()).astype(np.int64))


@pytest.mark.parametrize(
    ("mode", "colour", "ending", "expected"),
    [
        ("L", 200, "jpg", 200),
        ("P", 1, "png", None),
        ("CMYK", 0, "jpg", 255),
        ("1", 1, "png", 255),
        ("I;16", 200 * 256, "png", 200),
        ("RGBA", (10, 20, 30, 255), "png", (10, 20, 30)),
        ("RGBA", (10, 20, 30, 0), "png", BACKGROUND),
        ("LA", (0, 102), "png", (153, 153, 153)),
        ("RGBA", (0, 0, 0, 0), "webp", BACKGROUND),
        ("LAB", (255, 128, 128), "tif", 255),
    ],
)
def test_any_mode_becomes_rgb(
    mode: str, colour: int | tuple[int, ...], ending: str, expected: int | tuple[int, ...] | None, tmp_path: Path
) -> None:
    pixels = read(Image.new(mode, (6, 4), colour), tmp_path / f"image.{ending}")
    assert pixels.shape == (4, 6, 3)
    if expected is not None:
        assert np.abs(pixels - expected).max() <= 2


def test_transparent_palettes_and_colours_show_the_background_without_a_warning(tmp_path: Path) -> None:
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([0, 0, 0, 10, 20, 30])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert (read(palette, tmp_path / "p.png", transparency=bytes([255, 0])) == 255).all()
        assert (read(Image.new("RGB", (4, 4), (1, 2, 3)), tmp_path / "c.png", transparency=(1, 2, 3)) == 255).all()
        assert (read(Image.new("L", (4, 4), 7), tmp_path / "l.png", transparency=7) == 255).all()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "tif", *(["avif"] if features.check("avif") else [])])
def test_a_picture_is_turned_as_its_exif_says(orientation: int, ending: str, tmp_path: Path) -> None:
    undone = {6: 8, 8: 6}.get(orientation, orientation)  # every other turn undoes itself
    exif = Image.Exif()
    exif[274] = orientation
    stored = scene() if orientation == 1 else scene().transpose(pictures._UPRIGHT[undone])
    shown = read(stored, tmp_path / f"turned.{ending}", exif=exif)
    assert shown.shape == (40, 60, 3)
    assert np.abs(quarters(shown) - SCENE).max() < 8


def smaller(path: Path, least: LeastSize | None) -> Image.Image:
    with decoded_smaller(least):
        return read_rgb(str(path), "it")


@settings(max_examples=40, deadline=None)
@given(
    width=st.integers(1, 90),
    height=st.integers(1, 90),
    side=st.integers(1, 40),
    area=st.floats(1, 3000),
    turned=st.booleans(),
)
def test_a_jpeg_is_decoded_as_small_as_is_allowed(
    width: int, height: int, side: int, area: float, turned: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    exif = Image.Exif()
    exif[274] = 6 if turned else 1
    path = tmp_path_factory.mktemp("smaller") / "it.jpg"
    Image.new("RGB", (width, height)).save(path, exif=exif)
    shown = smaller(path, LeastSize(side, area)).size
    whole = (height, width) if turned else (width, height)
    allowed = [times for times in (2, 4, 8) if min(whole) >= times * side and width * height >= times**2 * area]
    times = max(allowed, default=1)
    assert shown == tuple(-(-length // times) for length in whole)


def test_a_jpeg_decoded_smaller_shows_the_same(tmp_path: Path) -> None:
    path = tmp_path / "it.jpg"
    scene().resize((480, 320)).save(path, quality=95)
    shown = smaller(path, LeastSize(50, 50 * 50))
    assert shown.size == (120, 80)
    np.testing.assert_allclose(quarters(np.asarray(shown).astype(np.int64)), SCENE, atol=6)
    assert smaller(path, None).size == read_rgb(str(path), "it").size == read_size(str(path), "it") == (480, 320)


def test_only_jpeg_is_decoded_smaller_and_only_inside(tmp_path: Path) -> None:
    scene().resize((480, 320)).save(tmp_path / "it.png")
    assert smaller(tmp_path / "it.png", LeastSize(8, 64)).size == (480, 320)
    scene().resize((480, 320)).save(tmp_path / "it.jpg")
    with pytest.raises(DataError), decoded_smaller(LeastSize(8, 64)):
        read_rgb(str(tmp_path / "not-there"), "it")
    assert read_rgb(str(tmp_path / "it.jpg"), "it").size == (480, 320)


def test_half_a_jpeg_is_broken_at_every_size(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (320, 480, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "it.jpg")
    content = (tmp_path / "it.jpg").read_bytes()
    (tmp_path / "it.jpg").write_bytes(content[: len(content) // 2])
    for least in (None, LeastSize(8, 64)):
        with pytest.raises(DataError, match="truncated"):
            smaller(tmp_path / "it.jpg", least)


def test_damaged_exif_data_do_not_matter(tmp_path: Path) -> None:
    shown = read(scene(), tmp_path / "a.jpg", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff" + b"\xff" * 40, quality=95)
    assert np.abs(quarters(shown) - SCENE).max() < 8


@pytest.mark.parametrize("ending", ["gif", "webp", "png", "tif"])
def test_of_a_moving_picture_the_first_frame_is_shown(ending: str, tmp_path: Path) -> None:
    shown = read(scene(), tmp_path / f"a.{ending}", save_all=True, append_images=[Image.new("RGB", (60, 40))])
    assert np.abs(quarters(shown) - SCENE).max() < 8


@pytest.mark.parametrize("ending", ["txt", "png", ""])
def test_the_content_decides_and_not_the_name(ending: str, tmp_path: Path) -> None:
    scene().save(tmp_path / "a.jpg", quality=95)
    named = (tmp_path / "a.jpg").rename(tmp_path / f"b.{ending}")
    assert np.abs(quarters(np.asarray(read_rgb(str(named), "it")).astype(np.int64)) - SCENE).max() < 8


GREY: dict[str, npt.NDArray[np.generic]] = {
    "floats 0 to 1": (RAMP / 255).astype(np.float32),
    "floats a little outside 0 to 1": (RAMP / 255 * 1.04 - 0.02).astype(np.float32),
    "floats 0 to 255": RAMP.astype(np.float32),
    "floats 0 to 65535": (RAMP * 257).astype(np.float32),
    "int32 0 to 255": RAMP.astype(np.int32),
    "int32 0 to 65535": (RAMP * 257).astype(np.int32),
    "int32 of a scanner": (RAMP * 8 - 1024).astype(np.int32),
    "uint16": (RAMP * 257).astype(np.uint16),
}


@pytest.mark.parametrize("values", GREY.values(), ids=GREY.keys())
def test_grey_values_of_16_and_32_bits_are_scaled_by_their_range(values: npt.NDArray[np.generic], tmp_path: Path) -> None:
    shown = read(Image.fromarray(values), tmp_path / "a.tif")
    assert np.abs(shown - RAMP[..., None]).max() <= 6


def test_a_dark_float_picture_stays_dark(tmp_path: Path) -> None:
    for largest, expected in ((0.5, 127), (100.0, 100), (30_000.0, 117)):
        values = np.linspace(0, largest, 64, dtype=np.float32).reshape(8, 8)
        assert abs(read(Image.fromarray(values), tmp_path / "a.tif").max() - expected) <= 1


@given(st.lists(st.floats(allow_nan=True, width=32), min_size=1, max_size=20))
def test_any_floats_are_grey_values_in_their_order(numbers: list[float]) -> None:
    values = np.array(numbers, np.float32)
    grey = grey_by_range(values).astype(int)
    finite = np.isfinite(values)
    assert (grey[~finite] == 0).all()
    order = np.argsort(values[finite], kind="stable")
    assert (np.diff(grey[finite][order]) >= 0).all()


def tiff(values: npt.NDArray[np.uint8], **tags: int) -> bytes:
    """A grey TIFF file with tags of its own, written by hand."""
    known = {"bits": 258, "photometric": 262, "sample_format": 339}
    fields = {256: values.shape[1], 257: values.shape[0], 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: values.shape[0]}
    fields |= {known[name]: value for name, value in tags.items()}
    fields[256] = fields[256] * 8 // fields[258]
    fields[279] = values.size
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(fields.items()))
    directory = struct.pack("<H", len(fields)) + entries + b"\0\0\0\0"
    return b"II*\0" + struct.pack("<I", 8 + values.size) + values.tobytes() + directory


def test_unsigned_values_above_two_thousand_million_do_not_wrap_round() -> None:
    ramp = (RAMP.astype(np.uint32) << 24).view(np.uint8).reshape(4, -1)
    shown = np.asarray(read_rgb(BytesIO(tiff(ramp, bits=32, sample_format=1)), "it"))[..., 0]
    assert np.abs(shown.astype(int) - RAMP).max() <= 1


def test_zero_is_white_where_a_tiff_file_says_so() -> None:
    ramp = (RAMP.astype(np.uint16) * 257).view(np.uint8).reshape(4, -1)
    shown = np.asarray(read_rgb(BytesIO(tiff(ramp, bits=16, photometric=0)), "it"))[..., 0]
    assert np.abs(shown.astype(int) - (255 - RAMP)).max() <= 1


def test_twelve_bits_are_the_whole_range() -> None:
    bits = "".join(f"{value * 16 + value // 16:012b}" for value in RAMP[0])
    row = np.array([int(bits[place : place + 8], 2) for place in range(0, len(bits), 8)], np.uint8)
    shown = np.asarray(read_rgb(BytesIO(tiff(np.tile(row, (4, 1)), bits=12)), "it"))[..., 0]
    assert np.abs(shown.astype(int) - RAMP).max() <= 1


def test_colours_are_converted_by_the_embedded_profile(tmp_path: Path) -> None:
    """Red of a profile whose red and blue are swapped is blue; sRGB's own profile changes nothing."""
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert np.array_equal(read(scene(), tmp_path / "a.png", icc_profile=srgb), np.asarray(scene()))
    swapped = srgb.replace(b"rXYZ", b"tmpX").replace(b"bXYZ", b"rXYZ").replace(b"tmpX", b"bXYZ").replace(b"sRGB", b"xRGB")
    swapped = swapped.replace("sRGB".encode("utf-16-be"), "xRGB".encode("utf-16-be"))
    shown = quarters(read(scene(), tmp_path / "b.png", icc_profile=swapped))
    assert np.abs(shown - SCENE[[2, 1, 0, 3]]).max() < 8
    assert np.array_equal(read(scene(), tmp_path / "c.png", icc_profile=b"no profile"), np.asarray(scene()))


def test_a_heic_picture_is_read_with_pillow_heif(tmp_path: Path) -> None:
    pillow_heif = pytest.importorskip("pillow_heif", reason="pillow-heif is not installed")
    heif = pillow_heif.from_pillow(scene())
    heif.save(tmp_path / "a.heic", quality=95)
    shown = np.asarray(read_rgb(str(tmp_path / "a.heic"), "it")).astype(np.int64)
    assert np.abs(quarters(shown) - SCENE).max() < 12


def test_without_pillow_heif_a_heic_picture_is_counted_with_the_hint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    path = tmp_path / "a.heic"
    path.write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 100)
    fault = fault_of(str(path))
    assert fault is not None
    assert fault.kind == "HEIC"
    with pytest.raises(DataError, match=r"a HEIC picture; to read it: pip install 'ssl-dc\[heic\]'"):
        read_rgb(str(path), "it")


def test_too_many_pixels_are_one_message_of_our_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scene().save(tmp_path / "a.png")
    for limit in (2000, 1000):  # Pillow warns of the first and refuses the second
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with pytest.raises(
            DataError, match=r"^image it cannot be read: it has more pixels than the 0 million that are read\.$"
        ):
            read_rgb(str(tmp_path / "a.png"), "it")
        fault = fault_of(str(tmp_path / "a.png"))
        assert fault is not None
        assert fault.kind == "too large"


ENDINGS = ["jpg", "png", "gif", "webp", "tif", "bmp", "ppm", "jp2", *(["avif"] if features.check("avif") else [])]


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_whole_file_is_no_fault_and_half_of_one_is(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{ending}"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(path)
    assert fault_of(str(path)) is None
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert fault_of(str(path)) is not None
    with pytest.raises(DataError, match="cannot be read"):
        read_rgb(str(path), "it")


def test_what_cameras_write_behind_a_picture_does_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    scene().save(path)
    path.write_bytes(path.read_bytes() + b"a short film" * 100)
    assert fault_of(str(path)) is None


def test_messages_hold_no_address_and_no_traceback() -> None:
    for content in (b"", b"words", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"II*\0\xff\xff\xff\xff", b"BM" + b"\0" * 60):
        with pytest.raises(DataError, match=r"^image it cannot be read: [^<]*\.$"):
            read_rgb(BytesIO(content), "it")


def test_an_image_in_memory_is_converted_alike() -> None:
    assert as_rgb(scene()).tobytes() == scene().tobytes()
    assert as_rgb(Image.new("RGBA", (2, 2), (9, 9, 9, 0))).getpixel((0, 0)) == BACKGROUND


def test_the_folder_that_people_have_is_read_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every picture of the made folder, by the mean colour of its quarters, and the count of what is left out."""
    maker = Path(__file__).parents[3] / "shared" / "cases" / "messy_folder.py"
    if not maker.is_file():
        pytest.skip("../shared/cases/messy_folder.py is not there")
    root = tmp_path / "pictures"
    monkeypatch.setattr(sys, "argv", [str(maker), str(root)])
    runpy.run_path(str(maker))
    expected = json.loads((tmp_path / "expected.json").read_text())
    from ssl_dc.data.folder import Folder
    from ssl_dc.data.options import FolderOptions

    splits = Folder(FolderOptions(root=root, hold_out=0)).open()
    assert splits.found is not None
    assert str(splits.found.left_out) == "6 files left out: 4 not pictures, 2 broken"
    right = {name: colours for name, colours in expected.items() if isinstance(colours, list)}
    assert len(splits.train) == len(right)
    wrong = {}
    for name, colours in right.items():
        path = os.path.join(root, name)
        pixels = np.asarray(read_rgb(path, path)).astype(np.int64)
        y, x = (pixels.shape[0] + 1) // 2, (pixels.shape[1] + 1) // 2
        parts = (pixels[:y, :x], pixels[:y, -x:], pixels[-y:, :x], pixels[-y:, -x:])
        off = np.abs(np.array([part.mean((0, 1)) for part in parts]) - colours).max()
        if off > 6:
            wrong[name] = off
    assert not wrong
