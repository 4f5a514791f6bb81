"""studio.py and answers.py: what the page does at a touch, without a browser or Gradio."""

import base64
import io
import re
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from checkpoints import checkpoint
from model import Generator, ModelConfig
from outputs.film import enlarge
from sampling import projector
from sampling.latents import load_latents, save_latents
from sampling.mixing import Face
from sampling.sampler import load_faces
from web import backend, texts
from web.backend import FaceSettings, Own, Settings, Studio, image_of, snapshots_beside
from web.handlers import MAX_MB, Answers, RefusalError, figure
from web.sliders import SLIDERS, read_settings, sliders_for
from web.texts import ENGLISH, LANGUAGES, SPANISH, TEXTS

CPU = torch.device("cpu")
CONFIG = ModelConfig(64, 0.02, z_dim=16, w_dim=16, mapping_layers=2)
STILL = (0.0,) * 10
PLAIN = Settings((0.0, 1.0, 1.0), FaceSettings(0.7, 1.0, 0), STILL)
TOUCHED = tuple(slider.default for slider in SLIDERS)  # for PLAIN


def values(**changed: float) -> list[float]:
    return [changed.get(slider.name, slider.default) for slider in SLIDERS]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(projector, "SAMPLES", 8)


def generator(seed: int) -> Generator:
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        G = Generator(CONFIG)
        for layer in G.synthesis.layers:
            layer.noise_strength.normal_(0, 1 / layer.noise_scale)
        G.w_avg.normal_(0, 0.1)
    return G


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder: a full state, and three snapshots that growth had reached."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "snapshots").mkdir()
    latest = generator(0).state_dict()
    checkpoint.save(folder / "latest.pt", CONFIG, {"G_ema": latest, "iteration": 12_000})
    for iteration, resolution in ((4_000, 8), (8_000, 32), (12_000, 64)):
        entries = {"G_ema": generator(iteration).state_dict(), "iteration": iteration}
        path = folder / "snapshots" / f"{iteration:06d}.pt"
        checkpoint.save(path, CONFIG, {**entries, "stage": [resolution, 1.0]})
    return folder


@pytest.fixture(scope="module")
def made(run: Path) -> Studio:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backend, "choose_precision", lambda name, where: "fp32")
        return Studio(*load_faces(run, CPU, print), 3)


@pytest.fixture
def answers(made: Studio, tmp_path: Path) -> Answers:
    return Answers(made, tmp_path)


