"""Whatever the command is given: one sentence, the right exit status, and no half of a file."""

import io
import json
import os
import shutil
import struct
import zlib
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from tests.support.tiny import MODELS, START

HUNYUAN = "hunyuanvideo-community/HunyuanVideo"
REDUX = "lllyasviel/flux_redux_bfl"
TRANSFORMER = "lllyasviel/FramePackI2V_HY"


# -- the request file ---------------------------------------------------------------------------------


def test_a_request_that_is_not_there_is_refused(command):
    assert "no_such.json cannot be opened (No such file" in command.refuse(command.folder / "no_such.json")


def test_a_folder_as_request_is_refused(command):
    assert "is a folder" in command.refuse(command.folder)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_as_request_is_refused_without_waiting(command):
    os.mkfifo(command.folder / "pipe.json")
    assert "is a folder or a device" in command.refuse(command.folder / "pipe.json")


def test_a_name_too_long_for_the_file_system_is_refused(command):
    assert "File name too long" in command.refuse(command.folder / ("a" * 300))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "not valid JSON (Expecting value"),
        (b"\0" * 100, "not valid JSON"),
        (b"{'prompt': 'single quotes'}", "not valid JSON"),
        (b'{"prompt": "no end', "not valid JSON (Unterminated string"),
        (b'{"prompt": "a",}', "not valid JSON"),
        (b'{"prompt": "a"} and more', "not valid JSON (Extra data"),
        (b'[{"prompt": "a"}]', "must be one JSON object"),
        (b'"prompt"', 'not "prompt"'),
        (b"null", "not null"),
        (b"[" * 100_000 + b"]" * 100_000, "inside each other"),
        (b'{"prompt": ' * 100_000, "inside each other"),
        ('{"prompt": "猫"}'.encode("utf-16"), "not a text in UTF-8"),
        ('{"prompt": "café"}'.encode("latin-1"), "not a text in UTF-8"),
        ('{"prompt": "猫"}'.encode("shift-jis"), "not a text in UTF-8"),
    ],
)
def test_a_request_that_is_no_json_object_is_refused(command, content, said):
    assert said in command.refuse(content)


def test_a_request_with_a_byte_order_mark_works(command):
    answer = command(b"\xef\xbb\xbf" + command.request({}).read_bytes())
    assert (answer.status, answer.files) == (0, ("video.mp4", "video.png"))


def test_other_kinds_of_files_as_request_are_refused(command):
    picture = Image.new("RGB", (64, 64), "red")
    for ending in (".gif", ".jpg", ".webp"):
        picture.save(path := command.folder / f"a{ending}")
        assert "name a JSON file saved as UTF-8" in command.refuse(path)


def test_pictures_and_videos_of_others_as_request_are_refused(command):
    Image.new("RGB", (64, 64), "red").save(png := command.folder / "foreign.png")
    assert "foreign.png holds no request of this app" in command.refuse(png)
    assert "foreign.mp4 holds no request of this app" in command.refuse(foreign_mp4(command.folder, "A film"))
    assert "holds no request of this app" in command.refuse(foreign_mp4(command.folder, '{"steps": 4}'))


def test_a_huge_foreign_png_as_request_is_refused_unread(command):
    path = command.folder / "huge.png"
    path.write_bytes(huge_png(30_000, 30_000))
    assert "holds no request of this app" in command.refuse(path)


