"""The page: its parts in their order, and the handlers that its widgets call."""

import gradio as gr

from ..app import AppState
from ..text.translations import LANGUAGES, Translator
from .api import add_api
from .handlers import restore_settings, show_notices, translate_notes, wire_inputs
from .job_handlers import wire_jobs
from .labels import Labels
from .parts.inputs import RAW, Inputs
from .parts.keyframe_rows import KeyframeRows
from .parts.options import Options
from .parts.preset_box import PresetBox
from .parts.result import Result, static_html
from .preset_handlers import wire_presets
from .widgets import Data, Page, Updates


def build_page(app: AppState) -> gr.Blocks:
    """Build the whole page, ready to be served."""
    words = app.translator(None)
    labels = Labels(words)
    with gr.Blocks(title=words("live.page_title"), analytics_enabled=False, fill_width=True) as blocks:
        with gr.Row(elem_id="header"):
            labels.make(gr.HTML, "title", padding=False)
            if app.options.demo:
                labels.make(gr.HTML, "demo", padding=False)
            names = [(Translator(code)("page.language_name"), code) for code in LANGUAGES]
            language = labels.make(gr.Radio, "language", choices=names, value=app.language, container=False)
        gr.HTML(static_html("setup.html"), padding=False)  # takes no room where everything is well
        with gr.Row(elem_id="halves"):
            with gr.Column(elem_id="left", min_width=320):
                inputs = Inputs(labels)
                with labels.make(gr.Accordion, "panel", open=False):
                    options = Options(labels, output_given=app.options.output)
                    with labels.make(gr.Accordion, "presets", open=False):
                        presets = PresetBox(labels)
                    keyframes = KeyframeRows(labels, app, inputs.message)
            with gr.Column(elem_id="right", min_width=320):
                result = Result(labels, app.language)
        parts = inputs, options, keyframes, presets, result
        page = Page(app, labels.fields, *parts, hidden_settings=gr.State({}), language=language)
        wire_inputs(page)
        wire_jobs(page)
        wire_presets(page)
        _wire_page(blocks, labels, page)
        add_api(app)
    return blocks


def _wire_page(blocks: gr.Blocks, labels: Labels, page: Page) -> None:
    app, language = page.app, page.language
    outputs = list(dict.fromkeys([*restore_settings(page), *labels.widgets, language, page.message]))

    def open_page() -> Updates:
        words = app.translator(app.settings.load()["language"])
        updates = labels.in_language(words)
        for widget, update in (restore_settings(page) | {language: gr.update(value=words.language)}).items():
            updates[widget] = updates.get(widget, {}) | update
        return updates | {page.message: show_notices(page, words)}

    def change_language(data: Data) -> Updates:
        app.remember(language=data[language])
        words = app.translator(data[language])
        return labels.in_language(words) | translate_notes(page, data, words)

    blocks.load(open_page, None, outputs, **RAW)
    translated = [*labels.widgets, page.message, page.options.hidden_note]
    language.change(change_language, {language, page.hidden_settings}, translated, **RAW)
    language.change(None, language, None, js="(code) => { ichi.connect(code); return []; }")
