"""The page in Gradio: where its parts are, and which handler each of them calls.

What the handlers do is in handlers.py, the texts are in texts.py and sliders.py, colours and sizes
in page.css. Needs the packages of requirements-explore.txt.
"""

from collections.abc import Callable
from functools import partial, wraps
from pathlib import Path
from typing import Any

import gradio as gr

from web.backend import FILM_FRAMES, Progress
from web.handlers import Handlers, PairUpdate, RefusalError
from web.sliders import Effect, Slider
from web.texts import ENGLISH, LANGUAGES, Text, preferred_language, translate

FONTS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica", "sans-serif")
PRIVATE: dict[str, Any] = {"api_visibility": "private"}  # no API for programs
QUIET = PRIVATE | {"show_progress": "hidden", "trigger_mode": "always_last"}
CLICK = "() => document.querySelector('#saved').click()"
HOURS = 24  # that the faces of an idle visitor stay in memory
SAVED = ("picture", "sheet", "film", "styles")


class Page:
    """The page for one checkpoint; `blocks` is what Gradio launches."""

    def __init__(self, handlers: Handlers, steps: int) -> None:
        self.handlers = handlers
        self.steps = steps  # of a projection
        self.labels: list[tuple[Any, str | Text]] = []
        with gr.Blocks(title="Retrato", analytics_enabled=False) as self.blocks:
            self.pair = gr.State((0, 1), time_to_live=HOURS * 3600)
            with gr.Row(elem_id="head"):
                self.title = gr.HTML(elem_id="title")
                self.language = gr.Radio(
                    LANGUAGES, value=ENGLISH, show_label=False, container=False, elem_id="language"
                )
            with gr.Row(elem_id="faces"):
                a, first = self._side("a", 0)
                with gr.Column(elem_id="third", min_width=0):
                    self.third = gr.HTML(elem_classes="face")
                b, second = self._side("b", 1)
            self.shown = [a, self.third, b]
            self._lay_sliders()
            with gr.Row(elem_id="keep"):
                self.keep_heading = gr.HTML(elem_id="keep-label")
                buttons = [self._label(gr.Button(elem_id=f"keep-{key}"), key) for key in SAVED]
            self.saved = gr.DownloadButton(visible="hidden", elem_id="saved")
            self._lay_snapshots()
            self.note = gr.HTML(elem_id="note")
            self.state = [self.pair, self.language, *self.controls.values()]
            for side, parts in enumerate((first, second)):
                self._wire_side(side, *parts)
            self._wire_sliders()
            for what, button in zip(SAVED, buttons, strict=True):
                self._wire_saving(what, button)
            self._wire_snapshots()
            self._wire_language()

    def _label(self, part: Any, text: str | Text) -> Any:
        """Give a part a text, which will follow the language, and return the part."""
        self.labels.append((part, text))
        return part

    def _side(self, name: str, seed: int) -> tuple[gr.HTML, tuple[Any, Any, Any]]:
        """Lay out face A or B: its picture, its seed, and two buttons to replace it."""
        with gr.Column(elem_id=f"face-{name}", min_width=0):
            shown = gr.HTML(elem_classes="face")
            with gr.Row(elem_classes="choice"):
                field = gr.Number(seed, precision=0, min_width=60, elem_id=f"seed-{name}")
                draw = gr.Button(size="sm", min_width=60, elem_id=f"draw-{name}")
                upload = gr.UploadButton(size="sm", min_width=60, elem_id=f"upload-{name}")
        label = self._label
        return shown, (label(field, "seed"), label(draw, "draw"), label(upload, "upload"))

    def _lay_sliders(self) -> None:
        """Lay out the sliders; only those of the layers are visible before a click."""
        with gr.Column(elem_id="gives"):
            self.heading = gr.HTML(elem_classes="heading")
            layers = self._controls("layers")
        with self._label(gr.Accordion(open=False, elem_id="more"), "more"), gr.Row():
            face = self._controls("face")
        with self._label(gr.Accordion(open=False, elem_id="directions"), "directions"), gr.Row():
            directions = self._controls("direction")
        controls = layers | face | directions
        self.controls = {slider: controls[slider] for slider in self.handlers.sliders}

    def _controls(self, effect: Effect) -> dict[Slider, Any]:
        """Lay out the sliders of one effect."""
        made: dict[Slider, Any] = {}
        for slider in self.handlers.sliders:
            if slider.effect != effect:
                continue
            shown: dict[str, Any] = {"value": slider.default, "elem_id": slider.name}
            if slider.range:
                low, high, step = slider.range
                buttons: Any = [] if effect == "layers" else None  # None: a reset button
                control: Any = gr.Slider(low, high, step=step, buttons=buttons, **shown)
            else:
                control = gr.Number(precision=0, **shown)
            made[slider] = self._label(control, slider.label)
        return made

    def _lay_snapshots(self) -> None:
        """Lay out the snapshots of the run, hidden if there are fewer than two."""
        last = len(self.handlers.backend.snapshots) - 1
        self.time = self._label(gr.Accordion(open=False, visible=last > 0, elem_id="time"), "time")
        with self.time:
            self.then = gr.HTML(elem_id="then")
            with gr.Row(elem_id="steps"):
                self.earlier = self._label(gr.Button(size="sm", elem_id="earlier"), "earlier")
                slider = gr.Slider(0, max(1, last), max(1, last), step=1, elem_id="stop")
                self.snapshot = self._label(slider, "snapshot")
                self.later = self._label(gr.Button(size="sm", elem_id="later"), "later")

    def _wire_side(self, side: int, seed: Any, draw: Any, upload: Any) -> None:
        handlers, updated = self.handlers, [self.pair, seed, *self.shown]

        def choose_seed(seed: float | None, *state: Any) -> PairUpdate:
            return handlers.choose_seed(side, seed, *state)

        def random_seed(*state: Any) -> PairUpdate:
            return handlers.random_seed(side, *state)

        def receive(path: str, *state: Any, progress: gr.Progress = gr.Progress()) -> PairUpdate:  # noqa: B008
            shown = progress_shown(progress, self.steps, translate("projecting", state[1]))
            return handlers.upload(side, shown, Path(path), *state)

        for event in (seed.submit, seed.blur):
            event(guarded(choose_seed), [seed, *self.state], updated, **QUIET)
        draw.click(guarded(random_seed), self.state, updated, **QUIET)
        upload.upload(
            guarded(receive), [upload, *self.state], updated, show_progress_on=self.third, **PRIVATE
        )

    def _wire_sliders(self) -> None:
        handlers = self.handlers
        for slider, control in self.controls.items():
            if slider.effect != "face":
                control.input(guarded(handlers.third), self.state, self.third, **QUIET)
                continue
            if slider.range:
                control.input(guarded(handlers.third_without_maps), self.state, self.third, **QUIET)
            for event in [control.release] if slider.range else [control.submit, control.blur]:
                event(guarded(handlers.all_faces), self.state, self.shown, **QUIET)

    def _wire_saving(self, what: str, button: gr.Button) -> None:
        def save(*state: Any, progress: gr.Progress = gr.Progress()) -> str:  # noqa: B008
            doing = {"film": "filming", "sheet": "drawing"}.get(what)
            total = FILM_FRAMES if what == "film" else 1
            shown = progress_shown(progress, total, translate(doing, state[1]) if doing else "")
            return str(self.handlers.save(what, shown, *state))

        saved = button.click(
            guarded(save), self.state, self.saved, show_progress_on=self.third, **PRIVATE
        )
        saved.success(None, js=CLICK, **PRIVATE)

    def _wire_snapshots(self) -> None:
        handlers, state = self.handlers, [self.snapshot, *self.state]
        show = guarded(handlers.snapshot)
        for event in (self.time.expand, self.snapshot.input):
            event(show, state, self.then, **QUIET)
        for button, step in ((self.earlier, -1), (self.later, 1)):
            move = partial(handlers.next_snapshot, step)
            stepped = button.click(move, self.snapshot, self.snapshot, **QUIET)
            stepped.then(show, state, self.then, **QUIET)

    def _wire_language(self) -> None:
        """Use the browser's language first, then the one that is chosen."""
        headings = [self.title, self.heading, self.keep_heading, self.note]
        labelled = [*headings, *(part for part, _ in self.labels)]
        loaded = self.blocks.load(browser_language, None, self.language, **QUIET)
        for event in (loaded.then, self.language.input):
            translated = event(self.translated, self.language, labelled, **QUIET)
            translated.then(guarded(self.handlers.all_faces), self.state, self.shown, **QUIET)

    def translated(self, language: str) -> list[Any]:
        """Return every text of the page in `language`."""
        updates: list[Any] = [
            f"<h1>Retrato</h1><p>{translate('title', language)}</p>",
            f"<h2>{translate('gives', language)}</h2><p>{translate('shares', language)}</p>",
            f"<p>{translate('keep', language)}</p>",
            f"<p>{translate('note', language)}</p>",
        ]
        for part, text in self.labels:
            place = "value" if type(part) is gr.Button else "label"
            change: dict[str, Any] = {place: translate(text, language)}
            updates.append(gr.update(**change))
        return updates


def browser_language(request: gr.Request) -> str:
    """Return the language that the visitor's browser asks for."""
    return preferred_language(request.headers.get("accept-language", ""))


def progress_shown(progress: gr.Progress, total: int, doing: str) -> Progress:
    """Return a callback that adds up the steps it is called with, and shows them."""
    done = 0
    progress((0, total), desc=doing)

    def add(count: int) -> None:
        nonlocal done
        done += count
        progress((done, total), desc=doing)

    return add


def guarded(handler: Callable[..., Any]) -> Callable[..., Any]:
    """Return `handler` with its RefusalErrors shown to the visitor as messages."""

    @wraps(handler)
    def handle(*args: Any, **named: Any) -> Any:
        try:
            return handler(*args, **named)
        except RefusalError as refusal:
            raise gr.Error(str(refusal), print_exception=False) from None

    return handle


def theme() -> gr.themes.Base:
    """Return the plain theme that page.css builds on, with fonts that the machine has."""
    return gr.themes.Base(
        primary_hue="stone", neutral_hue="stone", font=FONTS, font_mono=("monospace",)
    )
