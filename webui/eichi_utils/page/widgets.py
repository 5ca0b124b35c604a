"""One page as its handlers see it: its fields read and filled, and each failure as a message."""

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from diffusers_helper.errors import EngineError

from ..app import AppState
from ..form import DEFAULTS, FIELDS, Pictures, Values
from ..text.translations import Translator
from ..uploads.cleanup import touch
from ..uploads.continued import NOTE, find_previous
from ..uploads.files import VIEW, delete_refused, make_view, uploaded_path, uploaded_paths
from . import messages
from .labels import RAW
from .parts.choice import Choice
from .parts.inputs import Inputs
from .parts.keyframe_rows import KeyframeRows
from .parts.options import SLIDER_TOPS, Options
from .parts.preset_box import PresetBox
from .parts.result import Result

logger = logging.getLogger(__name__)

Data = Mapping[Any, Any]
"""The raw value of each widget, as gradio hands it to a handler."""
Updates = dict[Any, Any]
"""The new values of widgets, or their new properties (`gr.update`), that a handler returns to gradio."""


def merged(first: Updates, second: Updates) -> Updates:
    """Return both, with the properties of one widget put together; the second ones count."""
    both = dict(first)
    for widget, update in second.items():
        before = both.get(widget)
        both[widget] = before | update if isinstance(before, dict) and isinstance(update, dict) else update
    return both


@dataclass(frozen=True)
class Edited:
    """The id of a queue's job that a form edits, if any, and what brings back what the form held before it
    (see `undo_of`)."""

    job: str = ""
    before: str = ""


NOT_EDITED = Edited()


