"""Bad input to the command gives one sentence, the right exit status, and no half of a file."""

import os
import shutil

import pytest
import torch
from PIL import Image

from diffusers_helper.weights.model_files import HUNYUAN
from tests.support.pictures import png_file
from tests.support.tiny import MODELS

# -- the request -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("no_such.json", "no_such.json could not be opened (No such file"),
        (".", "is a folder"),
        ("a" * 300, "File name too long"),
        ("a.jpg", "Give a JSON file saved as UTF-8"),
        ("huge.png", "huge.png was not made by this app"),
    ],
)
def test_a_file_without_request_is_refused(command, name, sentence):
    Image.new("RGB", (64, 64), "red").save(command.folder / "a.jpg")
    (command.folder / "huge.png").write_bytes(png_file(30_000, 30_000))
    assert sentence in command.refuse(command.folder / name)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_named_pipe_is_refused_without_waiting(command):
    os.mkfifo(command.folder / "pipe.png")
    assert "is a folder or device" in command.refuse(command.folder / "pipe.png")
    assert "is a folder or device" in command.refuse({"start_image": "pipe.png"})


def test_our_own_files_cut_short_are_refused(command):
    assert command().status == 0
    made = shutil.move(command.output, command.folder / "made")
    for name, length in [("video.mp4", 500), ("video.mp4", 20), ("video.png", 200), ("video.png", 40)]:
        (path := command.folder / f"cut_{name}").write_bytes((made / name).read_bytes()[:length])
        assert f"cut_{name}" in command.refuse(path)
    whole = (made / "video.png").read_bytes()
    (path := command.folder / "half.png").write_bytes(whole[: len(whole) // 2])
    assert "is incomplete: about" in command.refuse(path)


@pytest.mark.parametrize(
    ("request_", "sentence"),
    [
        ({"steps": True}, '"steps" must be a whole number from 1 to 100, not true'),
        ({"line\nbreak\x1b[31m": 1}, 'unknown key "line\\nbreak\\x1b[31m". Did you mean'),
    ],
)
def test_a_wrong_request_is_one_sentence(command, request_, sentence):
    assert sentence in command.refuse(request_)


# -- the pictures and the models ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"start_image": "no.png"}, "/no.png was not found"),
        ({"start_image": "data:image/png;base64,é"}, "A picture inside the request is damaged"),
        ({"end_image": "request.json"}, "request.json is not a picture"),
        ({"keyframes": [{"section": 0, "image": "request.json"}]}, "request.json is not a picture"),
    ],
)
def test_an_unusable_picture_is_named(command, values, sentence):
    assert sentence in command.refuse(values)


@pytest.mark.parametrize(
    ("file", "content", "sentence"),
    [
        ("vae/config.json", "[]", "vae/config.json cannot be read. Download it again"),
        ("vae/config.json", '{"_class_name": "GPT"}', "belongs to another model (GPT instead of"),
        ("tokenizer/tokenizer.json", "{}", "/tokenizer cannot be read. Download it again"),
    ],
)
def test_unusable_models_are_named(command, tmp_path, file, content, sentence):
    assert "nowhere does not exist" in command.refuse({}, models=tmp_path / "nowhere")
    models = shutil.copytree(MODELS, tmp_path / "models")
    (models / HUNYUAN / file).write_text(content)
    refused = command.refuse({}, models=models, begun="tokenizer" in file)
    assert str(models / HUNYUAN) in refused
    assert sentence in refused


# -- the output and the device -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("file/videos", "cannot be written to (Not a directory). Choose another output folder"),
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
        assert "cannot be used as a file name" in command.refuse({}, "--name", name)
    name = "猫の動画 (1) Zoë's %d%s;&$!"
    assert command({}, "--name", name).files == (f"{name}.mp4", f"{name}.png")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_gpu_is_refused(command):
    assert "cannot use an NVIDIA GPU" in command.refuse({}, "--device", "cuda")
