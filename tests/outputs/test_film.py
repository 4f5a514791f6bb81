"""Films: walks that never end, and a run from its first grid to its last."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from outputs.film import PROGRESS_FRAMES, PROGRESS_HOLD_MS, progress_paths, write_progress


def test_progress_shows_the_run_from_first_to_last_and_holds_the_last(tmp_path: Path) -> None:
    samples = tmp_path / "samples"
    samples.mkdir()
    for i in range(4):
        Image.new("RGB", (24, 16), (60 * i, 0, 0)).save(samples / f"{10**i}00.png")
    (samples / ".000500.png.tmp").write_bytes(b"half")
    write_progress(progress_paths(tmp_path), tmp_path / "progress.webp")
    with Image.open(tmp_path / "progress.webp") as film:
        assert (film.n_frames, film.size) == (4, (24, 16))
        reds = []
        for i in range(4):
            film.seek(i)
            film.load()
            reds.append(np.asarray(film.convert("RGB"))[0, 0, 0])
        assert film.info["duration"] == PROGRESS_HOLD_MS
    assert np.abs(np.subtract(reds, [0, 60, 120, 180])).max() < 12


def test_progress_of_a_long_run_is_thinned_evenly(tmp_path: Path) -> None:
    (tmp_path / "samples").mkdir()
    for i in range(500):
        (tmp_path / "samples" / f"{i:06d}.png").touch()
    shown = [int(path.stem) for path in progress_paths(tmp_path)]
    assert (len(shown), shown[0], shown[-1]) == (PROGRESS_FRAMES, 0, 499)
    assert set(np.diff(shown)) <= {4, 5}


def test_progress_with_a_damaged_grid_names_it(tmp_path: Path) -> None:
    bad = tmp_path / "000100.png"
    bad.write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(OSError, match=r"000100\.png: not a picture"):
        write_progress([bad], tmp_path / "progress.webp")
    assert list(tmp_path.iterdir()) == [bad]
