"""Full disks, kills, signals, rival runs, lost workers, little memory, closed streams.

The rows P18 to P22, P24 and P26 of the list of faults.
"""

import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from PIL import Image

from common.cli import UserError
from data import lmdb_writer
from data.lmdb_writer import Writer
from data.photos import Recipe
from data.workers import Place, Workers
from tests.support.folders import (
    PATIENCE,
    LongRun,
    check,
    command,
    entries,
    gone,
    in_shell,
    large_photos,
    names,
    photos,
    records,
    run,
    tree,
)

linux_only = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="reads /proc")


def can_mount() -> bool:
    """Return whether a process may mount a file system of its own."""
    if shutil.which("unshare") is None:
        return False
    line = ["unshare", "-rm", "mount", "-t", "tmpfs", "none", "/mnt"]
    return subprocess.run(line, capture_output=True).returncode == 0


# $1 KiB of disk at $2 with the database $3 in it: runs the rest, and tells whether $3 is lost.
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
def test_p18_a_full_disk_is_told_and_costs_nothing(tmp_path: Path) -> None:
    """P18: disks that are full at the start, within the records, the report and the sheet."""
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
        done = subprocess.run(line, capture_output=True, text=True, timeout=PATIENCE)
        codes.append(done.returncode)
        check(done.returncode, done.stderr, min(done.returncode, 1))
        if done.returncode:
            assert "could not be written" in done.stderr
            assert "0 MB are free on this disk. Make room" in done.stderr
    assert codes == sorted(codes, reverse=True)
    assert (codes[0], codes[-1]) == (1, 0)


@pytest.mark.parametrize("kilobytes", [0, 4, 12, 100, 300])
def test_p18_a_limit_on_files_is_told_and_costs_nothing(tmp_path: Path, kilobytes: int) -> None:
    """P18 without root: no file may become larger than some kilobytes."""
    large_photos(tmp_path / "src", 60, 100)
    run(photos(tmp_path / "few", 2), tmp_path / "a.lmdb")
    before = tree(tmp_path)
    arguments = [tmp_path / "src", tmp_path / "a.lmdb", "--overwrite"]
    done = run(*arguments, code=1, before=in_shell(f"ulimit -f {kilobytes}"))
    assert "could not be written" in done.stderr
    assert tree(tmp_path) == before


def whole(path: Path, *versions: dict[str, bytes]) -> bool:
    """Return whether there is a database; assert that it is then one of these."""
    if path.exists():
        assert entries(path) in versions
    return path.exists()