def test_our_own_files_cut_short_are_refused(command):
    assert command().status == 0
    made = shutil.move(command.output, command.folder / "made")
    for name, length in [("video.mp4", 500), ("video.mp4", 20), ("video.png", 200), ("video.png", 40)]:
        (path := command.folder / f"cut_{name}").write_bytes((made / name).read_bytes()[:length])
        assert f"cut_{name}" in command.refuse(path)
    whole = (made / "video.png").read_bytes()
    (path := command.folder / "half.png").write_bytes(whole[: len(whole) // 2])
    assert "is damaged or cut short" in command.refuse(path)


def foreign_mp4(folder: Path, comment: str) -> Path:
    path = folder / "foreign.mp4"
    with av.open(str(path), "w") as container:
        container.metadata["comment"] = comment
        stream = container.add_stream("mpeg4", rate=30)
        stream.width = stream.height = 64
        container.mux(stream.encode(av.VideoFrame(64, 64, "yuv420p")))
        container.mux(stream.encode(None))
    return path


# -- its values -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ('"prompt": 5', '"prompt" must be a text in quotes, not 5'),
        ('"prompt": null', '"prompt" must be a text in quotes, not null'),
        ('"prompt": ["a"]', '"prompt" must be a text in quotes, not [...]'),
        ('"prompt": "\\ud800"', '"prompt" holds half a character'),
        ('"negative_prompt": {}', "not {...}"),
        ('"steps": 0', '"steps" must be from 1 to 100, not 0'),
        ('"steps": -1', "not -1"),
        ('"steps": 1000', "not 1000"),
        ('"steps": "many"', 'must be a whole number from 1 to 100, not "many"'),
        ('"steps": true', "not true"),
        ('"steps": 2.5', "not 2.5"),
        ('"steps": null', "not null"),
        ('"steps": NaN', "not NaN"),
        ('"steps": Infinity', "not Infinity"),
        ('"steps": 1' + "0" * 400, "must be from 1 to 100, not 1000"),
        ('"steps": 1' + "0" * 5000, "must be a whole number from 1 to 100, not Infinity"),
        ('"steps": ' + "[" * 900 + "]" * 900, "not [...]"),
        ('"seconds": 0', '"seconds" must be more than 0 and at most 120, not 0'),
        ('"seconds": -1', "not -1"),
        ('"seconds": 1e9', "not 1000000000.0"),
        ('"seconds": 120.5', "not 120.5"),
        ('"seconds": NaN', "not NaN"),
        ('"seconds": -Infinity', "not -Infinity"),
        ('"seconds": 1' + "0" * 400, "at most 120"),
        ('"seconds": "1"', 'must be a number from 0 to 120, not "1"'),
        ('"section_seconds": 2', "must be 1 or 0.5, not 2"),
        ('"section_seconds": true', "not true"),
        ('"section_seconds": []', "not [...]"),
        ('"section_seconds": null', "not null"),
        ('"seed": -1', '"seed" must be from 0'),
        ('"seed": 1e300', '"seed" must be from 0'),
        ('"seed": 1.5', "not 1.5"),
        ('"seed": 99999999999999999999', "not 99999999999999999999"),
        ('"teacache": 1', "must be true or false, not 1"),
        ('"loop": "yes"', 'must be true or false, not "yes"'),
        ('"teacache": "false"', 'must be true or false, not "false"'),
        ('"teacache_threshold": NaN', "not NaN"),
        ('"end_frame_strength": 1.01', "from 0 to 1, not 1.01"),
        ('"guidance_scale": -0.5', "not -0.5"),
        ('"guidance_rescale": 2', "from 0 to 1, not 2"),
        ('"distilled_guidance_scale": false', "must be a number"),
        ('"all_padding": "yes"', "must be a number"),
        ('"crf": 0', '"crf" must be from 1 to 51, not 0'),
        ('"resolution": 32', '"resolution" must be from 64'),
        ('"width": 100', '"width" must be a multiple of 16, not 100; 96 would do'),
        ('"height": 40', "32 would do"),
        ('"width": 8', '"width" must be from 16 to 2048, not 8'),
        ('"width": null', '"width" and "height" both, or neither'),
        ('"start_image": null', "There is no start image"),
        ('"start_image": ""', '"start_image" must name a picture file'),
        ('"start_image": "a\\u0000b"', '"start_image" must name a picture file'),
        ('"start_image": 7', '"start_image" must be a text in quotes, not 7'),
        ('"start_image": "\\udfff.png"', "half a character"),
        ('"start_image": "data:image/png;base64,%%%"', "A picture inside the request is damaged"),
        ('"start_image": "data:image/png,abc"', "A picture inside the request is damaged"),
        ('"start_image": "data:image/png;base64,é"', "A picture inside the request is damaged"),
        ('"start_image": "data:image/png;base64,QUJD"', "data:image/png is not a picture"),
        ('"keyframes": {}', '"keyframes" must be a list like'),
        ('"keyframes": [3]', 'Number 0 of "keyframes" (counted from 0) must be an object'),
        ('"keyframes": [{"prompt": "a"}]', 'has no "section"'),
        ('"keyframes": [{"section": 0}]', "has neither an image nor a prompt"),
        ('"keyframes": [{"section": 0, "prompt": " "}]', "has neither an image nor a prompt"),
        ('"keyframes": [{"section": 0, "prompt": 1}]', '"keyframes[0].prompt" must be a text'),
        ('"keyframes": [{"section": 1, "prompt": "a"}]', "names section 1, but the video has 1:"),
        ('"keyframes": [{"section": -1, "prompt": "a"}]', "names section -1, but the video has 1:"),
        ('"keyframes": [{"section": "0", "prompt": "a"}]', "must be a whole number"),
        (
            '"keyframes": [{"section": 0, "prompt": "a"}, {"section": 0, "prompt": "b"}]',
            "Section 0 has two entries",
        ),
        ('"keyframes": [{"section": 0, "image": "no.png"}]', "no.png does not exist"),
        ('"end_image": "no.png"', "no.png does not exist"),
    ],
)
def test_a_value_that_cannot_be_used_is_named(command, values, said):
    whole = command.request({}).read_bytes().removesuffix(b"}") + f", {values}}}".encode()
    assert said in command.refuse(whole)


