"""Files that the page was given: recognised by their content, whatever they are called."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image

from diffusers_helper.errors import InputError
from diffusers_helper.media.embedded_request import to_comment, write_png
from diffusers_helper.media.images import read_image, to_data_uri
from diffusers_helper.media.video import write_mp4
from diffusers_helper.request import GenerationRequest
from tests.support.pictures import PICTURE
from webui.eichi_utils.uploads.files import (
    checked_picture,
    embedded_request,
    is_readable_in_part,
    is_share,
    is_video,
    lies_in,
    make_view,
    read_in_part,
    uploaded_path,
    uploaded_paths,
)

URI = to_data_uri(PICTURE)
REQUEST: dict[str, Any] = GenerationRequest(URI, prompt="A cat.", seed=7).to_dict()


@pytest.fixture
def uploads(tmp_path) -> Path:
    folder = tmp_path / "uploads"
    folder.mkdir()
    return folder


def upload(folder: Path, name: str, content: bytes | str) -> str:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def video(folder: Path, comment: str, name: str = "a.mp4") -> str:
    """An MP4 of two frames with this comment."""
    write_mp4(folder / name, [PICTURE] * 2, crf=40, comment=comment)
    return str(folder / name)


def refusal(path: str) -> InputError:
    with pytest.raises(InputError) as caught:
        embedded_request(path)
    return caught.value


# -- what gradio hands over --------------------------------------------------------------------------


def test_upload_path_is_found_in_any_gradio_value(uploads):
    path = upload(uploads, "a.png", b"x")
    file = {"path": path, "meta": {"_type": "gradio.FileData"}}
    assert uploaded_path(file, uploads) == path
    assert uploaded_path({"image": file, "caption": None}, uploads) == path
    assert uploaded_path({"video": file}, uploads) == path
    assert uploaded_paths([file, {"image": file}], uploads) == [path, path]


def test_value_without_upload_has_no_path(uploads):
    for file in (None, {}, {"path": None}, {"image": None}, {"url": "x"}):
        assert uploaded_path(file, uploads) is None
        assert uploaded_paths([file], uploads) == []
    assert uploaded_paths(None, uploads) == uploaded_paths([], uploads) == []


OF_ANOTHER_TYPE = ["a.png", "", 7, True, [], ["a.png"], {"image": "a.png"}, {"video": 7}]
NO_PATHS = ["{outside}", "{uploads}/../outside.png", "{uploads}x/a.png", "/etc/passwd", "{uploads}/link.png"]
NO_PATHS += ["data:image/png;base64,AA", "a\0b", "x" * 10**5, "http://evil.example/x"]
FOREIGN = [{"path": path} for path in (*NO_PATHS, 7, ["a"])]


@pytest.mark.parametrize("file", [*OF_ANOTHER_TYPE, *FOREIGN], ids=range(19))
def test_all_but_uploads_is_refused(uploads, tmp_path, file):
    """A caller is not told if there is such a file."""
    outside = upload(tmp_path, "outside.png", b"x")
    if "link.png" in str(file):
        try:
            (uploads / "link.png").symlink_to(outside)
        except OSError:
            pytest.skip("this system makes no links")
    if isinstance(file, dict) and isinstance(path := file.get("path"), str):
        file = {"path": path.format(outside=outside, uploads=uploads)}
    for read in (uploaded_path, lambda file, folder: uploaded_paths([{"image": file}, file], folder)):
        with pytest.raises(InputError) as caught:
            read(file, uploads)
        assert caught.value.code == "image_missing"


@pytest.mark.parametrize("path", ["//host/share/a.png", r"\\host\share\a", r"\/host/a", r"\??\UNC\host\a"])
def test_no_other_computer_is_asked_for_a_file(monkeypatch, path):
    monkeypatch.setattr(Path, "resolve", lambda path: path if path.name == "up" else pytest.fail("asked"))
    assert not lies_in(path, Path("up"))
    assert not is_share("//nas/app/up/a.png", Path("//nas/app/up")), "the app may lie on such a share"


# -- pictures ----------------------------------------------------------------------------------------


def turned() -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    return exif


SEE_THROUGH = Image.fromarray(PICTURE).convert("RGBA")
SEE_THROUGH.putalpha(100)
FILES: dict[str, tuple[Image.Image, str, dict[str, Any]]] = {
    "plain": (Image.fromarray(PICTURE), "PNG", {}),
    "turned": (Image.fromarray(PICTURE), "JPEG", {"exif": turned()}),
    "CMYK": (Image.fromarray(PICTURE).convert("CMYK"), "JPEG", {}),
    "see-through": (SEE_THROUGH, "WEBP", {"lossless": True}),
    "16 bits": (Image.fromarray(np.arange(600, dtype=np.uint16).reshape(20, 30) * 100), "PNG", {}),
    "animated": (
        Image.fromarray(PICTURE),
        "GIF",
        {"save_all": True, "append_images": [Image.new("RGB", (PICTURE.shape[1], PICTURE.shape[0]), "red")]},
    ),
    "TIFF": (Image.fromarray(PICTURE), "TIFF", {}),
    "PPM": (Image.fromarray(PICTURE), "PPM", {}),
}


@pytest.mark.parametrize("name", FILES)
def test_a_picture_stays_as_it_is_and_the_page_shows_what_the_engine_reads(uploads, name):
    image, kind, options = FILES[name]
    path = uploads / "my.scan.dat"
    image.save(path, kind, **options)
    before = path.read_bytes()
    assert checked_picture(str(path)) == str(path)
    assert path.read_bytes() == before
    view = make_view(str(path))
    with Image.open(view) as shown:
        assert (shown.format, shown.mode) == ("PNG", "RGB")
        assert np.array_equal(np.asarray(shown), read_image(str(path)))
    assert uploaded_path({"path": view}, uploads) == str(path)


def test_a_large_picture_is_shown_reduced(uploads):
    Image.new("RGB", (3000, 1500), "teal").save(path := uploads / "large.png")
    with Image.open(make_view(str(path))) as shown:
        assert shown.size == (1024, 512)


@pytest.mark.parametrize(("kept", "is_offered"), [(0.9, True), (0.2, False)])
def test_of_a_picture_that_is_cut_the_rest_can_be_used_from_half_on(uploads, kept, is_offered):
    noise = np.random.default_rng(0).integers(0, 255, (256, 256, 3), np.uint8)
    Image.fromarray(noise).save(path := uploads / "cut.jpg", quality=80)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * kept)])
    with pytest.raises(InputError) as caught:
        checked_picture(str(path))
    assert (caught.value.code, caught.value.values["image"]) == ("image_cut", "cut.jpg")
    assert (is_readable_in_part(caught.value), path.exists()) == (is_offered, is_offered)
    if is_offered:
        whole = checked_picture(read_in_part(str(path)))
        assert np.array_equal(read_image(whole), read_image(str(path), partial=True))


NO_PICTURES = [b"", b"\xff\xfe", b"<html><script>alert(1)</script></html>", b"GIF89a", b"PK\3\4" + bytes(100)]


@pytest.mark.parametrize("content", NO_PICTURES)
def test_file_that_is_no_picture_is_refused_and_deleted(uploads, content):
    with pytest.raises(InputError):
        checked_picture(upload(uploads, "cat.png", content))
    assert not uploads.exists() or not [*uploads.iterdir()], "nothing stays"


# -- requests inside of files ------------------------------------------------------------------------


def test_own_video_and_picture_carry_their_request(uploads):
    mp4, png = uploads / "a.mp4", uploads / "a.png"
    write_mp4(mp4, [PICTURE], crf=40, comment=json.dumps(REQUEST))
    write_png(png, PICTURE, to_comment(REQUEST, PICTURE))
    assert embedded_request(str(mp4)) == GenerationRequest.from_dict(REQUEST)
    expected = dataclasses.replace(GenerationRequest.from_dict(REQUEST), start_image=str(png))
    assert embedded_request(str(png)) == expected


def test_what_others_made_is_refused_by_its_name(uploads):
    Image.fromarray(PICTURE).save(uploads / "a.png")
    theirs = [video(uploads, comment) for comment in ("", "holiday", "[1, 2]", '{"title": "x"}')]
    theirs += [upload(uploads, name, json.dumps(REQUEST)) for name in ("request.json", "text.mp4", "cat")]
    theirs += [upload(uploads, f"b{number}.png", content) for number, content in enumerate(NO_PICTURES)]
    for path in (*theirs, str(uploads / "a.png")):
        error = refusal(path)
        assert (error.code, error.values) == ("not_made_by_us", {"path": Path(path).name})
    error = refusal(upload(uploads, "b.mp4", b"\0\0\0\x18ftypmp42broken"))
    assert error.values["path"] == "b.mp4"
    assert str(uploads) not in str(error.values)


@pytest.mark.parametrize(
    "values",
    [
        {"start_image": "secret.png"},
        {"start_image": "{secret}"},
        {"start_image": "../uploads/secret.png"},
        {"end_image": "{secret}"},
        {"keyframes": [{"section": 0, "image": "{secret}"}]},
        {"end_image": "http://evil.example/a.png"},
    ],
)
def test_video_or_picture_that_names_local_files_is_refused(uploads, values):
    secret = uploads / "secret.png"
    Image.fromarray(PICTURE).save(secret)
    comment = json.dumps(REQUEST | values).replace("{secret}", secret.as_posix())
    write_png(uploads / "theirs.png", PICTURE, comment)
    for path in (video(uploads, comment, "theirs.mp4"), str(uploads / "theirs.png")):
        error = refusal(path)
        assert (error.code, error.values) == ("not_made_by_us", {"path": Path(path).name})


def test_invalid_request_is_refused_with_its_field(uploads):
    for comment in ({"seed": -1}, {"nonsense": 1}):
        assert "field" in refusal(video(uploads, json.dumps(REQUEST | comment))).values


def test_videos_are_recognised_by_extension():
    names = ("a.mp4", "A.MP4", "a.mov", "a.png", "mp4", "a.mp4.png")
    assert [is_video(name) for name in names] == [True, True, True, False, False, False]