def photo(path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((80, 60)).save(path, "JPEG")
    return path


def pictures(html: str) -> list[np.ndarray]:
    found = re.findall(r"base64,([^\"]+)", html)
    return [np.array(Image.open(io.BytesIO(base64.b64decode(text)))) for text in found]


def test_at_the_ends_of_the_sliders_the_third_face_is_a_or_b(made: Studio) -> None:
    for share, source in ((0.0, 3), (1.0, 4)):
        settings = replace(PLAIN, from_b=(share,) * 3)
        assert torch.equal(made.third((3, 4), settings), made.alone(source, settings))


def test_each_slider_gives_its_own_layers(made: Studio) -> None:
    a, b = (made.maker.face(seed, PLAIN.face) for seed in (3, 4))
    for place, layers in enumerate((range(0, 4), range(4, 8), range(8, 10))):
        shares = tuple(float(i == place) for i in range(3))
        third = made.maker.third((3, 4), replace(PLAIN, from_b=shares))
        for layer in range(10):
            source = b if layer in layers else a
            assert torch.equal(third.ws[:, layer], source.ws[:, layer])
            assert torch.equal(third.noise[layer], source.noise[layer])


def test_psi_and_noise_change_drawn_faces(made: Studio) -> None:
    def at(psi: float, noise: float, noise_seed: int = 0) -> Settings:
        return replace(PLAIN, face=FaceSettings(psi, noise, noise_seed))

    mean = at(0.0, 0.0)
    assert torch.equal(made.alone(3, mean), made.alone(4, mean))
    for other in (at(1.0, 0.0), at(0.0, 1.0)):
        assert not torch.equal(made.alone(3, mean), made.alone(3, other))
    seeds = [at(0.0, 1.0, seed) for seed in (1, 2)]
    assert not torch.equal(made.alone(3, seeds[0]), made.alone(3, seeds[1]))


def test_every_setting_of_a_face_is_part_of_the_key_of_its_cached_picture(
    made: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    @dataclass(frozen=True)
    class Extended(FaceSettings):
        offset: int = 0  # stands for a slider yet to come

    face = made.maker.face
    monkeypatch.setattr(made.maker, "face", lambda pick, s: face(pick + s.offset, s))
    plain = Extended(0.7, 1.0, 0)
    before = made.alone(3, replace(PLAIN, face=plain))
    for field in fields(plain):
        changed = replace(plain, **{field.name: getattr(plain, field.name) + 1})
        after = made.alone(3, replace(PLAIN, face=changed))
        assert not torch.equal(before, after), field.name


def test_each_slider_reaches_what_it_is_named_for() -> None:
    settings = read_settings(SLIDERS, values())
    assert settings == PLAIN
    for name, changed in (
        ("middle", replace(PLAIN, from_b=(0.0, 0.25, 1.0))),
        ("psi", replace(PLAIN, face=FaceSettings(25, 1.0, 0))),
        ("noise_seed", replace(PLAIN, face=FaceSettings(0.7, 1.0, 25))),
        ("direction-1", replace(PLAIN, strengths=(0.0, 25, *STILL[2:]))),
    ):
        assert read_settings(SLIDERS, values(**{name: 25})) == changed
    small = sliders_for(["coarse", "middle"])  # 32 px: no fine layers
    assert read_settings(small, [slider.default for slider in small]).from_b == (0.0, 1.0)


def test_a_direction_moves_the_third_face_by_deviations_of_w(made: Studio) -> None:
    still = made.maker.third((3, 4), PLAIN)
    moved = made.maker.third((3, 4), replace(PLAIN, strengths=(0.0, -2.0, *STILL[2:])))
    step = (moved.ws - still.ws)[0]
    assert torch.allclose(step, step[:1].expand_as(step), atol=1e-5)
    deviation = made.faces.spread()
    assert torch.allclose(step[0].norm(), 2 * deviation, rtol=1e-3)


def test_heat_is_black_where_the_third_face_is_its_source(made: Studio) -> None:
    settings = replace(PLAIN, from_b=(0.0,) * 3)
    a, b = made.changes((3, 4), settings, made.third((3, 4), settings))
    assert a.unique().tolist() == [0, 4]  # the darkest colour of the scale
    assert b.float().mean() > a.float().mean()


def test_the_kept_picture_sheet_styles_and_film(answers: Answers, made: Studio) -> None:
    state = ((3, 4), ENGLISH, *TOUCHED)
    counts: list[int] = []
    picture, sheet, film, styles = (
        answers.keep(what, counts.append, *state) for what in ("picture", "sheet", "film", "styles")
    )
    assert [path.name for path in (picture, sheet, film, styles)] == [
        "third.png", "crossover.png", "third.webp", "third.npz"
    ]  # fmt: skip
    with Image.open(picture) as image:
        assert image.size == (512, 512)
        exact = np.asarray(image)
    shown = made.third((3, 4), PLAIN)
    assert np.array_equal(exact, enlarge(image_of(shown), 512))
    with Image.open(sheet) as image:
        assert image.width > 11 * 96
    with Image.open(film) as moving:
        assert getattr(moving, "n_frames", 1) == len(counts) == 48
    kept = load_latents(styles, made.faces.G, 64)
    assert torch.equal(made.maker.show(kept)[0], made.third((3, 4), PLAIN))


def test_a_photo_becomes_a_face_and_the_upload_is_gone(answers: Answers, tmp_path: Path) -> None:
    path = photo(tmp_path / "me.heic")  # the content tells the format
    steps: list[int] = []
    pair, seed, a, third, b = answers.upload(1, steps.append, path, (3, 4), ENGLISH, *TOUCHED)
    assert pair[0] == 3
    assert isinstance(pair[1], Own)
    assert seed is None
    assert steps == [1] * 3
    assert "me" in b
    assert len(pictures(a) + pictures(third) + pictures(b)) == 5
    assert not path.exists()


def test_styles_come_back_as_they_were_kept(answers: Answers, made: Studio) -> None:
    path = answers.keep("styles", print, (3, 4), ENGLISH, *TOUCHED)
    pair, *_ = answers.upload(0, print, path, (3, 4), ENGLISH, *TOUCHED)
    assert torch.equal(made.alone(pair[0], PLAIN), made.third((3, 4), PLAIN))
    wild = replace(PLAIN, face=FaceSettings(1.5, 1.0, 7))  # psi and noise_seed: drawn faces only
    assert torch.equal(made.alone(pair[0], wild), made.alone(pair[0], PLAIN))


@pytest.mark.parametrize("language", LANGUAGES)
def test_bad_uploads_are_one_message_in_the_visitors_language(
    answers: Answers, tmp_path: Path, language: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, small, foreign, damaged, large = (
        tmp_path / name for name in ("damaged.jpg", "b.png", "c.npz", "d.npz", "e.jpg")
    )
    text.write_text("no photo")
    Image.new("RGB", (8, 8)).save(small)
    other = load_faces(_other(tmp_path), CPU, print)[0]
    face = Face("", other.ws([0], 1.0), other.noise([0]))
    save_latents(foreign, other.G, backend.Latents(face.ws, face.noise))
    damaged.write_bytes(b"PK" + bytes(100))
    with open(large, "wb") as file:
        file.truncate(MAX_MB * 2**20 + 1)
    for path, key, said in (
        (text, "no_photo", texts.reason("not an image", language)),
        (small, "no_photo", texts.reason("too small: 8 x 8 px", language)),
        (foreign, "no_styles", ""),
        (damaged, "no_styles", ""),
        (large, "too_large", str(MAX_MB)),
    ):
        with pytest.raises(RefusalError) as refusal:
            answers.upload(0, print, path, (3, 4), language, *TOUCHED)
        message = str(refusal.value)
        assert message == texts.say(key, language, said)
        assert str(tmp_path) not in message
        assert not path.exists()


def _other(folder: Path) -> Path:
    path = folder / "other.pt"
    checkpoint.save(path, CONFIG, {"G_ema": generator(77).state_dict()})
    return path


def test_seeds_out_of_range_are_refused_and_none_leaves_the_face(answers: Answers) -> None:
    for seed in (-1, 2**31):
        with pytest.raises(RefusalError, match=r"0 to 2,147,483,647"):
            answers.choose(0, seed, (3, 4), ENGLISH, *TOUCHED)
    with pytest.raises(RefusalError, match=r"0 a 2\.147\.483\.647"):
        answers.all_faces((3, 4), SPANISH, *values(noise_seed=-5))
    assert answers.choose(0, None, (3, 4), ENGLISH, *TOUCHED)[:2] == ((3, 4), 3)
    assert answers.choose(1, 9.0, (3, 4), ENGLISH, *TOUCHED)[:2] == ((3, 9), 9)


def test_another_face_is_drawn_by_a_seed_that_is_shown(answers: Answers, made: Studio) -> None:
    pair, seed, a, *_ = answers.draw(0, (3, 4), ENGLISH, *TOUCHED)
    assert pair == (seed, 4)
    assert a == answers.all_faces(pair, ENGLISH, *TOUCHED)[0]


def test_time_steps_through_the_snapshots_with_the_same_faces(
    answers: Answers, made: Studio
) -> None:
    first, last = (answers.at(stop, (3, 4), ENGLISH, *TOUCHED) for stop in (0, 2))
    assert "after 4,000 iterations, 8 px" in first
    assert "after 12,000 iterations, 64 px" in last
    assert len(pictures(first)) == len(pictures(last)) == 3
    assert "tras 4.000 iteraciones" in answers.at(0, (3, 4), SPANISH, *TOUCHED)
    now = made.at(2, (3, 4), PLAIN)
    assert (now.pictures.shape, now.iteration, now.resolution) == ((3, 3, 64, 64), 12_000, 64)
    assert not torch.equal(now.pictures[0], now.pictures[2])
    brought = Own(made.maker.face(3, PLAIN.face))
    stood_in = made.at(2, (brought, 4), PLAIN)
    assert torch.equal(stood_in.pictures[0], made.at(2, (0, 4), PLAIN).pictures[0])
    assert texts.say("stand_ins", ENGLISH) in answers.at(2, (brought, 4), ENGLISH, *TOUCHED)
    assert [answers.step(by, stop) for by, stop in ((-1, 0), (-1, 2), (1, 1), (1, 2))] == [
        0, 1, 2, 2
    ]  # fmt: skip


def test_a_snapshot_that_is_damaged_is_a_message(answers: Answers, made: Studio) -> None:
    whole = made.snapshots[0].read_bytes()
    made._old.cache_clear()
    try:
        made.snapshots[0].write_bytes(whole[: len(whole) // 2])
        with pytest.raises(RefusalError, match="no picture here"):
            answers.at(0, (3, 4), ENGLISH, *TOUCHED)
    finally:
        made.snapshots[0].write_bytes(whole)


def test_snapshots_are_found_from_any_checkpoint_of_the_run(run: Path, tmp_path: Path) -> None:
    names = ["004000.pt", "008000.pt", "012000.pt"]
    for file in (run / "latest.pt", run / "snapshots" / "008000.pt"):
        assert [path.name for path in snapshots_beside(file)] == names
    assert snapshots_beside(tmp_path / "alone.pt") == []


def test_many_snapshots_are_thinned_evenly(tmp_path: Path) -> None:
    (tmp_path / "snapshots").mkdir()
    for number in range(200):
        (tmp_path / "snapshots" / f"{number:06d}.pt").touch()
    found = [int(path.stem) for path in snapshots_beside(tmp_path / "latest.pt")]
    assert (len(found), found[0], found[-1]) == (backend.STOPS, 0, 199)
    assert max(np.diff(found)) - min(np.diff(found)) <= 1


def test_a_name_cannot_become_html() -> None:
    html = figure(torch.zeros(3, 4, 4, dtype=torch.uint8), "Face", '<b>"me"')
    assert "<b>" not in html
    assert "&lt;b&gt;&quot;me&quot;" in html


def test_every_text_is_there_in_both_languages() -> None:
    for key, said in (TEXTS | {slider.name: slider.label for slider in SLIDERS}).items():
        assert len(said) == len(LANGUAGES), key
        assert all(said), key
        assert len({text.count("{}") for text in said}) == 1, key
    assert texts.preferred("es-PE,es;q=0.9,en;q=0.8") == SPANISH
    assert texts.preferred("fr,en;q=0.5") == texts.preferred("") == ENGLISH
