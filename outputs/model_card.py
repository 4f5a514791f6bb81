"""A model card: what a reader of an exported file must know, in Markdown, from what the run holds.

Nothing is guessed: what a run does not tell is said to be unknown. No folder of the machine that
it was trained on is named.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from checkpoints.records import read_log
from checkpoints.run_folder import EVALUATION, FIGURES, average_of, read_config, run_of
from common.cli import UserError
from common.files import replacing
from data.lmdb_format import read_catalogue, reading
from sampling.latents import fingerprint
from sampling.sampler import Faces

UNKNOWN = "unknown"  # the licence, unless one is given; a name that Hugging Face knows
NO_LICENCE = """: nobody has given one. Whoever passes this on must, and the terms under which the
photos were had come first."""
NOT_AT_HAND = "It was not at hand when this was written."
ABOUT = """\
## Intended use

Research, teaching and art: to see what a generator learns from photos of faces, and what each of
two faces gives to a third. Not to deceive, not to pass for a person who exists, not to identify or
to judge anyone.

## Limits

- Pictures are of {resolution} x {resolution} px. They show only what the photos showed: people,
  ages, poses and light that those lack, they lack; what those show too often, they do.
- A face may be much like one in the photos, most of all if those were few{copies}.
- psi near 1 gives variety and now and then no face; near 0 the same mean face again and again.
- The MIT licence is that of the program, not of the photos and not of what was learned from them.
"""


@dataclass(frozen=True)
class Subject:
    """What a card is about: a generator, the file it is from, and the entries stored with it."""

    faces: Faces
    file: Path
    entries: dict[str, Any]

    @property
    def run(self) -> Path:
        """Return the run folder, as far as the file is in one."""
        return run_of(self.file)


def write_card(path: Path, subject: Subject, title: str, licence: str, use: Sequence[str]) -> None:
    """Write the card of an export called `title` to `path`; `use` says how it is used.

    Raises OSError, and UserError for a config.json that cannot be read.
    """
    text = "\n\n".join(
        [
            f"---\nlicense: {licence}\ntags:\n- stylegan\n- faces\n---",
            f"# {' '.join(title.split())}",
            describe(subject),
            "\n".join(use),
            f"## Licence\n\n{licence}{NO_LICENCE if licence == UNKNOWN else ''}",
            "## Data\n\n" + data(subject),
            "## Cost\n\n" + cost(subject),
            "## Metrics\n\n" + metrics(subject),
            ABOUT.format(resolution=subject.faces.stage.resolution, copies=copies(subject)),
        ]
    )
    with replacing(path) as file:
        file.write(text.encode(errors="backslashreplace"))  # names may be bytes that are no text


def describe(subject: Subject) -> str:
    """Return what kind of model it is."""
    config, stage = subject.faces.G.config, subject.faces.stage
    parameters = sum(p.numel() for p in subject.faces.G.parameters()) / 1e6
    fading = f" (the last doubling {stage.alpha:.0%} faded in)" if stage.alpha < 1 else ""
    foreign = " Trained with rosinality/style-based-gan-pytorch." * bool(
        subject.entries.get("foreign")
    )
    return (
        f"A StyleGAN (Karras et al. 2019) of faces at {stage.resolution} px{fading}: "
        f"{parameters:.1f} M parameters, width {config.width:g}, z of {config.z_dim} numbers, w of "
        f"{config.w_dim} for each of {config.num_ws} layers.{foreign} Fingerprint of its "
        f"synthesis: `{fingerprint(subject.faces.G)}`."
    )


def data(subject: Subject) -> str:
    """Return what is known of the photos; of the database itself while it is where it was."""
    config = read_config(subject.run)
    if "lmdb" not in config:
        return "Unknown: no config.json of a run lies beside the checkpoint."
    lmdb = Path(str(config["lmdb"]))
    named = f"The database `{lmdb.name}`, whose digest is `{config.get('data')}`"
    mirrored = "" if config.get("no_mirror") else ", each also mirrored"
    try:
        with reading(lmdb) as txn:
            known = read_catalogue(txn, lmdb)
    except UserError:
        return f"{named}{mirrored}. {NOT_AT_HAND}"
    if known.digest != config.get("data"):
        # A relative path may be another database, as seen from the folder that the card is made in.
        lost = "It has changed since." if lmdb.is_absolute() else NOT_AT_HAND
        return f"{named}{mirrored}. {lost}"
    sources = ", ".join(f"`{source}`" for source in known.sources)
    held_out = f" {known.held_out:,} more were held out." if known.held_out else ""
    return f"{named}: {known.count:,} photos from {sources}{mirrored}.{held_out}"


def cost(subject: Subject) -> str:
    """Return what the training took, as far as the checkpoint and the run's log tell."""
    nimg, iteration = (subject.entries.get(name) for name in ("nimg", "iteration"))
    if not isinstance(nimg, int) or not isinstance(iteration, int):
        return "Unknown: the checkpoint tells no images."
    text = f"{nimg:,} photos shown in {iteration:,} iterations"
    config = read_config(subject.run)
    if config.get("batch"):
        text += f" of {config['batch']} ({config.get('precision')})"
    seconds = training_seconds(subject.run, nimg)
    if seconds is None:
        return f"{text}; in what time is not known."
    where = f" (device {config.get('device')}, CPU threads: {config.get('threads')})"
    return f"{text}: {seconds / 3600:.1f} hours of steps, by the run's log{where}."


