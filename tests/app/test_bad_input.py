"""Bad input to the command gives one sentence, the right exit status, and no half of a file."""

import io
import json
import os
import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.support.tiny import MODELS, START

HUNYUAN = "hunyuanvideo-community/HunyuanVideo"
REDUX = "lllyasviel/flux_redux_bfl"
TRANSFORMER = "lllyasviel/FramePackI2V_HY"


# -- the request -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("no_such.json", "no_such.json cannot be opened (No such file"),
        (".", "is a folder"),
        ("a" * 300, "File name too long"),
        ("a.jpg", "name a JSON file saved as UTF-8"),
        ("huge.png", "huge.png holds no request of this app"),
    ],
)
def test_a_file_without_request_is_refused(command, name, sentence):
    Image.new("RGB", (64, 64), "red").save(command.folder / "a.jpg")
    (command.folder / "huge.png").write_bytes(huge_png(30_000, 30_000))
    assert sentence in command.refuse(command.folder / name)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_named_pipe_is_refused_without_waiting(command):
    os.mkfifo(command.folder / "pipe.png")
    assert "is a folder or a device" in command.refuse(command.folder / "pipe.png")
    assert "is a folder or a device" in command.refuse({"start_image": "pipe.png"})


def test_our_own_files_cut_short_are_refused(command):
    assert command().status == 0
    made = shutil.move(command.output, command.folder / "made")
    for name, length in [("video.mp4", 500), ("video.mp4", 20), ("video.png", 200), ("video.png", 40)]:
        (path := command.folder / f"cut_{name}").write_bytes((made / name).read_bytes()[:length])
        assert f"cut_{name}" in command.refuse(path)
    whole = (made / "video.png").read_bytes()
    (path := command.folder / "half.png").write_bytes(whole[: len(whole) // 2])
    assert "is damaged or cut short" in command.refuse(path)


@pytest.mark.parametrize(
    ("request_", "sentence"),
    [
        ('{"prompt": "猫"}'.encode("utf-16"), "not a text in UTF-8"),
        ({"steps": True}, '"steps" must be a whole number from 1 to 100, not true'),
        ({"line\nbreak\x1b[31m": 1}, 'unknown key "line\\nbreak\\x1b[31m"; did you mean'),
        ({"keyframes": [{"section": 1, "prompt": "a"}]}, "names section 1, but the video has 1:"),
    ],
)
def test_a_wrong_request_is_one_sentence(command, request_, sentence):
    assert sentence in command.refuse(request_)


def test_a_request_with_a_byte_order_mark_works(command):
    answer = command(b"\xef\xbb\xbf" + command.request({}).read_bytes())
    assert (answer.status, answer.files) == (0, ("video.mp4", "video.png"))


# -- the pictures ------------------------------------------------------------------------------------


def huge_png(width: int, height: int, pixels: bytes = b"") -> bytes:
    """A PNG file of one bit a pixel that claims a size; `pixels` is its compressed data."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def picture(kind: str, width: int = 64, height: int = 64) -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer := io.BytesIO(), kind)
    return buffer.getvalue()


BAD_PICTURES = {
    "eps": (lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n", "is not a picture"),
    "cut_jpeg": (lambda: picture("JPEG")[:2000], "is damaged or cut short"),
    "one_pixel": (lambda: picture("PNG", 1, 1), "has only 1x1 pixels; each side needs 8"),
    "huge": (lambda: huge_png(30_000, 30_000, zlib.compress(bytes(30_000 * 3751), 1)), "than 178 megapixels"),
    "wide_claim": (lambda: huge_png(2**31 - 1, 2**31 - 1), "has more than 178 megapixels"),
    "no_size": (lambda: huge_png(0, 0), "is "),
}


@pytest.mark.parametrize("kind", BAD_PICTURES)
def test_an_unusable_picture_is_named(command, kind):
    make, sentence = BAD_PICTURES[kind]
    (command.folder / f"{kind}.png").write_bytes(make())
    refused = command.refuse({"start_image": f"{kind}.png"})
    assert sentence in refused
    assert f"{kind}.png" in refused


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"start_image": "no.png"}, "/no.png does not exist"),
        ({"start_image": "https://example.com/a.png"}, "does not exist"),
        ({"start_image": "."}, "is a folder"),
        ({"start_image": "a" * 5000 + ".png"}, "cannot be opened (File name too long)"),
        ({"start_image": "data:image/png,abc"}, "A picture inside the request is damaged"),
        ({"start_image": "data:image/png;base64,é"}, "A picture inside the request is damaged"),
        ({"start_image": "data:image/png;base64,QUJD"}, "data:image/png is not a picture"),
        ({"end_image": "request.json"}, "request.json is not a picture"),
        ({"keyframes": [{"section": 0, "image": "request.json"}]}, "request.json is not a picture"),
    ],
)
def test_the_name_of_no_picture_is_refused(command, values, sentence):
    assert sentence in command.refuse(values)


# -- the models --------------------------------------------------------------------------------------


@pytest.fixture
def models(tmp_path) -> Path:
    return shutil.copytree(MODELS, tmp_path / "models")


def change_json(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_a_folder_without_models_is_refused(command, models):
    missing = command.folder / "nowhere"
    assert f"There is no folder {missing} with models" in command.refuse({}, models=missing)
    assert "There is no folder" in command.refuse({}, models=Path(START))
    assert "File name too long" in command.refuse({}, models=command.folder / ("a" * 300))
    for repository in (TRANSFORMER, REDUX, HUNYUAN):
        shutil.rmtree(models / repository)
        assert f"The model {repository} is not in {models}; download it" in command.refuse({}, models=models)


@pytest.mark.parametrize(
    "file",
    [
        *(f"{HUNYUAN}/text_encoder/model-00003-of-00008.safetensors", f"{HUNYUAN}/text_encoder/config.json"),
        *(f"{HUNYUAN}/tokenizer/tokenizer.json", f"{HUNYUAN}/tokenizer/tokenizer_config.json"),
        *(f"{HUNYUAN}/tokenizer_2/tokenizer.json", f"{HUNYUAN}/vae/config.json"),
        f"{REDUX}/feature_extractor/preprocessor_config.json",
        f"{TRANSFORMER}/diffusion_pytorch_model.safetensors.index.json",
    ],
)
def test_a_missing_model_file_is_named(command, models, file):
    (models / file).unlink()
    sentence = f"The model file {models / file} is missing; the download is not complete"
    assert sentence in command.refuse({}, models=models)


def test_weights_of_one_file_and_half_a_tokenizer_are_named(command, models):
    weights, tokenizer = models / HUNYUAN / "vae", models / HUNYUAN / "tokenizer_2"
    (tokenizer / "tokenizer.json").unlink()
    (tokenizer / "vocab.json").write_text("{}")
    assert f"{tokenizer / 'merges.txt'} is missing" in command.refuse({}, models=models)
    (weights / "diffusion_pytorch_model.safetensors").unlink()
    shutil.copytree(MODELS / HUNYUAN / "tokenizer_2", tokenizer, dirs_exist_ok=True)
    assert f"{weights}{os.sep}*.safetensors is missing" in command.refuse({}, models=models)


@pytest.mark.parametrize("kept", [-1, 5000, 100, 4, 0])
def test_weights_cut_short_are_named(command, models, kept):
    path = models / TRANSFORMER / "diffusion_pytorch_model-00004-of-00006.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:kept])
    sentence = command.refuse({}, models=models)
    assert f"The model file {path} " in sentence
    if kept < 0:
        assert f"has {len(whole) + kept} bytes instead of {len(whole)}; the download broke off" in sentence


def weights_file(header: bytes, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(header) if length is None else length) + header + bytes(4)


NO_WEIGHTS = [
    b"<!DOCTYPE html><html><body>503 Service Unavailable</body></html>",
    *(weights_file(header) for header in (b"[]", b"null", b"[" * 40_000, b'{"a": {}}', b'{"a": [1]}')),
    *(
        weights_file(json.dumps({"a": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}).encode())
        for dtype, shape, offsets in [
            ("F32", [2], [0, 4]),
            ("F32", [-1, -2], [0, 8]),
            ("F32", [1.0], [0, 4]),
            ("F32", [1], [0.0, 4.0]),
            ("F32", [float("inf")], [0, 4]),
            ("F32", ["1"], [0, 4]),
            ("F32", 1, [0, 4]),
            ("F32", [1], [-4, 0]),
            ("F32", [1], [0, 4, 8]),
            ("X9", [1], [0, 4]),
            (["F32"], [1], [0, 4]),
        ]
    ),
]
NO_JSON = ["", "<html></html>", "[]", "[" * 40_000, '{"hidden_size": ', b"\xff\xfe"]
NO_INDEX = ["", "[]", "null", "{}", *(f'{{"weight_map": {shards}}}' for shards in ("[]", '{"a": 5}'))]
PROCESSOR = f"{REDUX}/feature_extractor/preprocessor_config.json"
DAMAGED = [
    *((f"{HUNYUAN}/vae/diffusion_pytorch_model.safetensors", content) for content in NO_WEIGHTS),
    *((f"{TRANSFORMER}/diffusion_pytorch_model.safetensors.index.json", content) for content in NO_INDEX),
    *((f"{part}/config.json", content) for part in (f"{HUNYUAN}/vae", TRANSFORMER) for content in NO_JSON),
    *((PROCESSOR, content) for content in ("", "[]")),
]


@pytest.mark.parametrize(("file", "content"), DAMAGED, ids=range(len(DAMAGED)))
def test_a_damaged_model_file_is_named(command, models, file, content):
    (models / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    assert f"{models / file} cannot be read; download it again" in command.refuse({}, models=models)


def test_an_index_cannot_name_files_elsewhere(command, models):
    path = models / TRANSFORMER / "diffusion_pytorch_model.safetensors.index.json"
    path.write_text('{"weight_map": {"a": "../../outside.safetensors"}}')
    (models / "outside.safetensors").write_bytes(struct.pack("<Q", 2) + b"{}")
    missing = models / TRANSFORMER / "outside.safetensors"
    assert f"{missing} is missing" in command.refuse({}, models=models)


@pytest.mark.parametrize(
    ("part", "values", "found"),
    [
        (f"{HUNYUAN}/text_encoder", {"architectures": ["GPT2Model"]}, "GPT2Model"),
        (f"{HUNYUAN}/text_encoder", {"architectures": [["LlamaModel"]]}, "['LlamaModel']"),
        (f"{HUNYUAN}/text_encoder_2", {"architectures": None}, "?"),
        (f"{HUNYUAN}/vae", {"_class_name": "AutoencoderKL"}, "AutoencoderKL"),
        (f"{REDUX}/image_encoder", {"architectures": ["CLIPVisionModel"]}, "CLIPVisionModel"),
        (TRANSFORMER, {"_class_name": {}}, "?"),
    ],
)
def test_a_config_of_another_model_is_named(command, models, part, values, found):
    change_json(models / part / "config.json", **values)
    sentence = command.refuse({}, models=models)
    assert f"{models / part / 'config.json'} belongs to another model ({found} instead of" in sentence


UNUSABLE = {
    f"{HUNYUAN}/text_encoder": [
        ({"hidden_size": 128}, '"hidden_size" is 128, but the transformer needs 64'),
        ({"intermediate_size": 256}, "has shape"),
        ({"vocab_size": 128_320}, "has shape"),
        *(({"num_hidden_layers": value}, "") for value in ("many", 1, 10**12)),
        *(({"num_attention_heads": value}, "") for value in (0, None)),
        *(({key: "no_such_thing"}, "") for key in ("hidden_act", "rope_parameters")),
        ({"rope_parameters": {"rope_type": "no_such_thing"}}, ""),
        *(({key: value}, "") for key, value in [("vocab_size", -5), ("intermediate_size", 10**30)]),
    ],
    f"{HUNYUAN}/text_encoder_2": [({"num_hidden_layers": -1}, ""), ({"num_attention_heads": 7}, "")],
    f"{REDUX}/image_encoder": [
        *(({key: value}, "") for key, value in [("patch_size", 0), ("num_channels", [3])]),
        ({"intermediate_size": 4304}, "has shape"),
    ],
    f"{HUNYUAN}/vae": [
        ({"latent_channels": 4}, '"latent_channels" is 4'),
        *(({"block_out_channels": value}, "") for value in ([128, 256, 512, 512], [])),
        *(({"norm_num_groups": value}, "") for value in (0, 5)),
        ({"layers_per_block": 10**12, "down_block_types": ["Nonsense"] * 4}, ""),
        ({"scaling_factor": "high"}, ""),
    ],
    TRANSFORMER: [
        ({"image_proj_dim": 1152}, "but the transformer needs 1152"),
        ({"num_attention_heads": 24}, "has shape"),
        ({"has_image_proj": False, "out_channels": 8}, "has shape"),
        *(({"num_layers": value}, f'"num_layers" is {value} instead of 2') for value in (20, 0, 10**12)),
        *(({"num_single_layers": value}, f"is {value} instead of 3") for value in (2, -3)),
        *(({"rope_axes_dim": value}, "") for value in ([8, 12], None)),
        *(({key: value}, "") for key, value in [("attention_head_dim", "wide"), ("patch_size", 0)]),
        ({"qk_norm": "no_such_thing"}, ""),
    ],
}
"""Changes of a part's config, and a piece of the sentence beside the part's name."""


@pytest.mark.parametrize(
    ("part", "values", "sentence"),
    [(part, *change) for part, changes in UNUSABLE.items() for change in changes],
)
def test_an_unusable_config_is_named(command, models, part, values, sentence):
    change_json(models / part / "config.json", **values)
    refused = command.refuse({}, models=models)
    assert sentence in refused
    assert str(models / part) in refused or "but the transformer needs" in refused


@pytest.mark.parametrize("content", ["", "{}", "<html></html>", '{"version": "1.0"}'])
@pytest.mark.parametrize("tokenizer", ["tokenizer", "tokenizer_2"])
def test_a_broken_tokenizer_is_named(command, models, tokenizer, content):
    path = models / HUNYUAN / tokenizer
    (path / "tokenizer.json").write_text(content)
    sentence = command.refuse({}, models=models, begun=True)
    assert f"The tokenizer in {path} cannot be read; download it again" in sentence


@pytest.mark.parametrize("size", ["large", None, {"height": 384, "width": 384}, {"shortest_edge": 64}])
def test_an_image_processor_of_another_model_is_named(command, models, size):
    change_json(models / PROCESSOR, size=size)
    sentence = command.refuse({}, models=models)
    assert f'{models / PROCESSOR} do not belong to the model: "size" is {json.dumps(size)} inst' in sentence


# -- the output and the device -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("file/videos", "cannot be written (Not a directory); choose another output folder"),
        ("a" * 300, "(File name too long)"),
        ("/proc/videos", "The output folder /proc/videos cannot"),
    ],
)
def test_an_unusable_output_folder_is_refused(command, name, sentence):
    (command.folder / "file").write_text("not a folder")
    assert sentence in command.refuse({}, output=command.folder / name)
    assert (command.folder / "file").read_text() == "not a folder"


def test_a_name_of_any_script_is_taken_and_one_that_no_file_can_have_refused(command):
    for name in ("", "../video"):
        assert "cannot be a file name" in command.refuse({}, "--name", name)
    name = "猫の動画 (1) Zoë's %d%s;&$!"
    assert command({}, "--name", name).files == (f"{name}.mp4", f"{name}.png")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_gpu_is_refused(command):
    assert "There is no NVIDIA card" in command.refuse({}, "--device", "cuda")
