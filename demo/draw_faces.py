"""Draw two sets of cartoon faces, to try everything without any photos.

The faces in young/ are alike, as ID photos are; those in old/ are varied. faces.csv lists the
factors of each picture.
"""

import argparse
import colorsys
import csv
import io
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NoReturn

import numpy as np
from canvas import Colour, Face, Traits, mix
from PIL import Image
from portrait import draw
from tqdm import tqdm

SETS = ("young", "old")
FACTORS = ("age", "skin", "hair", "hair_style", "pose", "glasses", "hat", "smile", "background")
ALLOWED = {"count": (1, 1_000_000), "size": (32, 1024), "seed": (0, 2**63), "workers": (1, 256)}
EXAMPLES = """examples:
  python demo/draw_faces.py demo/out
  python demo/draw_faces.py demo/out/few --count 200 --size 64 --seed 7
"""


def hexed(colour: Colour) -> str:
    """Return a colour of numbers in 0..1 as #rrggbb."""
    return "#" + "".join(f"{round(255 * min(max(c, 0.0), 1.0)):02x}" for c in colour)


def hsv(rng: np.random.Generator, low: Colour, high: Colour) -> Colour:
    """Return a colour whose hue, saturation and value are drawn between low and high."""
    h, s, v = (float(n) for n in rng.uniform(low, high))
    return colorsys.hsv_to_rgb(h % 1, s, v)


def pick(rng: np.random.Generator, words: str, weights: tuple[float, ...] | None = None) -> str:
    """Return one of the words at random."""
    return str(rng.choice(words.split(), p=weights))


def between(rng: np.random.Generator, low: float, high: float) -> float:
    """Return a random number between low and high."""
    return float(rng.uniform(low, high))


def bell(rng: np.random.Generator, mean: float, std: float, low: float, high: float) -> float:
    """Return a normally distributed number, clipped to low..high."""
    return float(np.clip(rng.normal(mean, std), low, high))


def sample_young(rng: np.random.Generator) -> Face:
    """Return a face as in ID photos: white background, dark hair, brown skin, frontal."""
    woman = rng.random() < 0.5
    style = pick(
        rng,
        "long bob bun" if woman else "short side curly",
        (0.45, 0.25, 0.3) if woman else (0.5, 0.35, 0.15),
    )
    feminine = bell(rng, 0.85 if woman else 0.15, 0.1, 0, 1)
    traits = Traits(
        feminine=feminine,
        width=bell(rng, 0.437 - 0.01 * feminine, 0.010, 0.41, 0.46),
        jaw=bell(rng, 0.24 + 0.08 * feminine, 0.03, 0.18, 0.4),
        eye=bell(rng, 1.0 + 0.06 * feminine, 0.05, 0.9, 1.15),
        nose=bell(rng, 1.05 - 0.12 * feminine, 0.06, 0.85, 1.2),
        lips=bell(rng, 1.05 + 0.1 * feminine, 0.10, 0.8, 1.35),
        brow=bell(rng, 1.0, 0.1, 0.75, 1.25),
        iris=hsv(rng, (0.05, 0.5, 0.18), (0.08, 0.7, 0.34)),
        roll=bell(rng, 0, 0.012, -0.03, 0.03),
        pitch=bell(rng, 0, 0.15, -0.4, 0.4),
        light=-0.45,
        clothes=hsv(rng, (0.5, 0.05, 0.15), (0.72, 0.5, 0.6)),
        collar=pick(rng, "round vee shirt"),
        backdrop="white",
        texture=int(rng.integers(1 << 30)),
    )
    return Face(
        age=int(rng.integers(18, 25)),
        skin=round(bell(rng, 0.46, 0.07, 0.28, 0.62), 3),
        hair=hexed(hsv(rng, (0.03, 0.15, 0.10), (0.08, 0.5, 0.22))),
        hair_style=style,
        pose=round(bell(rng, 0, 0.07, -0.2, 0.2), 3),
        glasses=0,
        hat=0,
        smile=round(bell(rng, 0.18, 0.22, -0.3, 0.75), 3),
        background="#ffffff",
        traits=traits,
    )


