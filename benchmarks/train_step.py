"""Images/s of whole training steps: data, D, G, as much R1 as in training, optimizers, EMA."""

import argparse
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import harness

EXAMPLES = """  python -m benchmarks.train_step --width 0.25
  python -m benchmarks.train_step --batch 16 --peer style-based-gan-pytorch --json speed.json

A share is of the FLOP/s of the fastest 3 x 3 convolution on this machine, in the same precision and
the same run. Only convolutions and matrix products that torch.utils.flop_counter sees are counted,
which may exclude compiled code. Ratios are the median of the rounds (smallest-largest)."""


def parse_args() -> argparse.Namespace:
    """Return the flags."""
    text = "Measure images/s of training, and the share of the peak."
    return harness.parser(text, EXAMPLES, width=[1, 0.25], batch=8, resolution=64).parse_args()


def measure(width: float, args: argparse.Namespace, database: Path) -> dict[str, Any]:
    """Return the results of one width, without the shares."""
    from benchmarks.ours import OurTraining
    from benchmarks.peer import PeerTraining

    size = args.resolution
    sides: dict[str, OurTraining | PeerTraining] = {
        "ours": OurTraining(database, width, args.batch, size, size)
    }
    if args.peer:
        sides["peer"] = PeerTraining(args.peer, database, width, args.batch, size)
    flops = {name: side.flops() for name, side in sides.items()}  # this also warms them up
    timers: dict[str, harness.Timer] = {name: side.seconds for name, side in sides.items()}
    seconds = harness.alternate(timers, args.rounds)
    result = harness.compare(seconds, args.batch)
    for name, side in sides.items():
        result[f"{name}_gflop_per_image"] = flops[name] / args.batch / 1e9
        result[f"{name}_dtype"] = str(side.dtype).removeprefix("torch.")
    return result


def add_shares(result: dict[str, Any], peaks: dict[str, float]) -> None:
    """Add the share of the peak that each side reaches."""
    for name, key in (("ours", "share"), ("peer", "peer_share")):
        if name in result:
            rate = result[name] * result[f"{name}_gflop_per_image"]
            result[key] = rate / peaks[result[f"{name}_dtype"]]


def row(width: float, result: dict[str, Any]) -> list[str | None]:
    """Return one row of the table."""
    ours, peer, ratio = harness.cells(result)
    work = [f"{result['ours_gflop_per_image']:.1f}", f"{result['share']:.2f}"]
    if peer is None:
        return [f"{width:g}", ours, *work, None, None, None, None]
    peer_work = [f"{result['peer_gflop_per_image']:.1f}", f"{result['peer_share']:.2f}"]
    return [f"{width:g}", ours, *work, peer, *peer_work, ratio]


def main() -> None:
    """Measure, print a table and write the results."""
    args = parse_args()
    import torch

    kinds = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    before = {name: harness.convolution_peak(dtype) for name, dtype in kinds.items()}
    with tempfile.TemporaryDirectory() as folder:
        database = harness.draw_database(Path(folder) / "faces", 256, [args.resolution])
        widths = {width: measure(width, args, database) for width in args.width}
    after = {name: harness.convolution_peak(dtype) for name, dtype in kinds.items()}
    peaks = {name: max(before[name], after[name]) / 1e9 for name in kinds}
    for result in widths.values():
        add_shares(result, peaks)
    header = ["width", "ours/s", "GFLOP", "share", "peer/s", "GFLOP", "share", "ratio"]
    lines = [
        f"training, {args.resolution} px, batch {args.batch}, {torch.get_num_threads()} threads; "
        f"peak {', '.join(f'{peak:.0f} GFLOP/s ({name})' for name, peak in peaks.items())}",
        harness.table(header, [row(width, result) for width, result in widths.items()]),
    ]
    by_width = {f"width_{width:g}": result for width, result in widths.items()}
    harness.report(args, "\n".join(lines), {"peak_gflops": peaks, **by_width})


if __name__ == "__main__":
    main()
