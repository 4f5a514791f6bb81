"""What the page does when its controls are used, without a browser or Gradio."""

import base64
import io
import re
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from model import Generator
from outputs.film import enlarge
from sampling import projector
from sampling.latents import Latents, load_latents, save_latents
from sampling.mixing import Face
from sampling.sampler import load_faces
from web import texts
from web.backend import MAX_SNAPSHOTS, Backend, FaceSettings, Settings, snapshots_of, to_image
from web.handlers import Handlers, RefusalError, figure
from web.sliders import SLIDERS, read_settings, sliders_for
from web.texts import ENGLISH, LANGUAGES, SPANISH, TEXTS

STILL = (0.0,) * 10
DEFAULTS = [slider.default for slider in SLIDERS]
PLAIN = read_settings(SLIDERS, DEFAULTS)


def with_face(**changed: float) -> Settings:
    return replace(PLAIN, face=replace(PLAIN.face, **changed))


def values(**changed: float) -> list[float]:
    return [changed.get(slider.name, slider.default) for slider in SLIDERS]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(projector, "SAMPLES", 8)


@pytest.fixture(scope="module")
def backend(run: Path) -> Backend:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("web.backend.choose_precision", lambda name, where: "fp32")
        return Backend(*load_faces(run, torch.device("cpu"), print), 3)


@pytest.fixture
def handlers(backend: Backend, tmp_path: Path) -> Handlers:
    return Handlers(backend, tmp_path)


def pictures(html: str) -> list[np.ndarray]:
    found = re.findall(r"base64,([^\"]+)", html)
    return [np.array(Image.open(io.BytesIO(base64.b64decode(text)))) for text in found]


def test_at_the_ends_of_the_layer_sliders_the_third_face_is_a_or_b(backend: Backend) -> None:
    for share, source in ((0.0, 3), (1.0, 4)):
        settings = replace(PLAIN, from_b=(share,) * 3)
        assert torch.equal(backend.third((3, 4), settings), backend.picture(source, settings))


def test_each_layer_slider_moves_its_own_layers(backend: Backend) -> None:
    a, b = (backend.mixer.face(seed, PLAIN.face) for seed in (3, 4))
    for place, layers in enumerate((range(0, 4), range(4, 8), range(8, 10))):
        shares = tuple(float(i == place) for i in range(3))
        third = backend.mixer.third((3, 4), replace(PLAIN, from_b=shares))
        for layer in range(10):
            source = b if layer in layers else a
            assert torch.equal(third.ws[:, layer], source.ws[:, layer])
            assert torch.equal(third.noise[layer], source.noise[layer])


def test_psi_and_noise_change_faces_of_seeds(backend: Backend) -> None:
    mean = with_face(psi=0, noise=0)
    assert torch.equal(backend.picture(3, mean), backend.picture(4, mean))
    for other in (with_face(psi=1, noise=0), with_face(psi=0, noise=1)):
        assert not torch.equal(backend.picture(3, mean), backend.picture(3, other))
    seeds = [with_face(psi=0, noise_seed=seed) for seed in (1, 2)]
    assert not torch.equal(backend.picture(3, seeds[0]), backend.picture(3, seeds[1]))