def old_hair(rng: np.random.Generator, age: int) -> str:
    """Return a hair colour that greys with age, unless dyed."""
    grown = hsv(rng, (0.04, 0.3, 0.15), (0.11, 0.65, 0.6))
    v = between(rng, 0.55, 0.95)
    grey = (v, v * between(rng, 0.96, 1.0), v * between(rng, 0.90, 1.02))
    dyed = rng.random() < 0.12
    return hexed(mix(grown, grey, 0.1 if dyed else bell(rng, 0.5 + (age - 56) / 45, 0.2, 0.25, 1)))


def old_traits(rng: np.random.Generator, feminine: float) -> Traits:
    """Return traits that vary widely."""
    bearded = feminine < 0.5 and rng.random() < 0.4
    brown = hsv(rng, (0.05, 0.5, 0.22), (0.11, 0.7, 0.45))
    blue = hsv(rng, (0.45, 0.15, 0.4), (0.62, 0.5, 0.6))
    return Traits(
        feminine=feminine,
        width=bell(rng, 0.44, 0.018, 0.39, 0.485),
        jaw=bell(rng, 0.22 + 0.06 * feminine, 0.06, 0.08, 0.4),
        eye=bell(rng, 0.95, 0.07, 0.8, 1.12),
        nose=bell(rng, 1.12 - 0.15 * feminine, 0.10, 0.85, 1.4),
        lips=bell(rng, 1.0, 0.15, 0.7, 1.4),
        brow=bell(rng, 1.05, 0.2, 0.6, 1.5),
        beard=between(rng, 0.2, 1.0) if bearded else 0.0,
        iris=brown if rng.random() < 0.5 else blue,
        roll=bell(rng, 0, 0.07, -0.17, 0.17),
        pitch=bell(rng, 0, 0.45, -1, 1),
        light=float(rng.choice((-1, 1))) * between(rng, 0.35, 1.0),
        clothes=hsv(rng, (0.0, 0.1, 0.2), (1.0, 0.65, 0.85)),
        collar=pick(rng, "round vee shirt"),
        backdrop=pick(rng, "plain gradient lights wall garden"),
        hat_colour=hsv(rng, (0.0, 0.1, 0.25), (1.0, 0.6, 0.8)),
        hat_kind=pick(rng, "beanie brim cap"),
        glasses_kind=pick(rng, "round square oval"),
        earrings=bool(feminine > 0.5 and rng.random() < 0.6),
        texture=int(rng.integers(1 << 30)),
    )


def sample_old(rng: np.random.Generator) -> Face:
    """Return a face as in a varied collection: ages 56 to 85, any background, hat or glasses."""
    woman = rng.random() < 0.5
    styles = "curly bob bun long short" if woman else "bald receding short side curly"
    age = int(rng.integers(56, 86))
    return Face(
        age=age,
        skin=round(bell(rng, 0.74, 0.16, 0.2, 1.0), 3),
        hair=old_hair(rng, age),
        hair_style=pick(rng, styles),
        pose=round(bell(rng, 0, 0.5, -1, 1), 3),
        glasses=int(rng.random() < 0.4),
        hat=int(rng.random() < 0.2),
        smile=round(bell(rng, 0.15, 0.55, -1, 1), 3),
        background=hexed(hsv(rng, (0.0, 0.06, 0.3), (1.0, 0.5, 0.92))),
        traits=old_traits(rng, bell(rng, 0.8 if woman else 0.15, 0.12, 0, 1)),
    )


def sample(seed: int, kind: str, index: int) -> Face:
    """Return face `index` of a set, whatever was drawn before."""
    rng = np.random.default_rng((seed, SETS.index(kind), index))
    return sample_young(rng) if kind == "young" else sample_old(rng)