@pytest.mark.slow
@linux_only
@pytest.mark.parametrize("overwrite", [False, True])
def test_p19_kill_at_random_moments_and_just_run_again(tmp_path: Path, overwrite: bool) -> None:
    """P19: 20 kills; DST is whole, old or absent, the next run works, nothing is left behind."""
    source = photos(tmp_path / "src", 60)
    before = tree(source)
    dst = tmp_path / "a.lmdb"
    run(photos(tmp_path / "few", 3), tmp_path / "old.lmdb")
    started = time.monotonic()
    run(source, tmp_path / "new.lmdb")
    seconds = time.monotonic() - started
    old, new = entries(tmp_path / "old.lmdb"), entries(tmp_path / "new.lmdb")
    survived = 0
    for number in range(10):
        shutil.rmtree(dst, ignore_errors=True)
        if overwrite:
            shutil.copytree(tmp_path / "old.lmdb", dst)
        long = LongRun(source, dst, *["--overwrite"] * overwrite, at_work=False)
        time.sleep(random.random() * seconds * 1.1)
        workers = long.children() if long.process.poll() is None else []
        long.signal(signal.SIGKILL) if number % 2 else long.process.kill()
        long.end(-signal.SIGKILL)
        assert gone(workers)
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
def test_p19_kill_at_each_step_of_the_end(tmp_path: Path, call: str, when: int) -> None:
    """P19: a kill at the renames, syncs and removals by which the new database replaces the old."""
    run(photos(tmp_path / "src", 3), tmp_path / "a.lmdb")
    old = entries(tmp_path / "a.lmdb")
    photos(tmp_path / "src", 5)
    run(tmp_path / "src", tmp_path / "new.lmdb")
    new = entries(tmp_path / "new.lmdb")
    inject = ["strace", "-qq", "-o", "/dev/null", "-e", f"inject={call}:signal=KILL:when={when}"]
    arguments = command(tmp_path / "src", tmp_path / "a.lmdb", "--overwrite")
    done = subprocess.run([*inject, *arguments], capture_output=True, text=True, timeout=PATIENCE)
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
def test_p20_a_signal_ends_the_run_within_two_seconds(
    tmp_path: Path, number: int, code: int
) -> None:
    """P20: Ctrl-C and SIGTERM, each once and thrice: one line, no orphans, nothing made."""
    source = large_photos(tmp_path / "src", 80)
    before = tree(tmp_path)
    seconds = []
    for times in (1, 3):
        long = LongRun(source, tmp_path / "a.lmdb", "--workers", 2)
        workers = long.children()
        time.sleep(0.3)
        for _ in range(times):
            long.signal(number)
        seconds.append(long.end(code))
        assert gone(workers)
        assert tree(tmp_path) == before
    assert min(seconds) < 2


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace sends the signal at the rename")
@pytest.mark.parametrize("name", ["INT", "TERM"])
def test_p20_a_signal_at_the_end_does_not_lie(tmp_path: Path, name: str) -> None:
    """P20: "nothing was made" is only said where that is so: not once the database is renamed."""
    inject = ["strace", "-qq", "-o", "/dev/null", "-e", f"inject=/rename.*:signal={name}:when=1"]
    run(photos(tmp_path / "src", 3), tmp_path / "a.lmdb", before=inject)
    assert len(records(tmp_path / "a.lmdb")) == 3


@linux_only
def test_p21_a_second_run_to_one_destination_is_refused(tmp_path: Path) -> None:
    """P21: while a run is at work another says so, and the first is not disturbed."""
    source = large_photos(tmp_path / "src", 40)
    few = photos(tmp_path / "few", 3)
    long = LongRun(source, tmp_path / "a.lmdb", "--workers", 2)
    for flags in ([], ["--overwrite"]):
        assert "in use" in run(few, tmp_path / "a.lmdb", *flags, code=1).stderr
    long.end(0)
    assert len(records(tmp_path / "a.lmdb")) == 40


@pytest.mark.slow
def test_p21_of_runs_started_together_one_makes_the_database(tmp_path: Path) -> None:
    """P21: five times three runs at once; one succeeds, the others say that they did not."""
    source = photos(tmp_path / "src", 20)
    for number in range(5):
        dst = tmp_path / f"{number}.lmdb"
        rivals = [LongRun(source, dst, at_work=False) for _ in range(3)]
        codes = []
        for rival in rivals:
            rival.process.wait(timeout=PATIENCE)
            codes.append(rival.process.returncode)
            rival.end(min(codes[-1], 1))
        assert sorted(codes) == [0, 1, 1]
        assert names(dst) == [f"{index:06d}.png" for index in range(20)]
    assert len(list(tmp_path.iterdir())) == 6


def test_p21_a_run_that_ends_spares_the_folder_of_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P21: the second run begins between the first one's rename and its cleaning up."""
    second = Writer(tmp_path / "a.lmdb", [16], ["b"], overwrite=True)
    sync = lmdb_writer.sync

    def begin_second(path: Path) -> None:
        sync(path)
        if path == tmp_path:
            monkeypatch.setattr(lmdb_writer, "sync", sync)
            second.__enter__()

    monkeypatch.setattr(lmdb_writer, "sync", begin_second)
    with Writer(tmp_path / "a.lmdb", [16], ["a"]) as first:
        first.add([b"one"], b"1", 0)
    second.add([b"two"], b"2", 0)
    second.__exit__(None, None, None)
    assert entries(tmp_path / "a.lmdb")["16-00000"] == b"two"
    assert [path.name for path in tmp_path.iterdir()] == ["a.lmdb"]


