"""A model card: what the user of an exported file must know, in Markdown, from the run's own files.

Nothing is guessed: the card says what is unknown. It names no folder of the training machine.
"""

import json
from pathlib import Path
from typing import Any

from checkpoints.records import read_log
from checkpoints.run_folder import EVALUATION, FIGURES, average_of, read_config
from common.cli import UserError
from common.files import replacing
from data.lmdb_format import read_catalogue, reading
from sampling.latents import fingerprint
from sampling.sampler import Loaded

UNKNOWN = "unknown"  # the default licence; Hugging Face knows this name
NO_LICENCE = """: none has been chosen. Choose one before you pass this file on; it must comply with
the terms of the photos."""
NOT_AT_HAND = "It was not available when this card was written."
CARD = """\
---
license: {licence}
tags:
- stylegan
- faces
---

# {title}

{description}

{use}

## Licence

{licence}{no_licence}

## Data

{data}

## Cost

{cost}

## Metrics

{metrics}

## Intended use

Research, teaching and art: to see what a generator learns from photos of faces, and what each of
two faces gives to a third. Not for deception, impersonation, identification or judging people.

## Limits

- Pictures are {resolution} x {resolution} px. They reflect the photos: people, ages, poses and
  lighting that are missing or too frequent there are missing or too frequent here.
- A face may closely resemble one in the photos, especially if there were few of them{copies}.
- psi near 1 gives variety and sometimes a failed face; near 0 all faces are close to the mean face.
- The MIT licence covers the program, but neither the photos nor what was learned from them.
"""


def write_card(path: Path, loaded: Loaded, title: str, licence: str, use: str) -> None:
    """Write the card of an export called `title` to `path`; `use` says how to use it.

    Raises OSError, and UserError for a config.json that cannot be read.
    """
    text = CARD.format(
        licence=licence,
        title=" ".join(title.split()),
        description=describe(loaded),
        use=use,
        no_licence=NO_LICENCE if licence == UNKNOWN else "",
        data=data(loaded),
        cost=cost(loaded),
        metrics=metrics(loaded),
        resolution=loaded.faces.stage.resolution,
        copies=copies(loaded),
    )
    with replacing(path) as file:
        file.write(text.encode(errors="backslashreplace"))  # file names may not be valid text


def describe(loaded: Loaded) -> str:
    """Return what kind of model it is."""
    G, stage = loaded.faces.G, loaded.faces.stage
    parameters = sum(p.numel() for p in G.parameters()) / 1e6
    fading = f" (the last doubling {stage.alpha:.0%} faded in)" if stage.alpha < 1 else ""
    foreign = ""
    if loaded.entries.get("foreign"):
        foreign = " Trained with rosinality/style-based-gan-pytorch."
    return (
        f"A StyleGAN (Karras et al. 2019) of faces at {stage.resolution} px{fading}: "
        f"{parameters:.1f} M parameters, width {G.config.width:g}, z of {G.config.z_dim} numbers, "
        f"w of {G.config.w_dim} for each of {G.config.num_ws} layers.{foreign} Fingerprint of its "
        f"synthesis network: `{fingerprint(G)}`."
    )


def data(loaded: Loaded) -> str:
    """Return what is known of the photos, from the database if it is still where it was."""
    config = read_config(loaded.run)
    if "lmdb" not in config:
        return "Unknown: there is no config.json of a run beside the checkpoint."
    lmdb = Path(str(config["lmdb"]))
    named = f"The database `{lmdb.name}`, whose digest is `{config.get('data')}`"
    mirrored = "" if config.get("no_mirror") else ", each also mirrored"
    try:
        with reading(lmdb) as txn:
            known = read_catalogue(txn, lmdb)
    except UserError:
        return f"{named}{mirrored}. {NOT_AT_HAND}"
    if known.digest != config.get("data"):
        # A relative path may lead to another database, as the card is written in another folder.
        changed = "It has changed since." if lmdb.is_absolute() else NOT_AT_HAND
        return f"{named}{mirrored}. {changed}"
    sources = ", ".join(f"`{source}`" for source in known.sources)
    held_out = f" {known.held_out:,} more were held out." if known.held_out else ""
    return f"{named}: {known.count:,} photos from {sources}{mirrored}.{held_out}"


def cost(loaded: Loaded) -> str:
    """Return what the training took, as far as the checkpoint and the run's log say."""
    nimg, iteration = (loaded.entries.get(name) for name in ("nimg", "iteration"))
    if not isinstance(nimg, int) or not isinstance(iteration, int):
        return "Unknown: the checkpoint does not say how many images it has seen."
    text = f"{nimg:,} photos shown in {iteration:,} iterations"
    config = read_config(loaded.run)
    if config.get("batch"):
        text += f" of {config['batch']} ({config.get('precision')})"
    seconds = training_seconds(loaded.run, nimg)
    if seconds is None:
        return f"{text}; the time it took is unknown."
    where = f" (device {config.get('device')}, CPU threads: {config.get('threads')})"
    return f"{text}: {seconds / 3600:.1f} hours of steps, by the run's log{where}."


def training_seconds(run: Path, nimg: int) -> float | None:
    """Return how long the steps up to `nimg` took, from the speeds in a run's log, if it has any.

    Each speed is the mean since the previous record of steps. Raises OSError.
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


def read_evaluation(loaded: Loaded) -> dict[str, Any]:
    """Return what evaluate.py wrote about the run; empty if there is nothing readable."""
    try:
        return dict(json.loads((loaded.run / EVALUATION / FIGURES).read_text()))
    except (OSError, ValueError):
        return {}


def metrics(loaded: Loaded) -> str:
    """Return a table of the metrics of this checkpoint."""
    evaluation = read_evaluation(loaded)
    wanted = (loaded.entries.get("iteration"), average_of(loaded.file))
    try:
        own = next(
            each["figures"]
            for each in evaluation["checkpoints"]
            if (each["iteration"], average_of(Path(each["file"]))) == wanted
        )
        floor = evaluation["floor"]
        rows = [f"| {name} | {cell(own[name])} | {cell(floor[name])} |" for name in own]
        psi = f"{evaluation['psi']:g}"
    except (KeyError, StopIteration, TypeError, ValueError):
        unseen = "The run was measured, but not this checkpoint" if evaluation else "Not measured"
        return f"{unseen} (`python evaluate.py RUN LMDB`)."
    return "\n".join(
        [
            f"By evaluate.py at psi {psi}, with 95 % intervals; the floor is what photos that "
            "training never saw get. SWD, KID and face distance are in thousandths; compare "
            "(Lite0) within this program only.",
            "",
            "| metric | value | floor |",
            "|---|---|---|",
            *rows,
        ]
    )


def cell(figure: tuple[float, float]) -> str:
    """Return a value with its interval."""
    value, interval = figure
    return f"{value:.4g} ± {interval:.2g}"


def copies(loaded: Loaded) -> str:
    """Return how many samples were found to be copies, if evaluate.py looked for them."""
    try:
        count, of = (int(read_evaluation(loaded)["copies"][name]) for name in ("count", "of"))
    except (KeyError, TypeError, ValueError):
        return ""
    return (
        f": of {of:,} samples of the run's best checkpoint, {count:,} were closer to a photo than "
        "99 % of unseen photos are"
    )