def draw_file(task: tuple[Path, int, int, str, int]) -> None:
    """Write the picture of one face; task is (folder, size, seed, set, index)."""
    out, size, seed, kind, index = task
    # At 64 px, halved chroma would smear lips and irises.
    picture = draw(sample(seed, kind, index), size)
    picture.save(out / kind / f"{index:06d}.jpg", quality=95, subsampling=0)


def table(count: int, seed: int) -> str:
    """Return the text of faces.csv."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["file", "set", *FACTORS])
    for kind in SETS:
        for i in range(count):
            face = sample(seed, kind, i)
            row = [getattr(face, name) for name in FACTORS]
            writer.writerow([f"{kind}/{i:06d}.jpg", kind, *row])
    return text.getvalue()


def is_drawn(out: Path, rows: str, size: int) -> bool:
    """Return whether `out` already holds these faces; raise FileExistsError if it holds others."""
    names = {line.split(",")[0] for line in rows.splitlines()[1:]}
    found = {f"{p.parent.name}/{p.name}" for kind in SETS for p in (out / kind).glob("*")}
    csv_file = out / "faces.csv"
    same = found <= names and (not csv_file.exists() or csv_file.read_text() == rows)
    if same and found:
        with Image.open(out / sorted(found)[0]) as picture:
            same = picture.size == (size, size)
    if not same:
        raise FileExistsError(
            f"{out}: holds other faces; expected an empty folder, or faces of the same --count, "
            "--size and --seed. Give another OUT, or delete this one"
        )
    return csv_file.exists() and found == names


def draw_all(out: Path, count: int, size: int, seed: int, workers: int) -> None:
    """Draw both sets into `out` with `workers` processes."""
    for kind in SETS:
        (out / kind).mkdir(parents=True, exist_ok=True)
    tasks: Iterator = ((out, size, seed, kind, i) for kind in SETS for i in range(count))
    with ProcessPoolExecutor(workers) as pool:
        drawn = pool.map(draw_file, tasks, chunksize=16)
        for _ in tqdm(drawn, total=2 * count, unit="face", disable=None):
            pass


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """Exit with 2."""
        self.exit(2, f"{self.prog}: error: {message}\n")


class Help(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Help with defaults, and with the examples as written."""


def whole(text: str) -> int:
    """Parse a whole number."""
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None


def parse_args() -> argparse.Namespace:
    """Return the flags."""
    parser = Parser(
        description=(__doc__ or "").split("\n")[0], epilog=EXAMPLES, formatter_class=Help
    )
    add = parser.add_argument
    add("out", type=Path, metavar="OUT", help="folder to fill: young/, old/ and faces.csv")
    add("--count", type=whole, default=2500, metavar="FACES", help="faces in each of the two sets")
    add("--size", type=whole, default=128, metavar="PX", help="side of the square pictures")
    add("--seed", type=whole, default=0, metavar="N", help="another seed draws other faces")
    cores = os.cpu_count() or 1
    add("--workers", type=whole, default=cores, metavar="N", help="processes to draw with")
    args = parser.parse_args()
    for name, (low, high) in ALLOWED.items():
        if not low <= getattr(args, name) <= high:
            parser.error(f"--{name}: is {getattr(args, name)}; expected {low} to {high}")
    return args


def main() -> int:
    """Draw the faces that the flags ask for; return the exit code."""
    args = parse_args()
    try:
        rows = table(args.count, args.seed)
        reused = is_drawn(args.out, rows, args.size)
        if not reused:
            draw_all(args.out, args.count, args.size, args.seed, args.workers)
            (args.out / "faces.csv").write_text(rows)
    except OSError as error:
        print(f"draw_faces.py: error: {error}", file=sys.stderr)
        return 1
    verb = "reused" if reused else "drew"
    print(f"{verb} {args.count} young and {args.count} old faces, {args.size} px, in {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
