"""Films: WebP and GIF by Pillow, MP4 by PyAV (pip install av).

What a film shows is decided elsewhere, except for the film of a run's own sample grids.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from checkpoints.run_folder import SAMPLES
from common.images import write_image

FILM_PX = 256  # to which smaller frames are enlarged
FILM_QUALITY = 85  # of WebP
PROGRESS_FRAMES = 120  # at most, evenly spaced over the run
PROGRESS_MS = 100  # of each frame but the last
PROGRESS_HOLD_MS = 3000  # of the last frame
PROGRESS_QUALITY = 60  # 120 grids of 4 x 8 faces of 64 px: 2.7 MB, at 85 4.4 MB
PROGRESS_PX = 1080  # to which larger grids are reduced


def write_film(frames: Sequence[Image.Image], path: Path, fps: int) -> None:
    """Write frames of one size as a looping film, in the format of `path`'s suffix.

    Raises OSError; `path` is never half a file.
    """
    if path.suffix == ".mp4":
        _write_mp4(frames, path, fps)
    else:
        write_animation(frames, path, [1000 / fps] * len(frames), FILM_QUALITY)


def write_animation(
    frames: Sequence[Image.Image], path: Path, milliseconds: Sequence[float], quality: int
) -> None:
    """Write frames of one size as a looping .webp or .gif, each shown for its `milliseconds`.

    `quality` is that of WebP, 0 to 100.
    """
    first, *rest = frames
    options = {"quality": quality, "method": 4} if path.suffix == ".webp" else {}
    duration = list(milliseconds)
    write_image(
        first, path, save_all=True, append_images=rest, duration=duration, loop=0, **options
    )


def _write_mp4(frames: Sequence[Image.Image], path: Path, fps: int) -> None:
    """Write an .mp4 that any browser plays: H.264, 4:2:0, even width and height."""
    import av

    partial = path.with_name(f".{path.name}.tmp")
    try:
        partial.unlink(missing_ok=True)
        with av.open(str(partial), "w", format="mp4") as container:
            stream = container.add_stream("libx264", rate=fps, options={"crf": "18"})
            stream.width, stream.height = (side - side % 2 for side in frames[0].size)
            stream.pix_fmt = "yuv420p"
            for frame in frames:
                container.mux(stream.encode(av.VideoFrame.from_image(frame)))
            container.mux(stream.encode())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def enlarge(image: Image.Image, side: int) -> Image.Image:
    """Return an image enlarged by the smallest whole factor to a width of at least `side` px."""
    times = -(-side // image.width)
    size = (image.width * times, image.height * times)
    return image if times == 1 else image.resize(size, Image.Resampling.BICUBIC)


def progress_paths(run: Path) -> list[Path]:
    """Return the sample grids of a run for its film, among them the first and the last.

    Raises OSError if there is none.
    """
    found = [path for path in (run / SAMPLES).glob("*.png") if path.stem.isdecimal()]
    if not found:
        raise OSError(f"{run / 'samples'}: no sample grids; expected those of a run of train.py")
    found.sort(key=lambda path: int(path.stem))
    count = min(len(found), PROGRESS_FRAMES)
    return [found[i * (len(found) - 1) // max(1, count - 1)] for i in range(count)]


def write_progress(paths: Sequence[Path], path: Path) -> None:
    """Write the film of a run: its sample grids in order, the last one held longer."""
    frames = [_read_sheet(sheet) for sheet in paths]
    size = frames[-1].size
    frames = [frame if frame.size == size else frame.resize(size) for frame in frames]
    milliseconds = [PROGRESS_MS] * (len(frames) - 1) + [PROGRESS_HOLD_MS]
    write_animation(frames, path, milliseconds, PROGRESS_QUALITY)


def _read_sheet(path: Path) -> Image.Image:
    """Return a sample grid in RGB, its longer side at most PROGRESS_PX. Raises OSError."""
    try:
        with Image.open(path) as image:
            sheet = image.convert("RGB")
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise OSError(f"{path}: not a picture that can be read ({error}); remove it") from error
    sheet.thumbnail((PROGRESS_PX, PROGRESS_PX), Image.Resampling.LANCZOS)
    return sheet
