"""SHA-256 of what the scripts compute: shows that a change of the code changes no number.

    python -m benchmarks.hashes before.txt --checkout FOLDER_OF_THE_OLD_CODE
    python -m benchmarks.hashes after.txt
    diff before.txt after.txt

Compare on one machine: other processors round differently. Small networks are trained for 60
iterations, stopped and resumed half-way, with every loss, augmentation and precision, growing and
not; every kind of picture and figure is made from weights/faces64.pt.
"""

import hashlib
import itertools
import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import torch

from common.cli import Parser

ROOT = Path(__file__).parent.parent
EXAMPLES = "  python -m benchmarks.hashes after.txt"
SMALL = "--max_size 32 --width 0.0625 --batch 8 --phase 90 --r1_every 4 --sample_every 1000"
TRAINED = [
    f"--loss {loss} --augment {augment} --precision {precision} --init_size {size}"
    for loss, augment, precision, size in itertools.product(
        ("r1", "wgan-gp", "rpgan"), ("none", "fixed", "ada"), ("fp32", "bf16"), (8, 32)
    )
]
TRAINED.append("--more_ema --w_dim 24 --mapping_layers 3 --no_mirror --metric_every 30")
PHOTOS = "photos/young/000000.jpg photos/old/000000.jpg"
DRAWN = {  # folder: what fills it, {} being the checkpoint
    "generated_0": "generate.py {} --seeds 0-19 --singles --film webp --frames 3",
    "generated_1": "generate.py {} --seeds 3-5 --psi 1 --precision fp32 --w_out styles.npz"
    " --mix_layers coarse,0-1",
    "generated_2": "generate.py {} --mix 3 5",
    "generated_3": f"generate.py {{}} --mix 3 {PHOTOS.split()[0]}",
    "generated_4": "generate.py {} --mix 3 5 8 --give A:coarse=0.5",
    "generated_5": "generate.py {} --directions --seeds 0-1",
    "generated_6": "generate.py {} --direction 2 --seeds 0-1",
    "styled": "generate.py {} --w_in styles.npz",
    "projected": f"project.py {PHOTOS} {{}} --steps 20",
    "evaluated": "evaluate.py {} faces.lmdb",
}


def main() -> None:
    """Write a line for each hash: the digest, and what it is of."""
    parser = Parser("Hash what the scripts compute.", EXAMPLES)
    parser.add_argument("out", type=Path, metavar="FILE", help="where the hashes go")
    where = "the code that is run (default: this)"
    parser.add_argument("--checkout", type=Path, default=ROOT, metavar="DIR", help=where)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor(os.cpu_count()) as pool:
        folder, run = Path(name), partial(run_script, args.checkout.resolve(), Path(name))
        run("demo/draw_faces.py photos --count 150 --size 64")
        run("prepare_data.py photos/young photos/old faces.lmdb --holdout 60")
        drawn = pool.submit(draw, run, folder, args.checkout.resolve())
        trained = pool.map(partial(train, run, folder), TRAINED)
        lines = sorted([*drawn.result(), *itertools.chain.from_iterable(trained)])
    args.out.write_text("\n".join(lines) + "\n")
    print(f"{args.out}: {len(lines)} hashes")


def run_script(checkout: Path, folder: Path, command: str) -> None:
    """Run a script of a checkout in `folder`, on one thread; RuntimeError if it fails."""
    script, *arguments = command.split()
    done = subprocess.run(
        [sys.executable, str(checkout / script), *arguments],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"{command}: {done.stderr.strip()[-500:]}")


def train(run: partial[None], folder: Path, flags: str) -> list[str]:
    """Train with these flags, stopped half-way, and return the hashes of the whole state."""
    out = f"run {flags}".replace(" ", "_").replace("-", "")
    for iterations in (30, 60):
        own = f"faces.lmdb --out {out} --iterations {iterations} --device cpu"
        run(f"train.py {own} {SMALL} {flags}")
    entries = torch.load(folder / out / "latest.pt", "cpu", weights_only=True)
    parts = {name: value for name, value in entries.items() if isinstance(value, dict)}
    return [f"{digest(value)}  train.py {flags}: {name}" for name, value in parts.items()]


def draw(run: partial[None], folder: Path, checkout: Path) -> list[str]:
    """Make every picture, and return the hashes of the files."""
    lines = []
    for out, command in DRAWN.items():
        command = command.format(checkout / "weights" / "faces64.pt")
        run(f"{command} --out {out} --device cpu")
        for path in sorted((folder / out).iterdir()):
            if path.suffix in {".png", ".webp", ".npz"}:
                lines.append(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {out}/{path.name}")
    figures = json.loads((folder / "evaluated" / "figures.json").read_text())
    for each in (figures["floor"], *(c["figures"] for c in figures["checkpoints"])):
        lines.append(f"{digest(each)}  evaluated: figures")
    return lines


def digest(value: object) -> str:
    """Return the SHA-256 of nested dicts and lists of tensors and numbers."""
    found = hashlib.sha256()
    if isinstance(value, dict):
        found.update("".join(f"{k}={digest(value[k])}" for k in sorted(value, key=str)).encode())
    elif isinstance(value, list | tuple):
        found.update("".join(map(digest, value)).encode())
    elif isinstance(value, torch.Tensor):
        found.update(f"{tuple(value.shape)}{value.dtype}".encode())
        found.update(value.contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    else:
        found.update(repr(value).encode())
    return found.hexdigest()


if __name__ == "__main__":
    main()