@pytest.mark.parametrize(
    ("key", "named", "nearest"),
    [
        ("promt", "promt", "prompt"),
        ("Start_Image", "Start_Image", "start_image"),
        ("step", "step", "steps"),
        ("", "", ""),
        ("全く違う", "全く違う", ""),
        ("x" * 5_000_000, "x" * 57 + "...", ""),
        ("line\nbreak\x1b[31m", "line\\nbreak\\x1b[31m", ""),
    ],
)
def test_an_unknown_key_is_named_with_the_nearest_known_one(command, key, named, nearest):
    sentence = command.refuse({key: 1})
    assert f'unknown key "{named}"; did you mean "{nearest}' in sentence


def test_an_unknown_key_of_a_keyframe_is_named_with_its_place(command):
    sentence = command.refuse({"keyframes": [{"section": 0, "prompt": "a", "imgae": "b.png"}]})
    assert 'unknown key "keyframes[0].imgae"; did you mean "image"?' in sentence


# -- the pictures ---------------------------------------------------------------------------------------


def huge_png(width: int, height: int, pixels: bytes = b"") -> bytes:
    """A PNG file of one bit a pixel that claims a size; `pixels` is its compressed data."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def jpeg_bytes() -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer := io.BytesIO(), "JPEG")
    return buffer.getvalue()


def one_colour_png(width: int, height: int) -> bytes:
    Image.new("RGB", (width, height), "red").save(buffer := io.BytesIO(), "PNG")
    return buffer.getvalue()


BAD_PICTURES = {
    "empty": (lambda: b"", "is an empty file"),
    "text": (lambda: b"just some words\n" * 9, "is not a picture that can be read"),
    "svg": (lambda: b'<svg xmlns="http://www.w3.org/2000/svg"><rect/></svg>', "is not a picture"),
    "html": (lambda: b"<!DOCTYPE html><html><body>404</body></html>", "is not a picture"),
    "zeros": (lambda: b"\0" * 10_000, "is not a picture"),
    "pdf": (lambda: b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", "is not a picture"),
    "eps": (lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n", "is not a picture"),
    "cut_jpeg": (lambda: jpeg_bytes()[:2000], "is damaged or cut short"),
    "cut_jpeg_header": (lambda: jpeg_bytes()[:100], "is "),
    "cut_png": (lambda: one_colour_png(64, 64)[:60], "is damaged or cut short"),
    "png_signature": (lambda: b"\x89PNG\r\n\x1a\n", "is not a picture"),
    "one_pixel": (lambda: one_colour_png(1, 1), "has only 1x1 pixels; each side needs 8"),
    "line": (lambda: one_colour_png(500, 7), "has only 500x7 pixels"),
    "huge_claim": (lambda: huge_png(30_000, 30_000), "has more than 178 megapixels"),
    "huge": (
        lambda: huge_png(30_000, 30_000, zlib.compress(bytes(30_000 * 3751), 1)),
        "has more than 178 megapixels",
    ),
    "wide_claim": (lambda: huge_png(2**31 - 1, 2**31 - 1), "has more than 178 megapixels"),
    "no_size": (lambda: huge_png(0, 0), "is "),
}


@pytest.mark.parametrize("kind", BAD_PICTURES)
@pytest.mark.parametrize("key", ["start_image", "end_image"])
def test_a_picture_that_cannot_be_used_is_named(command, kind, key):
    make, said = BAD_PICTURES[kind]
    (command.folder / f"{kind}.png").write_bytes(make())
    sentence = command.refuse({key: f"{kind}.png"})
    assert said in sentence
    assert f"{kind}.png" in sentence


def test_a_missing_picture_is_named_with_the_folder_it_was_looked_for_in(command):
    assert f"{command.folder / 'no.png'} does not exist" in command.refuse({"start_image": "no.png"})
    assert "does not exist" in command.refuse({"start_image": "request.json/no.png"})
    assert "does not exist" in command.refuse({"start_image": "https://example.com/a.png"})


def test_a_folder_as_picture_is_refused(command):
    assert "is a folder" in command.refuse({"start_image": "."})


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_as_picture_is_refused_without_waiting(command):
    os.mkfifo(command.folder / "pipe.png")
    assert "is a folder or a device" in command.refuse({"start_image": "pipe.png"})


def test_a_picture_name_too_long_for_the_file_system_is_refused(command):
    assert "cannot be opened (File name too long)" in command.refuse({"start_image": "a" * 5000 + ".png"})


def test_a_keyframe_picture_that_cannot_be_used_is_named(command):
    (command.folder / "text.png").write_text("words")
    sentence = command.refuse({"keyframes": [{"section": 0, "image": "text.png"}]})
    assert "text.png is not a picture" in sentence


# -- the models -----------------------------------------------------------------------------------------


@pytest.fixture
def models(tmp_path) -> Path:
    return shutil.copytree(MODELS, tmp_path / "models")


def change_json(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_a_models_folder_that_is_not_there_is_refused(command):
    missing = command.folder / "nowhere"
    assert f"There is no folder {missing} with models" in command.refuse({}, models=missing)
    assert "There is no folder" in command.refuse({}, models=Path(START))
    assert "File name too long" in command.refuse({}, models=command.folder / ("a" * 300))


def test_an_empty_models_folder_is_refused(command):
    (command.folder / "empty").mkdir()
    assert f"The model {HUNYUAN} is not in" in command.refuse({}, models=command.folder / "empty")


@pytest.mark.parametrize("repository", [HUNYUAN, REDUX, TRANSFORMER])
def test_a_missing_repository_is_named(command, models, repository):
    shutil.rmtree(models / repository)
    assert f"The model {repository} is not in {models}; download it" in command.refuse({}, models=models)


@pytest.mark.parametrize(
    "file",
    [
        f"{HUNYUAN}/text_encoder/model-00003-of-00008.safetensors",
        f"{HUNYUAN}/text_encoder/model.safetensors.index.json",
        f"{HUNYUAN}/text_encoder/config.json",
        f"{HUNYUAN}/tokenizer/tokenizer.json",
        f"{HUNYUAN}/tokenizer/tokenizer_config.json",
        f"{HUNYUAN}/tokenizer_2/tokenizer.json",
        f"{HUNYUAN}/vae/config.json",
        f"{REDUX}/feature_extractor/preprocessor_config.json",
        f"{TRANSFORMER}/diffusion_pytorch_model-00006-of-00006.safetensors",
        f"{TRANSFORMER}/diffusion_pytorch_model.safetensors.index.json",
        f"{TRANSFORMER}/config.json",
    ],
)
def test_a_missing_model_file_is_named(command, models, file):
    (models / file).unlink()
    said = f"The model file {models / file} is missing; the download is not complete"
    assert said in command.refuse({}, models=models)


@pytest.mark.parametrize(
    "file",
    [f"{HUNYUAN}/vae/diffusion_pytorch_model.safetensors", f"{HUNYUAN}/text_encoder_2/model.safetensors"],
)
def test_missing_weights_of_one_file_are_refused(command, models, file):
    (models / file).unlink()
    assert f"{(models / file).parent}{os.sep}*.safetensors is missing" in command.refuse({}, models=models)


def test_a_missing_half_of_a_tokenizer_is_named(command, models):
    tokenizer = models / HUNYUAN / "tokenizer_2"
    (tokenizer / "tokenizer.json").unlink()
    (tokenizer / "vocab.json").write_text("{}")
    assert f"{tokenizer / 'merges.txt'} is missing" in command.refuse({}, models=models)


@pytest.mark.parametrize("kept", [-1, -1000, 5000, 100, 4, 0])
@pytest.mark.parametrize(
    "file",
    [
        f"{TRANSFORMER}/diffusion_pytorch_model-00004-of-00006.safetensors",
        f"{HUNYUAN}/vae/diffusion_pytorch_model.safetensors",
    ],
)
def test_weights_cut_short_are_named(command, models, file, kept):
    whole = (models / file).read_bytes()
    (models / file).write_bytes(whole[:kept])
    sentence = command.refuse({}, models=models)
    assert f"The model file {models / file} " in sentence
    if kept < 0:
        assert f"has {len(whole) + kept} bytes instead of {len(whole)}; the download broke off" in sentence


@pytest.mark.parametrize(
    "content",
    [
        b"<!DOCTYPE html><html><body>503 Service Unavailable</body></html>",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n",
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 4) + b"null",
        struct.pack("<Q", 40_000) + b"[" * 40_000,
        struct.pack("<Q", 9) + b'{"a": {}}',
        struct.pack("<Q", 10) + b'{"a": [1]}',
    ],
)
@pytest.mark.parametrize("file", ["diffusion_pytorch_model-00004-of-00006.safetensors"])
def test_something_else_instead_of_weights_is_named(command, models, file, content):
    (models / TRANSFORMER / file).write_bytes(content)
    sentence = command.refuse({}, models=models)
    assert f"{models / TRANSFORMER / file} cannot be read; download it again" in sentence


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [-1, -2], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [1.0], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [1], "data_offsets": [0.0, 4.0]},
        {"dtype": "F32", "shape": [float("inf")], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": ["1"], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": 1, "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [1], "data_offsets": [-4, 0]},
        {"dtype": "F32", "shape": [1], "data_offsets": [0, 4, 8]},
        {"dtype": "X9", "shape": [1], "data_offsets": [0, 4]},
        {"dtype": ["F32"], "shape": [1], "data_offsets": [0, 4]},
    ],
)
def test_weights_that_contradict_themselves_are_refused(command, models, entry):
    path = models / HUNYUAN / "vae" / "diffusion_pytorch_model.safetensors"
    header = json.dumps({"a": entry}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    assert f"{path} cannot be read; download it again" in command.refuse({}, models=models)


@pytest.mark.parametrize(
    "index",
    [
        "",
        "[]",
        "null",
        "{}",
        '{"weight_map": []}',
        '{"weight_map": {"a": 5}}',
        '{"weight_map": {"a": ["b"]}}',
    ],
)
def test_a_broken_index_is_named(command, models, index):
    path = models / TRANSFORMER / "diffusion_pytorch_model.safetensors.index.json"
    path.write_text(index)
    assert f"{path} cannot be read; download it again" in command.refuse({}, models=models)


def test_an_index_cannot_name_files_elsewhere(command, models):
    path = models / TRANSFORMER / "diffusion_pytorch_model.safetensors.index.json"
    path.write_text('{"weight_map": {"a": "../../outside.safetensors"}}')
    (models / "outside.safetensors").write_bytes(struct.pack("<Q", 2) + b"{}")
    missing = models / TRANSFORMER / "outside.safetensors"
    assert f"{missing} is missing" in command.refuse({}, models=models)


@pytest.mark.parametrize("part", [f"{HUNYUAN}/text_encoder", f"{HUNYUAN}/vae", TRANSFORMER])
@pytest.mark.parametrize(
    "content", ["", "<html></html>", "[]", "[" * 40_000, '{"hidden_size": ', b"\xff\xfe"]
)
def test_a_broken_config_is_named(command, models, part, content):
    path = models / part / "config.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert f"{path} cannot be read; download it again" in command.refuse({}, models=models)


@pytest.mark.parametrize(
    ("part", "values", "found"),
    [
        (f"{HUNYUAN}/text_encoder", {"architectures": ["GPT2Model"]}, "GPT2Model"),
        (f"{HUNYUAN}/text_encoder", {"architectures": [["LlamaModel"]]}, "['LlamaModel']"),
        (f"{HUNYUAN}/text_encoder_2", {"architectures": None}, "?"),
        (f"{HUNYUAN}/vae", {"_class_name": "AutoencoderKL"}, "AutoencoderKL"),
        (f"{REDUX}/image_encoder", {"architectures": ["CLIPVisionModel"]}, "CLIPVisionModel"),
        (TRANSFORMER, {"_class_name": "FluxTransformer2DModel"}, "FluxTransformer2DModel"),
        (TRANSFORMER, {"_class_name": {}}, "?"),
    ],
)
def test_a_config_of_another_model_is_named(command, models, part, values, found):
    change_json(models / part / "config.json", **values)
    sentence = command.refuse({}, models=models)
    assert f"{models / part / 'config.json'} belongs to another model ({found} instead of" in sentence


@pytest.mark.parametrize(
    ("part", "values", "said"),
    [
        (
            f"{HUNYUAN}/text_encoder",
            {"hidden_size": 128},
            '"hidden_size" is 128, but the transformer needs 64',
        ),
        (f"{HUNYUAN}/vae", {"latent_channels": 4}, '"latent_channels" is 4'),
        (TRANSFORMER, {"image_proj_dim": 1152}, "but the transformer needs 1152"),
        (TRANSFORMER, {"num_attention_heads": 24}, "has shape"),
        (TRANSFORMER, {"num_layers": 20}, '"num_layers" is 20 instead of 2'),
        (TRANSFORMER, {"num_single_layers": 2}, '"num_single_layers" is 2 instead of 3'),
        (TRANSFORMER, {"has_image_proj": False, "out_channels": 8}, "has shape"),
        (f"{HUNYUAN}/text_encoder", {"intermediate_size": 256}, "has shape"),
        (f"{HUNYUAN}/text_encoder", {"vocab_size": 128_320}, "has shape"),
        (f"{REDUX}/image_encoder", {"intermediate_size": 4304}, "has shape"),
        (f"{HUNYUAN}/vae", {"block_out_channels": [128, 256, 512, 512]}, ""),
    ],
)
def test_a_config_of_other_widths_is_named(command, models, part, values, said):
    change_json(models / part / "config.json", **values)
    assert said in command.refuse({}, models=models)


@pytest.mark.parametrize(
    ("part", "values"),
    [
        (f"{HUNYUAN}/text_encoder", {"num_hidden_layers": "many"}),
        (f"{HUNYUAN}/text_encoder", {"num_hidden_layers": 1}),
        (f"{HUNYUAN}/text_encoder", {"num_hidden_layers": 10**12}),
        (f"{HUNYUAN}/text_encoder", {"num_attention_heads": 0}),
        (f"{HUNYUAN}/text_encoder", {"num_attention_heads": None}),
        (f"{HUNYUAN}/text_encoder", {"hidden_act": "no_such_thing"}),
        (f"{HUNYUAN}/text_encoder", {"rope_parameters": {"rope_type": "no_such_thing"}}),
        (f"{HUNYUAN}/text_encoder", {"vocab_size": -5}),
        (f"{HUNYUAN}/text_encoder", {"intermediate_size": 10**30}),
        (f"{HUNYUAN}/text_encoder_2", {"num_hidden_layers": -1}),
        (f"{HUNYUAN}/text_encoder_2", {"num_attention_heads": 7}),
        (f"{REDUX}/image_encoder", {"patch_size": 0}),
        (f"{REDUX}/image_encoder", {"num_channels": [3]}),
        (f"{HUNYUAN}/vae", {"layers_per_block": 10**12}),
        (f"{HUNYUAN}/vae", {"block_out_channels": []}),
        (f"{HUNYUAN}/vae", {"down_block_types": ["Nonsense"] * 4}),
        (f"{HUNYUAN}/vae", {"norm_num_groups": 0}),
        (f"{HUNYUAN}/vae", {"norm_num_groups": 5}),
        (f"{HUNYUAN}/vae", {"scaling_factor": "high"}),
        (TRANSFORMER, {"num_layers": 10**12}),
        (TRANSFORMER, {"num_single_layers": -3}),
        (TRANSFORMER, {"num_layers": 0}),
        (TRANSFORMER, {"attention_head_dim": "wide"}),
        (TRANSFORMER, {"patch_size": 0}),
        (TRANSFORMER, {"rope_axes_dim": [8, 12]}),
        (TRANSFORMER, {"rope_axes_dim": None}),
        (TRANSFORMER, {"qk_norm": "no_such_thing"}),
    ],
)
def test_a_config_of_nonsense_is_named(command, models, part, values):
    change_json(models / part / "config.json", **values)
    sentence = command.refuse({}, models=models)
    assert str(models / part) in sentence


@pytest.mark.parametrize("content", ["", "{}", "<html></html>", '{"version": "1.0"}'])
@pytest.mark.parametrize("tokenizer", ["tokenizer", "tokenizer_2"])
def test_a_broken_tokenizer_is_named(command, models, tokenizer, content):
    path = models / HUNYUAN / tokenizer
    (path / "tokenizer.json").write_text(content)
    sentence = command.refuse({}, models=models, begun=True)
    assert f"The tokenizer in {path} cannot be read; download it again" in sentence


@pytest.mark.parametrize("content", ["", "<html></html>", "[]"])
def test_a_broken_image_processor_is_named(command, models, content):
    path = models / REDUX / "feature_extractor" / "preprocessor_config.json"
    path.write_text(content)
    assert f"{path} cannot be read; download it again" in command.refuse({}, models=models)


@pytest.mark.parametrize("size", ["large", None, 64, {"height": 384, "width": 384}, {"shortest_edge": 64}])
def test_an_image_processor_of_another_model_is_named(command, models, size):
    path = models / REDUX / "feature_extractor" / "preprocessor_config.json"
    change_json(path, size=size)
    sentence = command.refuse({}, models=models)
    assert f'{path} do not belong to the model: "size" is {json.dumps(size)} instead of' in sentence


# -- where to write, what to compute on ---------------------------------------------------------------


def test_an_output_folder_that_is_a_file_is_refused(command):
    (path := command.folder / "file").write_text("not a folder")
    sentence = command.refuse({}, output=path)
    assert f"The output folder {path} cannot be written (" in sentence
    assert path.read_text() == "not a folder"


def test_an_output_folder_below_a_file_is_refused(command):
    (command.folder / "file").write_text("not a folder")
    sentence = command.refuse({}, output=command.folder / "file" / "videos")
    assert "cannot be written (Not a directory); choose another output folder" in sentence


def test_an_output_folder_with_a_name_too_long_is_refused(command):
    assert "(File name too long)" in command.refuse({}, output=command.folder / ("a" * 300))


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a file system that takes no files")
def test_an_output_folder_that_takes_no_files_is_refused(command):
    assert "The output folder /proc/videos cannot" in command.refuse({}, output=Path("/proc/videos"))


BAD_NAMES = (
    *("../video", "/tmp/video", "a/b", "a\\b", "", ".", "..", " video", "video ", "video.", ".hidden"),
    *("CON", "nul", "com1", "LPT9.txt", "aux .mp4", "COM¹", "conin$"),
    *("a:b", "a*b", "a?", 'a"b', "a|b", "<a>"),
    *("a\nb", "a\x7fb", "a\x85b", "a\u2028b", "a\u202eb", "a\0b", "a\ud800b", "a" * 101, "猫" * 70),
)


@pytest.mark.parametrize("name", BAD_NAMES, ids=ascii)
def test_a_name_that_is_no_plain_file_name_is_refused(command, name):
    assert "cannot be a file name" in command.refuse({}, "--name", name)


def test_a_name_with_spaces_signs_and_any_script_is_taken(command):
    name = "猫の動画 (1) Zoë's %d%s;&$!"
    assert command({}, "--name", name).files == (f"{name}.mp4", f"{name}.png")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a card")
def test_a_card_that_is_not_there_is_refused(command):
    assert "There is no NVIDIA card" in command.refuse({}, "--device", "cuda")
