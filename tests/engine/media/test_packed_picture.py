"""Pictures in our files: whole, bounded, without metadata, and exact at the size of their video."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffusers_helper.buckets import nearest_bucket
from diffusers_helper.media import packed_picture
from diffusers_helper.media.images import fit_image, read_image, read_size, to_data_uri
from diffusers_helper.media.packed_picture import pack_picture, read_fitted
from diffusers_helper.media.picture_file import open_data_uri

SIDE = 256
"""Pixels of the longer side of what is kept of a picture here, where large ones would take long."""
PLACE = b"35.6586 N, 139.7454 E"
EXIF_GPS = 0x8825


def photo(width: int, height: int) -> np.ndarray:
    """A picture with soft shapes, hard edges and grain, `(height, width, 3)` uint8."""
    rng, y, x = np.random.default_rng(0), *np.mgrid[:height, :width] / max(height, width)
    waves = [np.sin(40 * x * (1 + y)), np.cos(25 * y), np.where((20 * x).astype(int) % 2, 1, -1)]
    grain = rng.normal(0, 3, (height, width, 3))
    return (128 + 90 * np.stack(waves, axis=-1) + grain).clip(0, 255).astype(np.uint8)


def save(picture: np.ndarray, path: Path, **options: object) -> str:
    Image.fromarray(picture).save(path, **options)
    return str(path)


def loss(a: np.ndarray, b: np.ndarray) -> float:
    """The mean difference of two pictures in levels of 255."""
    return float(np.abs(a.astype(int) - b).mean())


@pytest.fixture
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed_picture, "MAX_SIDE", SIDE)
    monkeypatch.setattr(packed_picture, "LOSSLESS_PIXELS", SIDE**2 // 4)


pytestmark = pytest.mark.usefixtures("_small")


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A photograph larger than what is kept of it, that tells where it was taken."""
    exif = Image.Exif()
    exif[EXIF_GPS] = {1: "N", 29: PLACE.decode()}
    exif[0x010E] = PLACE.decode()
    path = tmp_path_factory.mktemp("large") / "photo.jpg"
    return save(photo(480, 360), path, quality=92, exif=exif, comment=PLACE)


def test_a_draft_brings_back_a_picture_for_a_large_video(large):
    draft = read_fitted(large, *nearest_bucket(360, 480, 96))
    packed = pack_picture(large, draft)
    assert np.array_equal(read_fitted(packed, *draft.shape[:2]), draft), "the same video is made again"
    assert read_size(packed) == (192, 256)
    size = nearest_bucket(*read_size(packed), 192)
    assert size == nearest_bucket(360, 480, 192)
    original = read_fitted(large, *size)
    assert loss(read_fitted(packed, *size), original) < 6
    assert loss(fit_image(draft, *size), original) > 12, "the draft's own pixels would be blurred"


def test_a_picture_is_kept_again_without_further_loss(large, tmp_path):
    draft = read_fitted(large, 96, 128)
    packed = pack_picture(large, draft)
    assert pack_picture(packed, draft) == packed
    larger = pack_picture(packed, read_fitted(packed, 144, 192))
    assert np.array_equal(read_image(larger), read_image(packed))
    (copy := tmp_path / "copy.webp").write_bytes(open_data_uri(packed)[0].read())
    assert pack_picture(str(copy), draft) == packed, "as a file, too"


def test_no_metadata_travels(large, tmp_path):
    assert PLACE in Path(large).read_bytes()
    sizes = {"large.jpg": 400, "small.jpg": 100, "small.webp": 100, "large.webp": 400, "middle.webp": 200}
    for name, side in sizes.items():
        with Image.open(large) as image:
            options = {"exif": image.getexif().tobytes(), "xmp": PLACE, "comment": PLACE}
            path = save(photo(side, side), tmp_path / name, **options)
        assert PLACE in Path(path).read_bytes()
        content = open_data_uri(pack_picture(path, read_fitted(path, 64, 64)))[0].read()
        assert PLACE not in content
        assert b"EXIF" not in content


@pytest.mark.parametrize(("width", "height"), [(40, 56), (128, 128), (75, 210)])
def test_a_small_picture_is_kept_without_loss_and_once(tmp_path, width, height):
    path = save(photo(width, height), tmp_path / "a.png")
    packed = pack_picture(path, read_fitted(path, 80, 64))
    assert packed == to_data_uri(read_image(path))