@linux_only
@pytest.mark.parametrize("delay", [None, 0.0, 0.5])
def test_p22_a_killed_worker_ends_the_run_in_one_line(tmp_path: Path, delay: float | None) -> None:
    """P22: a worker is killed as it starts, at once and at work, as for want of memory."""
    long = LongRun(
        large_photos(tmp_path / "src", 80), tmp_path / "a.lmdb", "--workers", 2, at_work=False
    )
    while len(long.children()) < (2 if delay is None else 3):
        assert long.process.poll() is None
    time.sleep(delay or 0)
    processes = long.children()
    os.kill(processes[-1], signal.SIGKILL)
    long.end(1)
    assert gone(processes)
    assert [path.name for path in tmp_path.iterdir()] == ["src"]


@pytest.mark.parametrize("told_by", [UserError, KeyboardInterrupt])
def test_p22_a_worker_killed_in_the_midst_of_a_message(
    tmp_path: Path, told_by: type[BaseException]
) -> None:
    """P22 (and P20): more than a pipe holds is on its way, and the rest of it never comes."""
    Image.effect_noise((512, 512), 90).save(tmp_path / "a.png")
    places: list[Place] = [bytes(tmp_path / "a.png")] * 16
    with pytest.raises(told_by), Workers(2, Recipe((512,), 100, 1)) as workers:  # noqa: PT012
        assert len(list(workers.prepare(places))) == 16  # and both are awake
        outcomes = workers.prepare(places)
        next(outcomes)
        time.sleep(1)  # nothing is received now: they wait for room in their pipes
        waiting = [process for pipe, process in workers._processes.items() if pipe.poll()]
        if told_by is KeyboardInterrupt:
            raise KeyboardInterrupt
        waiting[0].kill()
        list(outcomes)
    assert multiprocessing.active_children() == []


@pytest.mark.slow
@linux_only
def test_p22_too_little_memory_is_one_line_and_no_hang(tmp_path: Path) -> None:
    """P22: address spaces in which the imports leave no room for the map, or all goes well."""
    source = photos(tmp_path / "src", 5)
    codes = set()
    for megabytes in (90, 104, 108, 112, 116, 120, 124, 128, 132, 140, 2000):
        arguments = command(source, tmp_path / "a.lmdb", "--overwrite", "--workers", 1)
        line = [*in_shell(f"ulimit -v {megabytes * 1000}"), *arguments]
        done = subprocess.run(line, capture_output=True, text=True, timeout=PATIENCE)
        check(done.returncode, done.stderr, min(done.returncode, 1))
        codes.add(done.returncode)
    assert codes == {0, 1}
    assert {path.name for path in tmp_path.iterdir()} == {"a.lmdb", "src"}


@pytest.mark.slow
def test_p24_the_map_grows_or_the_want_is_told(tmp_path: Path) -> None:
    """P24: more records than the first map holds, with 4 GB of addresses, and with too few."""
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


CLOSED = ["> /dev/full", ">&-", "2>&-", "<&-", "<&- >&- 2>&-", "2> /dev/full"]


@pytest.mark.parametrize("redirection", CLOSED)
def test_p26_closed_and_full_streams_do_not_cost_the_database(
    tmp_path: Path, redirection: str
) -> None:
    """P26: stdout full or closed, and the others too: the database is made, without a word."""
    source = photos(tmp_path / "src", 3)
    run(source, tmp_path / "a.lmdb", before=["bash", "-c", f'"$@" {redirection}', "bash"])
    assert len(records(tmp_path / "a.lmdb")) == 3


def test_p26_a_reader_that_goes_away_does_not_cost_the_database(tmp_path: Path) -> None:
    """P26: `| head -0` closes the pipe before anything is written."""
    read, write = os.pipe()
    os.close(read)
    run(photos(tmp_path / "src", 3), tmp_path / "a.lmdb", stdout=write)
    os.close(write)
    assert len(records(tmp_path / "a.lmdb")) == 3
