"""prepare_data.py as a process: full disks, signals, kills, rival runs, little memory, streams."""

import itertools
import os
import random
import re
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest

from tests.support.folders import (
    TIMEOUT,
    Background,
    check,
    command,
    encoded,
    entries,
    have_ended,
    in_shell,
    large_photos,
    names,
    photos,
    records,
    report,
    run,
    scene,
    tree,
)

linux_only = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="reads /proc")


def can_mount() -> bool:
    """Return whether a process may mount a file system of its own."""
    if shutil.which("unshare") is None:
        return False
    line = ["unshare", "-rm", "mount", "-t", "tmpfs", "none", "/mnt"]
    return subprocess.run(line, capture_output=True).returncode == 0


# Mounts $1 KiB of disk at $2 with the database $3 in it, runs the rest, and reports if $3 is lost.
SMALL_DISK = """
mount -t tmpfs -o size=$1k none "$2" && cp -r "$3" "$2/a.lmdb" || exit 99
disk=$2; before=$(cd "$disk"; sha256sum a.lmdb/*); shift 3
"$@"
code=$?
[ $code = 0 ] || [ "$before" = "$(cd "$disk"; sha256sum a.lmdb/*)" ] || echo lost >&2
[ "$(ls -A "$disk")" = a.lmdb ] || echo "left behind: $(ls -A "$disk")" >&2
exit $code
"""


@pytest.mark.slow
@pytest.mark.skipif(not can_mount(), reason="no right to mount a small disk: unshare -rm")
def test_a_full_disk_ends_the_run_and_spares_the_old_database(tmp_path: Path) -> None:
    """Disks that get full at the start, within the records, the report and the sheet."""
    disk = tmp_path / "disk"
    disk.mkdir()
    run(photos(tmp_path / "few", 2), tmp_path / "old.lmdb")
    large_photos(tmp_path / "src", 60, 100)
    rest = command(tmp_path / "src", disk / "a.lmdb", "--overwrite", "--workers", 1)
    old = sum(path.stat().st_size for path in (tmp_path / "old.lmdb").iterdir())
    codes = []
    for kilobytes in (16, 20, 24, 40, 200, 450, 500, 560, 600, 640, 700, 2000):
        size = old // 1024 + 16 + kilobytes
        line = ["unshare", "-rm", "bash", "-c", SMALL_DISK, "bash"]
        line += [str(size), str(disk), str(tmp_path / "old.lmdb"), *rest]
        done = subprocess.run(line, capture_output=True, text=True, timeout=TIMEOUT)
        codes.append(done.returncode)
        check(done.returncode, done.stderr, min(done.returncode, 1))
        if done.returncode:
            assert "could not be written" in done.stderr
            assert "0 MB are free on this disk. Make room" in done.stderr
    assert codes == sorted(codes, reverse=True)
    assert (codes[0], codes[-1]) == (1, 0)


@pytest.mark.parametrize("kilobytes", [0, 300])
def test_a_limit_on_file_size_ends_the_run_and_spares_the_old_database(
    tmp_path: Path, kilobytes: int
) -> None:
    large_photos(tmp_path / "src", 60, 100)
    run(photos(tmp_path / "few", 2), tmp_path / "a.lmdb")
    before = tree(tmp_path)
    arguments = [tmp_path / "src", tmp_path / "a.lmdb", "--overwrite"]
    done = run(*arguments, code=1, before=in_shell(f"ulimit -f {kilobytes}"))
    assert "could not be written" in done.stderr
    assert tree(tmp_path) == before


def whole(path: Path, *versions: dict[str, bytes]) -> bool:
    """Return whether there is a database; assert that it is one of these."""
    if path.exists():
        assert entries(path) in versions
    return path.exists()


