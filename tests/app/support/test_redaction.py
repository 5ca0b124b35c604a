"""What gets into no report and no log."""

import json
from pathlib import Path, PureWindowsPath

import pytest

from webui.eichi_utils.support.redaction import redact


@pytest.mark.parametrize(
    "secret",
    [
        "data:image/png;base64,iVBORw0KGgoAAAANSUhEUg==",
        "data:image/webp;name=cat.webp;base64,UklGRh4A/+=",
        "data:;base64,QUJD",
        "data:image/svg+xml,%3Csvg%3E",
    ],
)
def test_pictures_are_taken_out_wherever_they_stand(secret):
    for text in ("a {} b", "start_image='{}', steps=1", '{{"image": "{}"}}'):
        assert redact(text.format(secret)) == text.format("[picture]")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("token hf_AbCdEfGhIjKlMnOp given", "token [token] given"),
        ("{'Authorization': 'Bearer abc.def-12'}", "{'Authorization': 'Bearer [secret]'}"),
        ("authorization: Basic bWlhOnBhc3N3b3Jk", "authorization: Basic [secret]"),
        ("https://mia:secret@proxy.example:8080/x", "https://[login]@proxy.example:8080/x"),
    ],
)
def test_tokens_and_logins_are_taken_out(text, expected):
    assert redact(text) == expected


@pytest.mark.parametrize(
    "text",
    ["basic settings", "data: 12 of 14", "mail@example.com", "hf_download", "https://huggingface.co/a@b"],
)
def test_what_only_looks_like_a_secret_stays(text):
    assert redact(text) == text


def test_the_users_texts_are_hidden_however_they_are_written():
    prompt = 'A "cat" at night,\nit\'s \u732b.'
    ways = [prompt, repr(prompt), f"{{'prompt': {prompt!r}}}", json.dumps(prompt)]
    for way in ways:
        hidden = redact(f"before {way} after", [prompt])
        assert "cat" not in hidden
        assert hidden.startswith("before ")
        assert hidden.endswith(" after")


@pytest.mark.parametrize(
    "prompt", ['A  "cat" at night,\n it\'s \u732b.', "A cat,\r\n\r\nand \U0001f431.", "a\tcat "]
)
def test_the_users_texts_are_hidden_where_their_spaces_were_collapsed_or_their_letters_escaped(prompt):
    collapsed = " ".join(prompt.split())
    for way in (collapsed, ascii(prompt), ascii(collapsed), repr(collapsed), " ".join(repr(prompt).split())):
        assert "cat" not in redact(f"before {way} after", [prompt]), way


def test_a_long_text_that_holds_a_short_one_is_hidden_whole():
    assert redact("A cat runs home.", ["A cat", "A cat runs"]) == "[text] home."


def test_a_text_that_stands_in_half_of_all_words_is_no_secret():
    assert redact("section 1: decoding", ["on", " ", ""]) == "section 1: decoding"


def test_two_characters_of_japanese_or_chinese_are_a_whole_prompt():
    assert redact("prompt: 踊る, 夕焼け", ["踊る", "夕焼け"]) == "prompt: [text], [text]"
    assert redact("one 猫 and a cat", ["猫", "cat"]) == "one 猫 and a cat"


def test_the_home_is_a_tilde_and_folders_beside_it_keep_their_names(monkeypatch):
    monkeypatch.setattr(Path, "home", lambda: Path("/home/mia"))
    text = "/home/mia/videos /home/mia '/home/mia' /home/miau/x /home"
    assert redact(text) == "~/videos ~ '~' /home/miau/x /home"


def test_the_home_on_windows_is_found_however_it_is_written(monkeypatch):
    monkeypatch.setattr(Path, "home", lambda: PureWindowsPath("C:\\Users\\Mia"))
    text = r"C:\Users\Mia\x c:\users\mia\x C:/Users/Mia/x 'C:\\Users\\Mia\\x'"
    assert redact(text) == r"~\x ~\x ~/x '~\\x'"


def test_no_home_or_a_root_as_home_changes_nothing(monkeypatch):
    def fail() -> Path:
        raise RuntimeError

    for home in (fail, lambda: Path("/")):
        monkeypatch.setattr(Path, "home", home)
        assert redact("/root/a/b") == "/root/a/b"
