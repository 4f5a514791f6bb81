"""The page itself, made with Gradio: what stands where, and what happens at a touch.

What is answered is answers.py's, what is said wording.py's, colours are page.css's. Needs the
packages of requirements-explore.txt.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import gradio as gr

from web.handlers import Answers, Picked, RefusalError, film_steps
from web.sliders import Effect, Slider
from web.texts import ENGLISH, LANGUAGES, Text, preferred, say

FONTS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica", "sans-serif")
PRIVATE: dict[str, Any] = {"api_visibility": "private"}  # for this page, not for programs
QUIET = PRIVATE | {"show_progress": "hidden", "trigger_mode": "always_last"}
CLICK = "() => document.querySelector('#saved').click()"
HOURS = 24  # that a visitor's faces stay in memory untouched
KEPT = ("picture", "sheet", "film", "styles")


class Page:
    """The parts of the page, wired to the answers for one checkpoint; `blocks` is the whole."""

    def __init__(self, answers: Answers, steps: int) -> None:
        self.answers = answers
        self.steps = steps  # of a projection
        self.worded: list[tuple[Any, str | Text]] = []
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
                self.keeping = gr.HTML(elem_id="keep-label")
                kept = {key: self._say(gr.Button(elem_id=f"keep-{key}"), key) for key in KEPT}
            self.saved = gr.DownloadButton(visible="hidden", elem_id="saved")
            self._lay_time()
            self.note = gr.HTML(elem_id="note")
            self.state = [self.pair, self.language, *self.controls.values()]
            for side, parts in enumerate((first, second)):
                self._wire_side(side, *parts)
            self._wire_sliders()
            for key, button in kept.items():
                self._wire_keeping(key, button)
            self._wire_time()
            self._wire_words()

    def _say(self, part: Any, text: str | Text) -> Any:
        """Let a part bear a text, in whatever language is chosen, and return it."""
        self.worded.append((part, text))
        return part

    def _side(self, name: str, seed: int) -> tuple[gr.HTML, tuple[Any, Any, Any]]:
        """Lay out face A or B: the picture, its seed, and two ways to another."""
        with gr.Column(elem_id=f"face-{name}", min_width=0):
            shown = gr.HTML(elem_classes="face")
            with gr.Row(elem_classes="choice"):
                typed = gr.Number(seed, precision=0, min_width=60, elem_id=f"seed-{name}")
                draw = gr.Button(size="sm", min_width=60, elem_id=f"draw-{name}")
                upload = gr.UploadButton(size="sm", min_width=60, elem_id=f"upload-{name}")
        parts = (("seed", typed), ("draw", draw), ("upload", upload))
        return shown, tuple(self._say(part, key) for key, part in parts)  # type: ignore[return-value]

    def _lay_sliders(self) -> None:
        """Lay out the sliders: those of layers in sight, the others folded."""
        with gr.Column(elem_id="gives"):
            self.heading = gr.HTML(elem_classes="heading")
            layers = self._controls("layers")
        with self._say(gr.Accordion(open=False, elem_id="more"), "more"), gr.Row():
            face = self._controls("face")
        with self._say(gr.Accordion(open=False, elem_id="directions"), "directions"), gr.Row():
            directions = self._controls("direction")
        controls = layers | face | directions
        self.controls = {slider: controls[slider] for slider in self.answers.sliders}

    def _controls(self, effect: Effect) -> dict[Slider, Any]:
        """Lay out the sliders of one effect."""
        made: dict[Slider, Any] = {}
        for slider in self.answers.sliders:
            if slider.effect != effect:
                continue
            if slider.range:
                low, high, step = slider.range
                buttons: Any = [] if effect == "layers" else None
                control: Any = gr.Slider(
                    low, high, slider.default, step=step, elem_id=slider.name, buttons=buttons
                )
            else:
                control = gr.Number(slider.default, precision=0, elem_id=slider.name)
            made[slider] = self._say(control, slider.label)
        return made

    def _lay_time(self) -> None:
        """Lay out the run through time, hidden where there are not two snapshots."""
        last = len(self.answers.studio.snapshots) - 1
        self.time = self._say(gr.Accordion(open=False, visible=last > 0, elem_id="time"), "time")
        with self.time:
            self.then = gr.HTML(elem_id="then")
            with gr.Row(elem_id="steps"):
                self.earlier = self._say(gr.Button(size="sm", elem_id="earlier"), "earlier")
                end = max(1, last)
                self.stop = self._say(gr.Slider(0, end, end, step=1, elem_id="stop"), "stop")
                self.later = self._say(gr.Button(size="sm", elem_id="later"), "later")

    def _wire_side(self, side: int, typed: Any, draw: Any, upload: Any) -> None:
        answers, picked = self.answers, [self.pair, typed, *self.shown]

        def choose(seed: float | None, *state: Any) -> Picked:
            return answers.choose(side, seed, *state)

        def another(*state: Any) -> Picked:
            return answers.draw(side, *state)

        def bring(path: str, *state: Any, progress: gr.Progress = gr.Progress()) -> Picked:  # noqa: B008
            moved = counting(progress, self.steps, say("projecting", state[1]))
            return answers.upload(side, moved, Path(path), *state)

        for event in (typed.submit, typed.blur):
            event(polite(choose), [typed, *self.state], picked, **QUIET)
        draw.click(polite(another), self.state, picked, **QUIET)
        upload.upload(
            polite(bring), [upload, *self.state], picked, show_progress_on=self.third, **PRIVATE
        )

    def _wire_sliders(self) -> None:
        answers = self.answers
        for slider, control in self.controls.items():
            if slider.effect != "face":
                control.input(polite(answers.third), self.state, self.third, **QUIET)
                continue
            if slider.range:
                control.input(polite(answers.third_alone), self.state, self.third, **QUIET)
            for event in [control.release] if slider.range else [control.submit, control.blur]:
                event(polite(answers.all_faces), self.state, self.shown, **QUIET)

    def _wire_keeping(self, key: str, button: gr.Button) -> None:
        def keep(*state: Any, progress: gr.Progress = gr.Progress()) -> str:  # noqa: B008
            doing = {"film": "filming", "sheet": "drawing"}.get(key)
            total = film_steps() if key == "film" else 1
            moved = counting(progress, total, say(doing, state[1]) if doing else "")
            return str(self.answers.keep(key, moved, *state))

        done = button.click(
            polite(keep), self.state, self.saved, show_progress_on=self.third, **PRIVATE
        )
        done.success(None, js=CLICK, **PRIVATE)

    def _wire_time(self) -> None:
        answers, moved = self.answers, [self.stop, *self.state]
        for event in (self.time.expand, self.stop.input):
            event(polite(answers.at), moved, self.then, **QUIET)
        for button, by in ((self.earlier, -1), (self.later, 1)):

            def step(stop: float, by: int = by) -> int:
                return answers.step(by, stop)

            stepped = button.click(step, self.stop, self.stop, **QUIET)
            stepped.then(polite(answers.at), moved, self.then, **QUIET)

    def _wire_words(self) -> None:
        """Speak the browser's language first, then the one that is chosen."""
        html = [self.title, self.heading, self.keeping, self.note]
        spoken = [*html, *(part for part, _ in self.worded)]
        loaded = self.blocks.load(greet, None, self.language, **QUIET)
        for event in (loaded.then, self.language.input):
            words = event(self.speak, self.language, spoken, **QUIET)
            words.then(polite(self.answers.all_faces), self.state, self.shown, **QUIET)

    def speak(self, language: str) -> list[Any]:
        """Return every text of the page in `language`."""
        said: list[Any] = [
            f"<h1>Retrato</h1><p>{say('title', language)}</p>",
            f"<h2>{say('gives', language)}</h2><p>{say('shares', language)}</p>",
            f"<p>{say('keep', language)}</p>",
            f"<p>{say('note', language)}</p>",
        ]
        for part, text in self.worded:
            place = "value" if type(part) is gr.Button else "label"
            change: dict[str, Any] = {place: say(text, language)}
            said.append(gr.update(**change))
        return said


def greet(request: gr.Request) -> str:
    """Return the language that the visitor's browser asks for."""
    return preferred(request.headers.get("accept-language", ""))


def counting(progress: gr.Progress, total: int, doing: str) -> Callable[[int], None]:
    """Return what hears of steps done, and shows them."""
    done = 0
    progress((0, total), desc=doing)

    def moved(count: int) -> None:
        nonlocal done
        done += count
        progress((done, total), desc=doing)

    return moved


def polite(answer: Callable[..., Any]) -> Callable[..., Any]:
    """Return `answer` with its refusals shown to the visitor as a message."""

    @wraps(answer)
    def answered(*args: Any, **named: Any) -> Any:
        try:
            return answer(*args, **named)
        except RefusalError as refusal:
            raise gr.Error(str(refusal), print_exception=False) from None

    return answered


def theme() -> gr.themes.Base:
    """Return the plain look that page.css goes on from; its letters are the machine's own."""
    return gr.themes.Base(
        primary_hue="stone", neutral_hue="stone", font=FONTS, font_mono=("monospace",)
    )