def training_seconds(run: Path, nimg: int) -> float | None:
    """Return how long the steps up to `nimg` took by the speeds in a run's log; None without any.

    Each speed is the mean since the record of steps before. Raises OSError.
    """
    seconds, before = 0.0, 0
    for _, record in read_log(run):
        if record is None or record.nimg is None or not record.images_per_second:
            continue
        if record.nimg > nimg:
            break
        seconds += (record.nimg - before) / record.images_per_second
        before = record.nimg
    return seconds if before else None


def read_figures(subject: Subject) -> dict[str, Any]:
    """Return what evaluate.py wrote of the run, or nothing if there is nothing to be read."""
    try:
        return dict(json.loads((subject.run / EVALUATION / FIGURES).read_text()))
    except (OSError, ValueError):
        return {}


def metrics(subject: Subject) -> str:
    """Return a table of the figures of this checkpoint."""
    found = read_figures(subject)
    try:
        wanted = (subject.entries.get("iteration"), average_of(subject.file))
        own = [
            each
            for each in found["checkpoints"]
            if (each["iteration"], average_of(Path(each["file"]))) == wanted
        ]
        names = own[0]["figures"]
        rows = [f"| {n} | {cell(names[n])} | {cell(found['floor'][n])} |" for n in names]
        psi = f"{found['psi']:g}"
    except (KeyError, IndexError, TypeError, ValueError):
        unseen = "The run was measured, but not this checkpoint" if found else "Not measured"
        return f"{unseen} (`python evaluate.py RUN LMDB`)."
    return "\n".join(
        [
            f"By evaluate.py at psi {psi}, with 95 % intervals; floor: what photos that training "
            "never saw get. SWD and KID are in thousandths, and (Lite0) compares within this "
            "program only.",
            "",
            "| figure | value | floor |",
            "|---|---|---|",
            *rows,
        ]
    )


def cell(figure: tuple[float, float]) -> str:
    """Return a value with its interval."""
    value, interval = figure
    return f"{value:.4g} ± {interval:.2g}"


def copies(subject: Subject) -> str:
    """Return how many samples were found to be copies, if that was looked into."""
    try:
        count, of = (int(read_figures(subject)["copies"][name]) for name in ("count", "of"))
    except (KeyError, TypeError, ValueError):
        return ""
    return (
        f": of {of:,} samples of the run's best checkpoint, {count:,} were closer to a photo than "
        "99 % of unseen photos are"
    )