def test_a_picture_as_large_as_its_video_is_kept_without_loss(tmp_path):
    picture = photo(224, 208)
    path = save(picture, tmp_path / "a.png")
    assert pack_picture(path, read_fitted(path, 208, 224)) == to_data_uri(picture)


@pytest.mark.parametrize(
    ("width", "height", "kept"), [(500, 125, (64, 256)), (6000, 60, (8, 800)), (50, 900, (256, 14))]
)
@pytest.mark.parametrize("position", [0, 0.25, 1])
def test_a_long_picture_keeps_its_whole_length_and_the_part_of_its_video(
    tmp_path, width, height, kept, position
):
    path = save(photo(width, height), tmp_path / "a.png")
    size = nearest_bucket(height, width, 96)
    fitted = read_fitted(path, *size, position)
    packed = pack_picture(path, fitted, position)
    assert read_size(packed) == kept
    assert np.array_equal(read_fitted(packed, *size, position), fitted)
    other = read_fitted(packed, *size, 0.3)
    assert np.array_equal(other, fit_image(read_image(packed), *size, 0.3)), "another part is not this one"


def test_a_plain_picture_is_read_at_the_position_that_was_asked_for(tmp_path):
    """Its parts are nearly alike, and yet each is another."""
    faint = np.random.default_rng(0).integers(126, 130, (300, 600, 3), dtype=np.uint8)
    path = save(faint, tmp_path / "a.png")
    packed = pack_picture(path, read_fitted(path, 64, 64, 0.25), 0.25)
    assert np.array_equal(read_fitted(packed, 64, 64, 0.3), fit_image(read_image(packed), 64, 64, 0.3))


def test_a_turned_photograph_is_kept_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = save(photo(200, 120), tmp_path / "turned.webp", exif=exif)
    packed = pack_picture(path, read_fitted(path, 96, 64))
    assert read_size(packed) == read_size(path) == (200, 120)
    assert loss(read_image(packed), read_image(path)) < 8


@pytest.mark.slow
def test_a_photograph_of_200_megapixels_is_bounded(tmp_path, monkeypatch):
    monkeypatch.undo()
    path = tmp_path / "a.jpg"
    Image.effect_noise((400, 300), 60).resize((16384, 12288)).convert("RGB").save(path, quality=80)
    fitted = read_fitted(str(path), 480, 640)
    packed = pack_picture(str(path), fitted)
    assert read_size(packed) == (1536, 2048)
    assert len(packed) < 4 * 2**20
    assert np.array_equal(read_fitted(packed, 480, 640), fitted)


def test_transparency_depth_and_profiles_come_back_as_they_were_read(tmp_path):
    grey = Image.fromarray(photo(120, 100)[..., 0].astype(np.uint16) * 257)
    colours = Image.fromarray(photo(120, 100))
    clear = colours.copy()
    clear.putalpha(Image.fromarray(photo(120, 100)[..., 1]))
    profile = (Path(__file__).parents[2] / "support" / "profiles" / "display_p3.icc").read_bytes()
    grey.save(tmp_path / "deep.png")
    clear.save(tmp_path / "clear.webp", lossless=True)
    colours.save(tmp_path / "wide.png", icc_profile=profile)
    for name in ("deep.png", "clear.webp", "wide.png"):
        path = str(tmp_path / name)
        packed = pack_picture(path, read_fitted(path, 64, 96))
        assert np.array_equal(read_image(packed), read_image(path))
        assert not open_data_uri(packed)[0].read().count(b"ICCP")


def test_a_part_that_shows_something_else_is_not_used(large, tmp_path):
    """Else a file could show its user one picture, and make a video of another."""
    draft = read_fitted(large, 96, 128)
    other = pack_picture(large, draft[::-1])
    assert np.array_equal(read_fitted(other, 96, 128), fit_image(read_image(other), 96, 128))
    path = save(photo(64, 64), tmp_path / "a.webp")
    Path(path).write_bytes(Path(path).read_bytes() + b"PART\xff\xff\xff\xff")
    assert read_fitted(path, 32, 32).shape == (32, 32, 3)
