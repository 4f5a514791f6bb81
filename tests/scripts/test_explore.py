"""explore.py's own errors; the page itself is tested in tests/web."""

import importlib.util
import signal
import socket
from collections.abc import Iterator

import pytest

import explore
from common import cli


@pytest.fixture
def _signals() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in cli.EXIT_CODES}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def refused(capsys: pytest.CaptureFixture[str], code: int, *args: object) -> str:
    with pytest.raises(SystemExit) as end:
        explore.main([str(arg) for arg in args])
    message = capsys.readouterr().err
    assert end.value.code == code, message
    assert message.startswith("explore.py: error: ")
    assert message.count("\n") == 1
    return message


def test_without_gradio_the_error_says_what_to_install(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "pip install -r requirements-explore.txt" in refused(capsys, 2, "runs/faces")


def test_an_unsafe_pillow_is_refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: True)
    monkeypatch.setattr(explore, "version", lambda name: "12.3.0")
    assert "Pillow 12.3.0 is not safe" in refused(capsys, 2, "runs/faces")


@pytest.mark.usefixtures("_signals")
def test_an_address_that_cannot_be_used_is_refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: True)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert "in use" in refused(capsys, 1, "runs/faces", "--port", port)
    assert "--host 203.0.113.1" in refused(capsys, 1, "runs/faces", "--host", "203.0.113.1")