@dataclass(frozen=True)
class Page:
    """The widgets of a page and the app behind them: what a handler needs besides the raw values.

    `fields` are the widgets of the form's plain values, by name; `hidden_settings` holds the settings of a
    request that no field shows; `seed_source` holds where the seed has come from, if that is a file (see
    `source_of_seed`); `edited` holds which of the queue's jobs the form edits (`Edited`); `language` is the
    page's.
    """

    app: AppState
    fields: dict[str, Any]
    inputs: Inputs
    options: Options
    keyframes: KeyframeRows
    presets: PresetBox
    result: Result
    hidden_settings: Any
    seed_source: Any
    edited: Any
    language: Any

    @property
    def message(self) -> Any:
        return self.inputs.message

    @property
    def choices(self) -> list[Choice]:
        return [self.inputs.seconds, *self.options.choices]

    @property
    def form_widgets(self) -> list[Any]:
        """The widgets of the form's plain values."""
        return [*self.fields.values(), *(choice.radio for choice in self.choices)]

    @property
    def pictures_and_states(self) -> list[Any]:
        """All else that makes a request."""
        inputs, rows = self.inputs, self.keyframes
        pictures = inputs.start, inputs.start_images, inputs.end, inputs.position
        return [*pictures, rows.rows, rows.plan, self.hidden_settings, self.seed_source, self.edited]

    @property
    def shown_widgets(self) -> list[Any]:
        """Everything that follows from the form, and is shown anew when it changes."""
        changes = self.fields["join"], self.options.changes, self.options.reset
        shown = self.inputs.estimate, self.inputs.unread, self.message, self.keyframes.plan
        return [*shown, *self.switched(DEFAULTS), *changes]

    @property
    def widgets(self) -> set[Any]:
        """Everything to be handed to a handler that reads the form."""
        options = self.options.output_folder, self.options.eight_bit
        return {*self.form_widgets, *self.pictures_and_states, self.language, *options}

    @property
    def restored_widgets(self) -> list[Any]:
        """Everything that changes when a request comes back."""
        notes = [self.message, self.options.hidden_note, self.options.clear_hidden]
        return [*self.form_widgets, *self.pictures_and_states, *notes]

    def words(self, data: Data) -> Translator:
        return self.app.translator(data[self.language])

    def values(self, data: Data) -> Values:
        """The fields' values; an emptied text, which comes as None, is one."""
        values = {name: data[widget] for name, widget in self.fields.items()}
        values |= {choice.name: choice.value(data) for choice in self.choices}
        return values | {name: values[name] or "" for name in ("prompt", "seed")}

    def requested(self, data: Data) -> Values:
        """The fields' values, as far as the models that are there can do what they ask for."""
        resolution = self.app.forced_resolution
        known = self.values(data) | ({} if resolution is None else {"resolution": resolution})
        return known | ({"random_seed": True} if self.is_seed_of_other_pictures(data) else {})

    def is_seed_from_file(self, data: Data) -> bool:
        """True where the seed is the one that a file has brought."""
        source, values = data[self.seed_source], self.values(data)
        return source is not None and not values["random_seed"] and values["seed"] == source["seed"]

    def is_seed_of_other_pictures(self, data: Data) -> bool:
        """True where the seed is from a file, and the pictures are no longer those of that file."""
        pictures = self.pictures(data)
        return self.is_seed_from_file(data) and data[self.seed_source] != source_of_seed(
            data[self.seed_source]["seed"], pictures
        )

    def pictures(self, data: Data) -> Pictures:
        uploads = self.app.uploads
        several = uploaded_paths(data[self.inputs.start_images], uploads)
        single = uploaded_path(data[self.inputs.start], uploads)
        start = tuple(several) if several else (single,) if single is not None else ()
        end = uploaded_path(data[self.inputs.end], uploads)
        rows = dict(data[self.keyframes.rows])
        used = [path for path in (*start, end, *(row.image for row in rows.values())) if path is not None]
        touch([*used, *(path + ending for path in used for ending in (VIEW, NOTE))])
        position = data[self.inputs.position]
        previous = find_previous(start[0], uploads) if len(start) == 1 else None
        return Pictures(start, end, rows, 0.5 if position is None else position, previous)

    def output_folder(self, data: Data) -> Path:
        """The folder for videos; raises InputError where the field names none."""
        return self.app.output_folder(text_of(data, self.options.output_folder))

    def eight_bit(self, data: Data) -> bool:
        """True where this page has the fast weights chosen."""
        return bool(data[self.options.eight_bit])

    def private_texts(self, data: Data) -> list[str]:
        """The texts that the user wrote, which no report may hold."""
        rows, hidden = data.get(self.keyframes.rows, {}), data.get(self.hidden_settings, {})
        written = (data.get(self.inputs.prompt), hidden.get("negative_prompt"))
        return [text for text in (*written, *(r.prompt for r in rows.values())) if isinstance(text, str)]

    def note(self, data: Data, key: str, **values: object) -> Updates:
        """The update that shows a message, in the page's language."""
        return {self.message: messages.note(self.words(data)(key, **values))}

    def filled(self, values: Values, names: Collection[str] = FIELDS) -> Updates:
        """Updates that put the plain values of `names` into their widgets and show what belongs to them."""
        updates = {self.fields[name]: gr.update(value=values[name]) for name in names}
        for name in SLIDER_TOPS.keys() & names:  # a slider reaches as far as what it has to show
            updates[self.fields[name]]["maximum"] = max(SLIDER_TOPS[name], values[name])
        for choice in self.choices:
            if choice.name in names:
                updates |= choice.filled(values[choice.name])
        return merged(updates, self.switched(values))

    def switched(self, values: Values) -> Updates:
        """Updates that show, hide or lock fields by the switches beside them."""
        fields, copies = self.fields, bool(values["loop"] and values["use_keyframes"])
        return {
            fields["teacache_threshold"]: gr.update(visible=bool(values["teacache"])),
            fields["seed"]: gr.update(interactive=not values["random_seed"]),
            fields["copy_keyframes"]: gr.update(visible=copies),
        }

    def with_starts(self, paths: Sequence[str], position: object = 0.5) -> Updates:
        """Updates that put one start image, several, or none in place of whatever is there."""
        views = list(map(make_view, paths))
        single = views[0] if len(views) == 1 else None
        several = views if len(views) > 1 else None
        return {
            self.inputs.start: gr.update(value=single, visible=several is None),
            self.inputs.start_images: gr.update(value=several, visible=several is not None),
            self.inputs.position: position,
        }

    def with_new_starts(self, paths: Sequence[str], data: Data) -> Updates:
        """Updates that put other start images there: the seed that a file has brought was for its own."""
        return self.with_starts(paths) | self.with_random_seed(data)

    def with_random_seed(self, data: Data) -> Updates:
        """Updates that make the seed random again if it is the one that a file has brought."""
        if not self.is_seed_from_file(data):
            return {}
        seed = gr.update(interactive=False)
        return {self.fields["random_seed"]: True, self.fields["seed"]: seed, self.seed_source: None}

    def on(
        self, event: Callable[..., Any], act: "Handler", outputs: Sequence[Any], *inputs: Any, **options: Any
    ) -> Any:
        """Have a handler called at an event, with the raw values of the form and of further `inputs`.

        Returns gradio's event, for what comes after it.
        """
        return event(self.handler(act), {*self.widgets, *inputs}, outputs, **RAW, **options)

    def handler(self, act: "Handler") -> Callable[[Data], Updates]:
        """The handler as gradio calls it: a failure becomes a message, in the page's language."""

        def report(data: Data) -> Updates:
            try:
                return act(self, data) or gr.skip()
            except Exception as caught:
                error, private = caught, self.private_texts(data)
                if isinstance(error, EngineError):
                    error = delete_refused(error, self.app.uploads)
                else:
                    logger.error("a handler of the page failed", exc_info=True, extra={"private": private})
                return {self.message: messages.problem(error, self.words(data), private)}

        report.__name__ = act.__name__
        return report


Handler = Callable[[Page, Data], Updates]
"""A function that reads the widgets' raw values, acts, and gives the widgets that change."""


def source_of_seed(seed: object, pictures: Pictures) -> dict[str, Any]:
    """Return where a seed has come from: the file that brought these pictures."""
    return {"seed": seed, "pictures": [*pictures.start, pictures.end]}


def text_of(data: Data, widget: Any) -> str:
    """The text in a field; an empty one where somebody sent something else."""
    return data[widget] if isinstance(data[widget], str) else ""
