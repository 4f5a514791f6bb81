"""The commands of the READMEs, as they are given there: from photos to pictures."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.support.run import ENV, ROOT
from tests.support.scripts import flags_of

READMES = ["README.md", "README.es.md"]
# Shorten a training from hours to seconds; the last flag of a name counts.
SHORT = "--iterations 4 --sample_every 2 --save_every 2 --width 0.03 --batch 4 --phase 3"


def run(command: str, folder: Path) -> str:
    """Run a line of the README in `folder`; return what it printed."""
    program, *flags = shlex.split(command)
    assert program == "python"
    script = ROOT / flags[0]
    short = shlex.split(SHORT) if script.name == "train.py" else []
    done = subprocess.run(
        [sys.executable, str(script), *flags[1:], *short],
        cwd=folder,
        env=ENV,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, f"{command}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dozen drawn faces of each set."""
    folder = tmp_path_factory.mktemp("faces") / "drawn"
    draw = [sys.executable, str(ROOT / "demo" / "draw_faces.py"), str(folder), "--count", "12"]
    subprocess.run(draw, check=True, capture_output=True, timeout=300)
    return folder


@pytest.fixture
def folder(drawn: Path, tmp_path: Path) -> Path:
    """A user's folder: drawn faces under every name that the READMEs use, and CelebA's table."""
    for names in (("PHOTOS", "young", "old"), ("FOTOS", "jovenes", "mayores")):
        for name, source in zip(names, ("", "young", "old"), strict=True):
            (tmp_path / name).symlink_to(drawn / source, target_is_directory=True)
    for name, place in {"me.jpg": 0, "you.png": 1, "yo.jpg": 0, "tu.png": 1}.items():
        Image.open(sorted((drawn / "old").glob("*.jpg"))[place]).save(tmp_path / name)
    (tmp_path / "celeba").symlink_to(drawn, target_is_directory=True)
    photos = sorted(p.name for p in (drawn / "old").glob("*.jpg"))
    rows = [f"{name} {1 if i % 2 else -1} -1" for i, name in enumerate(photos)]
    table = "\n".join([str(len(rows)), "Young Male", *rows])
    (tmp_path / "list_attr_celeba.txt").write_text(table + "\n")
    return tmp_path


def commands(readme: str) -> list[str]:
    """Return the lines that begin with python in the console blocks of a README."""
    blocks = re.findall(r"```console\n(.*?)```", (ROOT / readme).read_text(), flags=re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [line for line in lines if line.startswith("python ")]


@pytest.mark.parametrize("readme", READMES)
def test_every_command_of_the_readme_has_flags_that_its_script_knows(capsys, readme):
    for line in commands(readme):
        program, script, *words = shlex.split(line)
        assert program == "python"
        given = {word.partition("=")[0] for word in words if word.startswith("--")}
        assert given <= flags_of(script, capsys), line


@pytest.mark.slow
@pytest.mark.parametrize("readme", READMES)
def test_every_command_of_the_readme_runs(folder, readme):
    for line in commands(readme):
        run(line, folder)


def test_both_readmes_give_as_many_commands():
    first, second = (len(commands(readme)) for readme in READMES)
    assert first == second >= 5
