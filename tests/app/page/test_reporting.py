"""The report of a handler that fails holds no text of the user."""

import html
import logging
from types import SimpleNamespace
from typing import Any

import pytest

from diffusers_helper.errors import InputError
from webui.eichi_utils.form import Row
from webui.eichi_utils.page.widgets import Page
from webui.eichi_utils.text.translations import Translator

PROMPT, NEGATIVE, ROW = "SECRET 猫が走る", "SECRET blurry", "SECRET section"
DATA = {
    "language": "en",
    "prompt": PROMPT,
    "hidden": {"negative_prompt": NEGATIVE},
    "rows": {0: Row(None, ROW)},
}


def page(tmp_path: Any) -> Page:
    """A page with as much as a failure needs."""
    inputs = SimpleNamespace(prompt="prompt", message="message")
    rows = SimpleNamespace(rows="rows")
    app = SimpleNamespace(uploads=tmp_path, translator=lambda _: Translator("en"))
    parts: dict[str, Any] = dict.fromkeys(Page.__annotations__) | {"app": app, "inputs": inputs}
    parts |= {"keyframes": rows, "hidden_settings": "hidden", "language": "language"}
    return Page(**parts)


@pytest.mark.parametrize(
    "error",
    [ValueError(f"odd: {PROMPT!r}, {NEGATIVE}, {ROW}"), InputError("unknown_key", field=ROW, nearest="seed")],
)
def test_no_text_of_the_user_is_in_the_details_or_the_log(tmp_path, caplog, error):
    def fails(_page: Page, _data: Any) -> dict[Any, Any]:
        raise error

    with caplog.at_level(logging.WARNING):
        shown = page(tmp_path).handler(fails)(DATA)["message"]
    copied = html.unescape(shown.partition('data-ichi-copy="')[2].partition('"')[0])
    assert "Traceback" in copied
    assert "SECRET" not in copied
    for record in caplog.records:
        assert set(record.private) == {PROMPT, NEGATIVE, ROW}, "the log file hides these"
    assert len(caplog.records) == (0 if isinstance(error, InputError) else 1)