@pytest.mark.slow
@linux_only
@pytest.mark.parametrize("overwrite", [False, True])
def test_after_a_kill_at_any_moment_the_next_run_works(tmp_path: Path, overwrite: bool) -> None:
    """The database is the new one, the old one or absent, and nothing else is left behind."""
    source = photos(tmp_path / "src", 60)
    before = tree(source)
    dst = tmp_path / "a.lmdb"
    run(photos(tmp_path / "few", 3), tmp_path / "old.lmdb")
    started = time.monotonic()
    run(source, tmp_path / "new.lmdb")
    seconds = time.monotonic() - started
    old, new = entries(tmp_path / "old.lmdb"), entries(tmp_path / "new.lmdb")
    survived = 0
    for number in range(6):
        shutil.rmtree(dst, ignore_errors=True)
        if overwrite:
            shutil.copytree(tmp_path / "old.lmdb", dst)
        killed = Background(source, dst, *["--overwrite"] * overwrite, children=0)
        time.sleep(random.random() * seconds * 1.1)
        workers = killed.children() if killed.process.poll() is None else []
        killed.signal(signal.SIGKILL) if number % 2 else killed.process.kill()
        killed.end(-signal.SIGKILL)
        assert have_ended(workers)
        survived += not whole(dst, old, new)
        run(source, dst, "--overwrite")
        assert entries(dst) == new
        assert tree(source) == before
        left = {path.name for path in tmp_path.iterdir()}
        assert left == {"a.lmdb", "few", "new.lmdb", "old.lmdb", "src"}
    assert overwrite or survived


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace kills at a system call")
@pytest.mark.parametrize("call", ["/rename.*", "fsync", "/^(unlink|rmdir).*", "/^(fdata)?sync.*"])
@pytest.mark.parametrize("when", [1, 2, 3])
def test_a_kill_while_the_old_database_is_replaced(tmp_path: Path, call: str, when: int) -> None:
    """At each of the renames, syncs and removals by which the new database takes its place."""
    run(photos(tmp_path / "src", 3), tmp_path / "a.lmdb")
    old = entries(tmp_path / "a.lmdb")
    photos(tmp_path / "src", 5)
    run(tmp_path / "src", tmp_path / "new.lmdb")
    new = entries(tmp_path / "new.lmdb")
    inject = ["strace", "-qq", "-o", "/dev/null", "-e", f"inject={call}:signal=KILL:when={when}"]
    arguments = command(tmp_path / "src", tmp_path / "a.lmdb", "--overwrite")
    done = subprocess.run([*inject, *arguments], capture_output=True, text=True, timeout=TIMEOUT)
    assert done.returncode in (0, -9, 137), done.stderr
    whole(tmp_path / "a.lmdb", old, new)
    line = run(tmp_path / "src", tmp_path / "a.lmdb", code=1).stderr
    assert "exists already" in line  # also where the kill was between the renames: it is back
    whole(tmp_path / "a.lmdb", old, new)
    run(tmp_path / "src", tmp_path / "a.lmdb", "--overwrite")
    assert entries(tmp_path / "a.lmdb") == new
    assert {path.name for path in tmp_path.iterdir()} == {"a.lmdb", "new.lmdb", "src"}


@linux_only
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize(
    ("children", "times"),
    [
        pytest.param(2, 1, marks=pytest.mark.slow, id="a worker starts"),
        pytest.param(3, 3, id="thrice"),
    ],
)
def test_a_signal_ends_the_run_within_two_seconds(
    tmp_path: Path, children: int, times: int, number: int, code: int
) -> None:
    """As by Ctrl-C, which reaches all processes: one line, no process left, nothing made."""
    source = large_photos(tmp_path / "src", 80)
    before = tree(tmp_path)
    stopped = Background(source, tmp_path / "a.lmdb", "--workers", 2, children=children)
    processes = stopped.children()
    time.sleep(0.05 if children == 2 else 0.3)  # a worker is importing; they are at work
    for _ in range(times):
        stopped.signal(number)
    assert stopped.end(code) < 2
    assert have_ended(processes)
    assert tree(tmp_path) == before


@linux_only
def test_a_worker_blocks_or_ignores_signals_from_its_start(tmp_path: Path) -> None:
    """Otherwise Ctrl-C in its first moments would end it with a traceback."""
    source = large_photos(tmp_path / "src", 20)
    started = Background(source, tmp_path / "a.lmdb", "--workers", 1, children=2)
    status = Path(f"/proc/{started.children()[-1]}/status").read_text()
    deaf = 0
    for mask in re.findall(r"Sig(?:Blk|Ign):\s*(\w+)", status):
        deaf |= int(mask, 16)
    for number in (signal.SIGINT, signal.SIGTERM):
        assert deaf >> (number - 1) & 1
    started.end(0)


@linux_only
@pytest.mark.parametrize("seconds", [0.0, pytest.param(0.5, marks=pytest.mark.slow)])
def test_a_killed_worker_ends_the_run_in_one_line(tmp_path: Path, seconds: float) -> None:
    """As for lack of memory, while it starts or is at work."""
    source = large_photos(tmp_path / "src", 80)
    ended = Background(source, tmp_path / "a.lmdb", "--workers", 2)
    time.sleep(seconds)
    processes = ended.children()
    os.kill(processes[-1], signal.SIGKILL)
    assert ended.end(1) < 5
    assert have_ended(processes)
    assert [path.name for path in tmp_path.iterdir()] == ["src"]


