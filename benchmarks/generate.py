"""Seconds of the whole process of generate.py for 64 samples and a mixing grid of 8 x 8."""

import argparse
import tempfile
from functools import partial
from pathlib import Path

from benchmarks import harness

EXAMPLES = """  python -m benchmarks.generate
  python -m benchmarks.generate --peer style-based-gan-pytorch --json generate.json

The generators are untrained, which makes no difference to the time. The peer has one width only."""


def parse_args() -> argparse.Namespace:
    """Return the flags."""
    text = "Measure generate.py: 64 samples and one mixing grid."
    return harness.parser(text, EXAMPLES, width=1.0, resolution=64).parse_args()


def our_checkpoint(path: Path, args: argparse.Namespace) -> None:
    """Write a snapshot of an untrained generator."""
    from checkpoints import checkpoint
    from model import Generator, ModelConfig, Stage

    config = ModelConfig.of(args.resolution, args.width)
    entries = {"G_ema": Generator(config).state_dict(), "iteration": 0, "nimg": 0}
    checkpoint.save(path, config, {**entries, "stage": list(Stage(args.resolution, 1.0))})


def commands(args: argparse.Namespace, folder: Path) -> dict[str, list[object]]:
    """Write a checkpoint for each side, and return the command that it runs."""
    ours, peers = folder / "ours.pt", folder / "peer.model"
    our_checkpoint(ours, args)
    script: list[object] = [harness.ROOT / "generate.py", ours, "--out", folder / "ours"]
    script += ["--seeds", "0-63", "--mix_seeds", "64-71", "72-79", "--mix_layers", "coarse"]
    sides: dict[str, list[object]] = {"ours": script}
    if args.peer:
        peer: list[object] = ["-m", "benchmarks.peer", args.peer]
        harness.seconds_of([*peer, "checkpoint", peers], folder)
        flags = ["--size", args.resolution, "--n_row", 8, "--n_col", 8]
        sides["peer"] = [*peer, "generate", *flags, peers]
    return sides


def main() -> None:
    """Measure, print a table and write the results."""
    args = parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        runs = {
            side: partial(harness.seconds_of, command, folder)
            for side, command in commands(args, folder).items()
        }
        result = harness.compare(harness.alternate(runs, args.rounds))
    shown = f"generate.py, width {args.width:g}, {args.resolution} px, whole process"
    lines = harness.table(["ours, s", "peer, s", "ratio"], [harness.cells(result)])
    harness.report(args, f"{shown}\n{lines}", result)


if __name__ == "__main__":
    main()
