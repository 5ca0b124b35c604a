"""The page: its parts in their order, and the handlers that its widgets call."""

import html
from collections.abc import Callable
from typing import Any

import gradio as gr

from diffusers_helper.version import VERSION

from ..app import AppState
from ..text.translations import LANGUAGES, Translator
from .api import add_api
from .handlers import wire_inputs
from .job_handlers import wire_jobs
from .labels import RAW, Labels
from .opening import open_page, restore_settings, translate_notes
from .output_handlers import wire_output
from .parts.inputs import Inputs
from .parts.keyframe_rows import KeyframeRows
from .parts.options import Options
from .parts.preset_box import PresetBox
from .parts.result import Result
from .preset_handlers import wire_presets
from .routes import static_html
from .setting_handlers import wire_settings
from .state import start_key
from .unread import show_unread
from .widgets import NOT_EDITED, Data, Page, Updates, merged


def build_page(app: AppState) -> gr.Blocks:
    """Build the whole page, ready to be served."""
    words = app.translator(None)
    labels = Labels(words)
    with _FilledPage(title=words("live.page_title"), analytics_enabled=False, fill_width=True) as blocks:
        with gr.Row(elem_id="header"):
            labels.make(gr.HTML, "title", padding=False)
            if app.options.demo:
                labels.make(gr.HTML, "demo", padding=False)
            gr.HTML(static_html("setup.html"), padding=False)  # takes no room where everything is well
            gr.HTML(_language_menu(), padding=False)
            language = gr.Radio(list(LANGUAGES), value=app.language, visible="hidden", elem_id="language")
        with gr.Row(elem_id="halves"):
            with gr.Column(elem_id="left"):
                inputs = Inputs(labels)
            with gr.Column(elem_id="right"):
                result = Result(labels)
            with gr.Column(elem_id="more"):
                with labels.make(gr.Accordion, "panel", open=False):
                    options = Options(labels, output_given=app.options.output, anywhere=app.is_private)
                    with labels.make(gr.Accordion, "presets", open=False):
                        presets = PresetBox(labels)
                    keyframes = KeyframeRows(labels, app, inputs.message)
                with gr.Row(elem_id="changes-row"):
                    options.changes.render()
                    options.reset.render()
        parts = inputs, options, keyframes, presets, result
        gr.HTML(f"{words('live.page_title')} {VERSION}", elem_id="foot", padding=False)
        gr.HTML('<p id="ichi-notices"></p>', padding=False)  # nothing is below it that it could move
        states = {
            "hidden_settings": gr.State({}),
            "seed_source": gr.State(None),
            "edited": gr.State(NOT_EDITED),
        }
        page = Page(app, labels.fields, *parts, **states, language=language)
        wire_inputs(page)
        wire_settings(page)
        wire_output(page)
        wire_jobs(page)
        wire_presets(page)
        _wire_page(blocks, labels, page)
        add_api(app)
    return blocks


def _language_menu() -> str:
    """Return the browser's own menu: gradio's stays open when the keyboard leaves it."""
    names = {code: html.escape(Translator(code)("page.language_name")) for code in LANGUAGES}
    options = "".join(f'<option value="{code}" lang="{code}">{name}</option>' for code, name in names.items())
    return f'<select id="ichi-language" data-ichi-label="page.language">{options}</select>'


class _FilledPage(gr.Blocks):
    """A page that is served with what it shows, so that nothing is filled in (and so changed) afterwards.

    `fill` returns the properties of its widgets as they are when somebody opens it.
    """

    fill: Callable[[], Updates] | None = None

    @property
    def config(self) -> Any:
        """The page as a browser gets it; gradio makes one when it is built, and one when it is served."""
        if self.fill is None:
            return self._config
        built = self._config
        filled = {widget._id: update for widget, update in self.fill().items()}
        parts = [part | {"props": part["props"] | filled.get(part["id"], {})} for part in built["components"]]
        return built | {"components": parts}

    @config.setter
    def config(self, value: Any) -> None:
        self._config = value


def _wire_page(blocks: _FilledPage, labels: Labels, page: Page) -> None:
    app, language = page.app, page.language

    def fill() -> Updates:
        words = app.page_translator()
        updates = labels.in_language(words)
        updates[page.inputs.start_button] = gr.update(value=words(start_key(app.queue.view())))
        updates = merged(updates, restore_settings(page) | {language: gr.update(value=words.language)})
        return {
            widget: {key: value for key, value in update.items() if key != "__type__"}
            for widget, update in updates.items()
        }

    def change_language(data: Data) -> Updates:
        app.remember(language=data[language])
        words = app.translator(data[language])
        return merged(labels.in_language(words), translate_notes(page, data, words))

    blocks.fill = fill
    options = page.options
    outputs = dict.fromkeys([*page.restored_widgets, *page.shown_widgets, options.eight_bit_note])
    kept = blocks.load(None, None, page.inputs.kept, js="() => ichi.kept()")
    opened = page.on(kept.then, open_page, [*outputs], page.inputs.kept)
    opened.then(None, None, None, js="() => { ichi.opened(); return []; }")
    page.on(opened.then, show_unread, [page.inputs.unread])
    translated = [*labels.widgets, page.message, options.hidden_note, options.eight_bit_note]
    language.input(change_language, page.widgets, translated, **RAW)
    for event, does in ((blocks.load, "loaded"), (language.change, "connect")):
        event(None, language, None, js=f"(code) => {{ ichi.{does}(code); return []; }}")
