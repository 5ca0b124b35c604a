"""Private texts, secrets and pictures are taken out of reports and logs."""

import json
from pathlib import Path, PureWindowsPath
from unittest.mock import Mock

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
def test_pictures_are_taken_out(secret):
    for text in ("a {} b", "start_image='{}', steps=1", '{{"image": "{}"}}'):
        assert redact(text.format(secret)) == text.format("[picture]")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("token hf_AbCdEfGhIjKlMnOp given", "token [token] given"),
        ("{'Authorization': 'Bearer abc.def-12'}", "{'Authorization': 'Bearer [secret]'}"),
        ("authorization: Basic bWlhOnBhc3N3b3Jk", "authorization: Basic [secret]"),
        ("https://mia:secret@proxy.example:8080/x", "https://[login]@proxy.example:8080/x"),
        *((text, text) for text in ("basic settings", "data: 12 of 14", "mail@example.com", "hf_download")),
        ("https://huggingface.co/a@b", "https://huggingface.co/a@b"),
    ],
)
def test_tokens_and_logins_are_taken_out_and_lookalikes_stay(text, expected):
    assert redact(text) == expected


@pytest.mark.parametrize(
    "prompt",
    [
        'A "cat" at night,\nit\'s \u732b.',
        'A  "cat" at night,\n it\'s \u732b.',
        "A cat,\r\n\r\nand \U0001f431.",
        "a\tcat ",
    ],
)
def test_texts_are_hidden_in_any_quotes_and_with_collapsed_spaces(prompt):
    collapsed = " ".join(prompt.split())
    ways = [prompt, collapsed, ascii(prompt), ascii(collapsed), repr(collapsed), json.dumps(prompt)]
    ways += [f"{{'prompt': {prompt!r}}}", " ".join(repr(prompt).split())]
    for way in ways:
        hidden = redact(f"before {way} after", [prompt])
        assert "cat" not in hidden, way
        assert (hidden[:7], hidden[-6:]) == ("before ", " after")


@pytest.mark.parametrize(
    ("text", "hide", "expected"),
    [
        ("A cat runs home.", ["A cat", "A cat runs"], "[text] home."),
        ("section 1: decoding", ["on", " ", ""], "section 1: decoding"),
        ("prompt: 踊る, 夕焼け", ["踊る", "夕焼け"], "prompt: [text], [text]"),
        ("one 猫 and a cat", ["猫", "cat"], "one 猫 and a cat"),
    ],
)
def test_the_longest_text_is_hidden_and_very_short_ones_are_not(text, hide, expected):
    assert redact(text, hide) == expected


def test_the_home_becomes_a_tilde(monkeypatch):
    monkeypatch.setattr(Path, "home", lambda: Path("/home/mia"))
    text = "/home/mia/videos /home/mia '/home/mia' /home/miau/x /home"
    assert redact(text) == "~/videos ~ '~' /home/miau/x /home"


def test_windows_home_is_found_in_any_spelling(monkeypatch):
    monkeypatch.setattr(Path, "home", lambda: PureWindowsPath("C:\\Users\\Mia"))
    text = r"C:\Users\Mia\x c:\users\mia\x C:/Users/Mia/x 'C:\\Users\\Mia\\x'"
    assert redact(text) == r"~\x ~\x ~/x '~\\x'"


def test_no_home_or_a_root_as_home_is_ignored(monkeypatch):
    for home in (Mock(side_effect=RuntimeError), lambda: Path("/")):
        monkeypatch.setattr(Path, "home", home)
        assert redact("/root/a/b") == "/root/a/b"
