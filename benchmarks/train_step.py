"""Images/s of whole training steps: data, D, G, R1 at its true share, both optimizers, EMA."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import common
from common.cli import integer, number, resolution

EXAMPLES = """  python -m benchmarks.train_step --width 0.25
  python -m benchmarks.train_step --batch 16 --peer style-based-gan-pytorch --json speed.json

A share is that of the fastest 3 x 3 convolution on this machine, in the same precision, in the same
run. Counted are convolutions and matrix products that torch.utils.flop_counter sees: those in
compiled code it may not. Ratios: the median of the rounds, the least and the largest."""


def read_arguments() -> argparse.Namespace:
    """Return the flags."""
    parser = common.parser("Measure images/s of training, and the share of the peak.", EXAMPLES)
    add = parser.add_argument
    width = number(0, 4, above=True)
    add("--width", type=width, nargs="+", default=[1, 0.25], metavar="X", help="as in train.py")
    add("--batch", type=integer(2, 4096), default=8, metavar="N", help="images an iteration")
    add("--resolution", type=resolution, default=64, metavar="PX", help="of the images")
    return parser.parse_args()


def measure(width: float, args: argparse.Namespace, database: Path) -> dict[str, Any]:
    """Return the figures of one width, but for the shares."""
    from benchmarks.ours import OurTraining
    from benchmarks.peer import PeerTraining

    size = args.resolution
    sides: dict[str, OurTraining | PeerTraining] = {
        "ours": OurTraining(database, width, args.batch, size, size)
    }
    if args.peer:
        sides["peer"] = PeerTraining(args.peer, database, width, args.batch, size)
    flops = {name: side.flops() for name, side in sides.items()}  # and so all is warm
    clocks: dict[str, common.Clock] = {name: side.seconds for name, side in sides.items()}
    seconds = common.paired(clocks, args.rounds)
    figures = common.compare(seconds, args.batch)
    for name, side in sides.items():
        figures[f"{name}_gflop_per_image"] = flops[name] / args.batch / 1e9
        figures[f"{name}_dtype"] = str(side.dtype).removeprefix("torch.")
    return figures


def add_shares(figures: dict[str, Any], peaks: dict[str, float]) -> None:
    """Add what part of the peak each side reaches."""
    for name, key in (("ours", "share"), ("peer", "peer_share")):
        if name in figures:
            rate = figures[name] * figures[f"{name}_gflop_per_image"]
            figures[key] = rate / peaks[figures[f"{name}_dtype"]]


def row(width: float, figures: dict[str, Any]) -> list[str | None]:
    """Return one row of the table."""
    ours, peer, ratio = common.cells(figures)
    work = [f"{figures['ours_gflop_per_image']:.1f}", f"{figures['share']:.2f}"]
    if peer is None:
        return [f"{width:g}", ours, *work, None, None, None, None]
    peer_work = [f"{figures['peer_gflop_per_image']:.1f}", f"{figures['peer_share']:.2f}"]
    return [f"{width:g}", ours, *work, peer, *peer_work, ratio]


def main() -> None:
    """Measure, print a table and write the figures."""
    args = read_arguments()
    import torch

    kinds = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    before = {name: common.convolution_peak(dtype) for name, dtype in kinds.items()}
    with tempfile.TemporaryDirectory() as folder:
        database = common.draw_database(Path(folder) / "faces", 256, [args.resolution])
        widths = {width: measure(width, args, database) for width in args.width}
    after = {name: common.convolution_peak(dtype) for name, dtype in kinds.items()}
    peaks = {name: max(before[name], after[name]) / 1e9 for name in kinds}
    for figures in widths.values():
        add_shares(figures, peaks)
    header = ["width", "ours/s", "GFLOP", "share", "peer/s", "GFLOP", "share", "ratio"]
    lines = [
        f"training, {args.resolution} px, batch {args.batch}, {torch.get_num_threads()} threads; "
        f"peak {', '.join(f'{peak:.0f} GFLOP/s ({name})' for name, peak in peaks.items())}",
        common.table(header, [row(width, figures) for width, figures in widths.items()]),
    ]
    by_width = {f"width_{width:g}": figures for width, figures in widths.items()}
    common.finish(args, "\n".join(lines), {"peak_gflops": peaks, **by_width})


if __name__ == "__main__":
    main()