@pytest.mark.slow
def test_files_that_change_meanwhile_are_kept_or_left_out(tmp_path: Path) -> None:
    """Photos and folders are removed, emptied and replaced while the run reads them."""
    source = photos(tmp_path / "src", 40)
    whole, stop = encoded(scene(), "PNG"), threading.Event()

    def change() -> None:
        for turn in itertools.count():
            if stop.is_set():
                return
            shutil.rmtree(source / "deep", ignore_errors=True)
            (source / f"x{turn % 7}.png").unlink(missing_ok=True)
            (source / f"x{turn % 5}.png").write_bytes(whole if turn % 2 else whole[:50])
            photos(source / "deep" / str(turn % 5), 2)

    thread = threading.Thread(target=change)
    thread.start()
    try:
        run(source, tmp_path / "a.lmdb")
    finally:
        stop.set()
        thread.join()
    assert {f"{index:06d}.png" for index in range(40)} <= set(names(tmp_path / "a.lmdb"))
    found = {reason.partition(":")[0] for reason in report(tmp_path / "a.lmdb").values()}
    assert found <= {"cannot be read", "not an image", "damaged"}


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace sends the signal at the rename")
@pytest.mark.parametrize("name", ["INT", "TERM"])
def test_a_signal_once_the_database_is_renamed_is_ignored(tmp_path: Path, name: str) -> None:
    """Otherwise the run would end with "nothing was made", which would be false."""
    inject = ["strace", "-qq", "-o", "/dev/null", "-e", f"inject=/rename.*:signal={name}:when=1"]
    run(photos(tmp_path / "src", 3), tmp_path / "a.lmdb", before=inject)
    assert len(records(tmp_path / "a.lmdb")) == 3


@pytest.mark.slow
@linux_only
def test_a_second_run_to_one_destination_is_refused(tmp_path: Path) -> None:
    source = large_photos(tmp_path / "src", 40)
    few = photos(tmp_path / "few", 3)
    first = Background(source, tmp_path / "a.lmdb", "--workers", 2)
    for flags in ([], ["--overwrite"]):
        assert "in use" in run(few, tmp_path / "a.lmdb", *flags, code=1).stderr
    first.end(0)
    assert len(records(tmp_path / "a.lmdb")) == 40


@pytest.mark.slow
def test_of_runs_started_together_one_makes_the_database(tmp_path: Path) -> None:
    source = photos(tmp_path / "src", 20)
    for number in range(5):
        dst = tmp_path / f"{number}.lmdb"
        rivals = [Background(source, dst, children=0) for _ in range(3)]
        codes = []
        for rival in rivals:
            rival.process.wait(timeout=TIMEOUT)
            codes.append(rival.process.returncode)
            rival.end(min(codes[-1], 1))
        assert sorted(codes) == [0, 1, 1]
        assert names(dst) == [f"{index:06d}.png" for index in range(20)]
    assert len(list(tmp_path.iterdir())) == 6


@pytest.mark.slow
def test_too_little_memory_for_the_map_ends_the_run_in_one_line(tmp_path: Path) -> None:
    """More records than the first map holds, with 4 GB of addresses, and with 0.2 GB."""
    source = large_photos(tmp_path / "src", 40, 1024)
    flags = ["--sizes", 1024, "--quality", 100, "--workers", 1]
    run(source, tmp_path / "a.lmdb", *flags, before=in_shell("ulimit -v 4000000"))
    assert (tmp_path / "a.lmdb" / "data.mdb").stat().st_size > 2**26
    stored = records(tmp_path / "a.lmdb", 1024)
    assert len(stored) == 40
    assert len(set(stored)) == 1
    few = in_shell("ulimit -v 200000")
    done = run(source, tmp_path / "b.lmdb", *flags, code=1, before=few)
    assert "memory" in done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"a.lmdb", "src"}


@pytest.mark.parametrize("redirection", ["<&- >&- 2>&-", "> /dev/full 2> /dev/full"])
def test_closed_and_full_streams_do_not_cost_the_database(tmp_path: Path, redirection: str) -> None:
    source = photos(tmp_path / "src", 3)
    run(source, tmp_path / "a.lmdb", before=["bash", "-c", f'"$@" {redirection}', "bash"])
    assert len(records(tmp_path / "a.lmdb")) == 3


def test_a_reader_that_goes_away_does_not_cost_the_database(tmp_path: Path) -> None:
    """As `| head -0`, which closes the pipe before anything is written."""
    read, write = os.pipe()
    os.close(read)
    run(photos(tmp_path / "src", 3), tmp_path / "a.lmdb", stdout=write)
    os.close(write)
    assert len(records(tmp_path / "a.lmdb")) == 3
