"""SHA-256 of what the scripts compute: to prove that a change of the code changes no number.

    python -m benchmarks.hashes before.txt --checkout PATH_OF_THE_OLD_CODE
    python -m benchmarks.hashes after.txt
    diff before.txt after.txt

Both on one machine: another processor rounds differently. Trained are small networks for 60
iterations, stopped and resumed half-way, with every loss, augmentation and precision, growing and
not; drawn is every kind of picture and figure from weights/faces64.pt.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

ROOT = Path(__file__).parent.parent
FACES = 150  # of each of the two drawn sets
HELD_OUT = 60
ITERATIONS = 60
SMALL = "--max_size 32 --width 0.0625 --batch 8 --phase 90 --r1_every 4 --sample_every 1000"
LOSSES, AUGMENTS = ("r1", "wgan-gp", "rpgan"), ("none", "fixed", "ada")
PRECISIONS, FIRST_SIZES = ("fp32", "bf16"), (8, 32)
PHOTOS = "photos/young/000000.jpg photos/old/000000.jpg"
GENERATE = (
    "--seeds 0-19 --singles --film webp --frames 3",
    "--seeds 3-5 --psi 1 --precision fp32 --w_out styles.npz --mix_layers coarse,0-1",
    "--mix 3 5",
    f"--mix 3 {PHOTOS.split()[0]}",
    "--mix 3 5 8 --give A:coarse=0.5",
    "--directions --seeds 0-1",
    "--direction 2 --seeds 0-1",
)


def main() -> None:
    """Write one line for each hash: the digest, and what it is of."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("out", type=Path, metavar="FILE", help="one line for each hash")
    where = "the code that is run (default: this)"
    parser.add_argument("--checkout", type=Path, default=ROOT, metavar="DIR", help=where)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        lines = list(Scripts(args.checkout.resolve(), Path(folder)).hashes())
    args.out.write_text("".join(f"{line}\n" for line in sorted(lines)))
    print(f"{args.out}: {len(lines)} hashes")


class Scripts:
    """The scripts of a checkout, run in a folder."""

    def __init__(self, checkout: Path, folder: Path) -> None:
        self.checkout, self.folder = checkout, folder

    def run(self, script: str, arguments: str) -> None:
        """Run a script on one thread; RuntimeError with what it said if it fails."""
        done = subprocess.run(
            [sys.executable, str(self.checkout / script), *arguments.split()],
            cwd=self.folder,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise RuntimeError(f"{script} {arguments}: {done.stderr.strip()[-500:]}")

    def hashes(self) -> Iterator[str]:
        """Yield a line for each hash."""
        self.run("demo/draw_faces.py", f"photos --count {FACES} --size 64")
        self.run("prepare_data.py", f"photos/young photos/old faces.lmdb --holdout {HELD_OUT}")
        cases = [*itertools.product(LOSSES, AUGMENTS, PRECISIONS, FIRST_SIZES)]
        flags = [
            f"--loss {loss} --augment {augment} --precision {precision} --init_size {size}"
            for loss, augment, precision, size in cases
        ]
        flags.append("--more_ema --w_dim 24 --mapping_layers 3 --no_mirror --metric_every 30")
        work = [self.pictures, *map(self.trained, flags)]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for lines in pool.map(lambda each: each(), work):
                yield from lines

    def trained(self, flags: str) -> Callable[[], list[str]]:
        """Return what trains with these flags, stopped half-way, and returns the hashes."""

        def train() -> list[str]:
            out = f"run {flags}".replace(" ", "_").replace("-", "")
            for iterations in (ITERATIONS // 2, ITERATIONS):
                own = f"faces.lmdb --out {out} --iterations {iterations} --device cpu"
                self.run("train.py", f"{own} {SMALL} {flags}")
            entries = torch.load(self.folder / out / "latest.pt", "cpu", weights_only=True)
            parts = {name: value for name, value in entries.items() if isinstance(value, dict)}
            return [f"{digest(value)}  train.py {flags}: {n}" for n, value in parts.items()]

        return train

    def pictures(self) -> list[str]:
        """Return the hashes of all files that are made from one checkpoint."""
        checkpoint = self.checkout / "weights" / "faces64.pt"
        lines = []
        for number, flags in enumerate(GENERATE):
            out = f"generated_{number}"
            self.run("generate.py", f"{checkpoint} --out {out} --device cpu {flags}")
            lines += self.files(out, f"generate.py {flags}")
        lines += [f"{file_digest(self.folder / 'styles.npz')}  generate.py --w_out: styles.npz"]
        self.run("generate.py", f"{checkpoint} --out styled --device cpu --w_in styles.npz")
        lines += self.files("styled", "generate.py --w_in")
        self.run("project.py", f"{PHOTOS} {checkpoint} --out projected --device cpu --steps 20")
        lines += self.files("projected", "project.py")
        self.run("evaluate.py", f"{checkpoint} faces.lmdb --out evaluated --device cpu")
        figures = json.loads((self.folder / "evaluated" / "figures.json").read_text())
        lines += [f"{len(figures['floor'])} figures  evaluate.py"]
        return lines + self.files("evaluated", "evaluate.py")

    def files(self, folder: str, made_by: str) -> list[str]:
        """Return the hash of each picture and file of styles or figures in a folder."""
        kinds = {".png", ".webp", ".npz", ".json"}
        found = sorted(p for p in (self.folder / folder).iterdir() if p.suffix in kinds)
        return [f"{file_digest(path)}  {made_by}: {path.name}" for path in found]


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file; of figures without the path of the checkpoint."""
    if path.suffix == ".json":
        record = json.loads(path.read_text())
        found = [each["figures"] for each in record["checkpoints"]]
        return hashlib.sha256(json.dumps([record["floor"], found]).encode()).hexdigest()
    return hashlib.sha256(path.read_bytes()).hexdigest()


def digest(value: object) -> str:
    """Return the SHA-256 of nested dicts and lists of tensors and numbers."""
    found = hashlib.sha256()

    def add(name: str, value: object) -> None:
        if isinstance(value, torch.Tensor):
            found.update(f"{name}{tuple(value.shape)}{value.dtype}".encode())
            found.update(value.contiguous().view(-1).view(torch.uint8).numpy().tobytes())
        elif isinstance(value, dict):
            for key in sorted(value, key=str):
                add(f"{name}.{key}", value[key])
        elif isinstance(value, list | tuple):
            for place, each in enumerate(value):
                add(f"{name}.{place}", each)
        else:
            found.update(f"{name}={value!r}".encode())

    add("", value)
    return found.hexdigest()


if __name__ == "__main__":
    main()