def test_every_setting_of_a_face_is_part_of_the_key_of_its_cached_picture(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    @dataclass(frozen=True)
    class Extended(FaceSettings):
        offset: int = 0  # stands for a slider yet to come

    face = backend.mixer.face
    monkeypatch.setattr(backend.mixer, "face", lambda source, s: face(source + s.offset, s))
    plain = Extended(**vars(PLAIN.face))
    before = backend.picture(3, replace(PLAIN, face=plain))
    for field in fields(plain):
        changed = replace(plain, **{field.name: getattr(plain, field.name) + 1})
        after = backend.picture(3, replace(PLAIN, face=changed))
        assert not torch.equal(before, after), field.name


def test_each_slider_sets_the_setting_of_its_name() -> None:
    assert (PLAIN.from_b, PLAIN.face.psi, PLAIN.strengths) == ((0.0, 1.0, 1.0), 0.7, STILL)
    for name, changed in (
        ("middle", replace(PLAIN, from_b=(0.0, 0.25, 1.0))),
        ("psi", with_face(psi=25)),
        ("noise_seed", with_face(noise_seed=25)),
        ("direction-1", replace(PLAIN, strengths=(0.0, 25, *STILL[2:]))),
    ):
        assert read_settings(SLIDERS, values(**{name: 25})) == changed
    small = sliders_for(["coarse", "middle"])  # 32 px: no fine layers
    assert read_settings(small, [slider.default for slider in small]).from_b == (0.0, 1.0)


def test_a_direction_moves_the_third_face_in_standard_deviations_of_w(backend: Backend) -> None:
    still = backend.mixer.third((3, 4), PLAIN)
    moved = backend.mixer.third((3, 4), replace(PLAIN, strengths=(0.0, -2.0, *STILL[2:])))
    step = (moved.ws - still.ws)[0]
    assert torch.allclose(step, step[:1].expand_as(step), atol=1e-5)
    assert torch.allclose(step[0].norm(), 2 * backend.faces.w_std(), rtol=1e-3)


def test_heat_maps_are_black_where_the_third_face_equals_its_source(backend: Backend) -> None:
    settings = replace(PLAIN, from_b=(0.0,) * 3)
    a, b = backend.heat_maps((3, 4), settings, backend.third((3, 4), settings))
    assert a.unique().tolist() == [0, 4]  # the darkest colour of the scale
    assert b.float().mean() > a.float().mean()


def test_the_saved_picture_sheet_styles_and_film(handlers: Handlers, backend: Backend) -> None:
    state = ((3, 4), ENGLISH, *DEFAULTS)
    counts: list[int] = []
    kinds = ("picture", "sheet", "film", "styles")
    picture, sheet, film, styles = (handlers.save(kind, counts.append, *state) for kind in kinds)
    names = ["third.png", "crossover.png", "third.webp", "third.npz"]
    assert [path.name for path in (picture, sheet, film, styles)] == names
    with Image.open(picture) as image:
        assert image.size == (512, 512)
        exact = np.asarray(image)
    assert np.array_equal(exact, enlarge(to_image(backend.third((3, 4), PLAIN)), 512))
    with Image.open(sheet) as image:
        assert image.width > 11 * 96
    with Image.open(film) as moving:
        assert getattr(moving, "n_frames", 1) == len(counts) == 48
    kept = load_latents(styles, backend.faces.G, 64)
    assert torch.equal(backend.mixer.render(kept)[0], backend.third((3, 4), PLAIN))


def test_a_photo_becomes_a_face_and_the_upload_is_gone(handlers: Handlers, tmp_path: Path) -> None:
    path = tmp_path / "me.heic"  # the format follows from the content
    pixels = np.random.default_rng(0).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((80, 60)).save(path, "JPEG")
    steps: list[int] = []
    pair, seed, a, third, b = handlers.upload(1, steps.append, path, (3, 4), ENGLISH, *DEFAULTS)
    assert pair[0] == 3
    assert isinstance(pair[1], Face)
    assert seed is None
    assert steps == [1] * 3
    assert "me" in b
    assert len(pictures(a) + pictures(third) + pictures(b)) == 5
    assert not path.exists()


def test_uploaded_styles_give_the_saved_face(handlers: Handlers, backend: Backend) -> None:
    path = handlers.save("styles", print, (3, 4), ENGLISH, *DEFAULTS)
    pair, *_ = handlers.upload(0, print, path, (3, 4), ENGLISH, *DEFAULTS)
    assert torch.equal(backend.picture(pair[0], PLAIN), backend.third((3, 4), PLAIN))
    wild = with_face(psi=1.5, noise_seed=7)  # psi and noise_seed: drawn faces only
    assert torch.equal(backend.picture(pair[0], wild), backend.picture(pair[0], PLAIN))


@pytest.mark.parametrize("language", LANGUAGES)
def test_bad_uploads_are_one_message_in_the_visitors_language(
    handlers: Handlers, backend: Backend, tmp_path: Path, language: str
) -> None:
    names = ("damaged.jpg", "b.png", "c.npz", "d.npz")
    text, small, foreign, damaged = (tmp_path / name for name in names)
    text.write_text("no photo")
    Image.new("RGB", (8, 8)).save(small)
    face = backend.mixer.face(0, PLAIN.face)
    save_latents(foreign, Generator(backend.faces.G.config), Latents(face.ws, face.noise))
    damaged.write_bytes(b"PK" + bytes(100))
    for path, key, said in (
        (text, "no_photo", texts.photo_problem("not an image", language)),
        (small, "no_photo", texts.photo_problem("too small: 8 x 8 px", language)),
        (foreign, "no_styles", ""),
        (damaged, "no_styles", ""),
    ):
        with pytest.raises(RefusalError) as refusal:
            handlers.upload(0, print, path, (3, 4), language, *DEFAULTS)
        message = str(refusal.value)
        assert message == texts.translate(key, language, said)
        assert str(tmp_path) not in message
        assert not path.exists()


def test_bad_seeds_are_refused_and_an_empty_field_changes_nothing(handlers: Handlers) -> None:
    for seed in (-1, 2**31):
        with pytest.raises(RefusalError, match=r"0 to 2,147,483,647"):
            handlers.choose_seed(0, seed, (3, 4), ENGLISH, *DEFAULTS)
    with pytest.raises(RefusalError, match=r"0 a 2\.147\.483\.647"):
        handlers.all_faces((3, 4), SPANISH, *values(noise_seed=-5))
    assert handlers.choose_seed(0, None, (3, 4), ENGLISH, *DEFAULTS)[:2] == ((3, 4), 3)
    assert handlers.choose_seed(1, 9.0, (3, 4), ENGLISH, *DEFAULTS)[:2] == ((3, 9), 9)


def test_another_face_is_that_of_a_random_seed_which_is_shown(handlers: Handlers) -> None:
    pair, seed, a, *_ = handlers.random_seed(0, (3, 4), ENGLISH, *DEFAULTS)
    assert pair == (seed, 4)
    assert a == handlers.all_faces(pair, ENGLISH, *DEFAULTS)[0]


def test_each_snapshot_shows_the_same_seeds(handlers: Handlers, backend: Backend) -> None:
    first, last = (handlers.snapshot(stop, (3, 4), ENGLISH, *DEFAULTS) for stop in (0, 2))
    assert "after 4,000 iterations, 8 px" in first
    assert "after 12,000 iterations, 64 px" in last
    assert len(pictures(first)) == len(pictures(last)) == 3
    assert "tras 4.000 iteraciones" in handlers.snapshot(0, (3, 4), SPANISH, *DEFAULTS)
    now = backend.snapshot(2, (3, 4), PLAIN)
    assert (now.pictures.shape, now.iteration, now.resolution) == ((3, 3, 64, 64), 12_000, 64)
    assert not torch.equal(now.pictures[0], now.pictures[2])
    uploaded = (backend.mixer.face(3, PLAIN.face), 4)
    replaced = backend.snapshot(2, uploaded, PLAIN)
    assert torch.equal(replaced.pictures[0], backend.snapshot(2, (0, 4), PLAIN).pictures[0])
    html = handlers.snapshot(2, uploaded, ENGLISH, *DEFAULTS)
    assert texts.translate("stand_ins", ENGLISH) in html
    steps = ((-1, 0), (-1, 2), (1, 1), (1, 2))
    assert [handlers.next_snapshot(step, index) for step, index in steps] == [0, 1, 2, 2]


def test_a_damaged_snapshot_is_one_message(
    handlers: Handlers, backend: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    damaged = tmp_path / "004000.pt"
    damaged.write_bytes(backend.snapshots[0].read_bytes()[:10_000])
    monkeypatch.setattr(backend, "snapshots", [damaged])
    with pytest.raises(RefusalError, match="cannot make this picture"):
        handlers.snapshot(0, (3, 4), ENGLISH, *DEFAULTS)


def test_snapshots_are_found_from_any_checkpoint_of_the_run(run: Path, tmp_path: Path) -> None:
    names = ["004000.pt", "008000.pt", "012000.pt"]
    for file in (run / "latest.pt", run / "snapshots" / "008000.pt"):
        assert [path.name for path in snapshots_of(file)] == names
    assert snapshots_of(tmp_path / "alone.pt") == []


def test_of_many_snapshots_evenly_spaced_ones_are_used(tmp_path: Path) -> None:
    (tmp_path / "snapshots").mkdir()
    for number in range(200):
        (tmp_path / "snapshots" / f"{number:06d}.pt").touch()
    found = [int(path.stem) for path in snapshots_of(tmp_path / "latest.pt")]
    assert (len(found), found[0], found[-1]) == (MAX_SNAPSHOTS, 0, 199)
    assert max(np.diff(found)) - min(np.diff(found)) <= 1


def test_file_names_are_escaped_in_html() -> None:
    html = figure(torch.zeros(3, 4, 4, dtype=torch.uint8), "Face", '<b>"me"')
    assert "<b>" not in html
    assert "&lt;b&gt;&quot;me&quot;" in html


def test_every_text_exists_in_both_languages() -> None:
    for key, said in (TEXTS | {slider.name: slider.label for slider in SLIDERS}).items():
        assert len(said) == len(LANGUAGES), key
        assert all(said), key
        assert len({text.count("{}") for text in said}) == 1, key
    assert texts.preferred_language("es-PE,es;q=0.9,en;q=0.8") == SPANISH
    assert texts.preferred_language("fr,en;q=0.5") == texts.preferred_language("") == ENGLISH
