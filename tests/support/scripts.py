"""The scripts' main functions, called in this process."""

import importlib
import re
import sys
from pathlib import Path

import pytest

from tests.support.run import ROOT


def exit_code(script: str, argv: list[str]) -> object:
    """Call the main function of a script, such as "train.py"; return its exit code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.path", [str((ROOT / script).parent), *sys.path])
        module = importlib.import_module(Path(script).stem)
        patch.setattr("sys.argv", [script, *argv])
        with pytest.raises(SystemExit) as end:
            module.main()
    return end.value.code


def flags_of(script: str, capsys: pytest.CaptureFixture[str]) -> set[str]:
    """Return the flags that a script's --help shows."""
    assert exit_code(script, ["--help"]) == 0
    return set(re.findall(r"^  (--\w+)", capsys.readouterr().out, re.MULTILINE))
