"""What somebody or something did to the buffer's files: nothing acknowledged is forgotten without a word."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from tests.faults.installation import assert_ended_with_one_line, installed
from tests.faults.load import Client, clients, under_load
from tests.faults.promises import assert_promises_kept
from tests.faults.small_disk import small_disk
from tests.programs import Proxy, Sandbox, http

PAGE_BYTES = 4096
EVENT_BYTES = 2_000  # a run takes several pages


def _hold(proxy: Proxy, sandbox: Sandbox, *, seed: int) -> list[Client]:
    """Have the proxy hold some hundreds of events, all of them acknowledged, and nothing delivered."""
    sandbox.fault("status", status=429, retry_after_s=1)
    posting = clients(browsers=6, servers=3, seed=seed, event_bytes=EVENT_BYTES)
    with under_load(proxy, posting):
        proxy.wait_until_accepted(300)
    return posting


class Files:
    """The buffer's files as they lie while no process has them, and a copy to bring them back from."""

    def __init__(self, proxy: Proxy, copy: Path) -> None:
        self.database = proxy.database
        self.log = Path(f"{proxy.database}-wal")
        self._copy = shutil.copytree(proxy.database.parent, copy)

    def contents(self) -> list[bytes]:
        """What holds events; the other files only help to use them."""
        return [file.read_bytes() if file.exists() else b"" for file in (self.database, self.log)]

    def restore(self) -> None:
        shutil.rmtree(self.database.parent)
        shutil.copytree(self._copy, self.database.parent)


def _cut(file: Path, share: float) -> None:
    os.truncate(file, int(file.stat().st_size * share))


def _overwrite(file: Path, start: int, count: int = PAGE_BYTES) -> None:
    with file.open("r+b") as opened:
        opened.seek(start)
        opened.write(Random(start).randbytes(count))


DAMAGE_OF_A_STOPPED: dict[str, Callable[[Files], None]] = {
    "gone": lambda files: files.database.unlink(),
    "empty": lambda files: _cut(files.database, 0),
    "half": lambda files: _cut(files.database, 0.5),
    "no database": lambda files: _overwrite(files.database, 0),
    "no schema": lambda files: _overwrite(files.database, PAGE_BYTES),
}
DAMAGE_OF_A_KILLED: dict[str, Callable[[Files], None]] = {
    "gone": lambda files: files.database.unlink(),
    "log gone": lambda files: files.log.unlink(),
    "log empty": lambda files: _cut(files.log, 0),
    "log half": lambda files: _cut(files.log, 0.5),
    "log garbage": lambda files: _overwrite(files.log, files.log.stat().st_size // 2),
}


@pytest.mark.parametrize(
    ("killed", "damages"),
    [(False, DAMAGE_OF_A_STOPPED), (True, DAMAGE_OF_A_KILLED)],
    ids=["after a stop", "after a kill"],
)
def test_a_start_on_damaged_files_is_refused_with_one_line_and_changes_nothing(
    proxy: Proxy,
    sandbox: Sandbox,
    tmp_path: Path,
    killed: bool,
    damages: dict[str, Callable[[Files], None]],
) -> None:
    posting = _hold(proxy, sandbox, seed=80)
    if killed:
        proxy.program.kill()
    else:
        assert proxy.program.stop() == 0
    files = Files(proxy, tmp_path / "copy")
    for name, damage in damages.items():
        damage(files)
        before = files.contents()
        for _ in range(1 + killed):  # by whoever starts again what ended: what told of it is still there
            proxy.program.start()
            line = assert_ended_with_one_line(proxy)
            assert proxy.program.log == f"{line}\n", name
            assert str(proxy.database) in line, name
            assert files.contents() == before, name
        files.restore()

    sandbox.clear_faults()
    proxy.start()
    proxy.wait_until_empty()
    assert_promises_kept(proxy, sandbox, posting)


def _start_with_garbage(proxy: Proxy, sandbox: Sandbox, copy: Path, *, every: int, seed: int) -> None:
    """Each time over another page. Whoever starts on such a file ends by itself, unless the page was free."""
    posting = _hold(proxy, sandbox, seed=seed)
    assert proxy.program.stop() == 0
    sandbox.clear_faults()
    files = Files(proxy, copy)
    ends = 0
    for page in range(2, proxy.database.stat().st_size // PAGE_BYTES, every):
        _overwrite(proxy.database, page * PAGE_BYTES)
        http(f"{sandbox.url}/_sandbox/record", method="DELETE")
        proxy.program.start()
        try:
            proxy.wait_until_ready()
            proxy.wait_until_empty()
        except (AssertionError, OSError):
            assert "damaged" in assert_ended_with_one_line(proxy), page
            ends += 1
        else:
            assert_promises_kept(proxy, sandbox, posting)
            proxy.program.kill()
        files.restore()
    assert ends, "no page mattered: nothing was tested"

    http(f"{sandbox.url}/_sandbox/record", method="DELETE")
    proxy.start()
    proxy.wait_until_empty()
    assert_promises_kept(proxy, sandbox, posting)


def test_garbage_in_the_file_is_never_delivered_and_never_passed_over(
    proxy: Proxy, sandbox: Sandbox, tmp_path: Path
) -> None:
    _start_with_garbage(proxy, sandbox, tmp_path / "copy", every=60, seed=81)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_garbage_in_any_page_is_never_delivered_and_never_passed_over(
    proxy: Proxy, sandbox: Sandbox, tmp_path: Path
) -> None:
    _start_with_garbage(proxy, sandbox, tmp_path / "copy", every=5, seed=82)


@pytest.mark.parametrize("suffix", ["", "-wal"], ids=["database", "log"])
def test_a_file_deleted_under_the_running_process_ends_it_before_it_acknowledges_anything_more(
    install_proxy: Callable[..., Proxy], sandbox: Sandbox, suffix: str
) -> None:
    proxy = install_proxy()
    proxy.start()
    posting = clients(browsers=4, servers=2, seed=83)
    with under_load(proxy, posting, again=False):
        proxy.wait_until_accepted(100)
        Path(f"{proxy.database}{suffix}").unlink()
        acknowledged = sum(len(client.acknowledged) for client in posting)
        assert f"{proxy.database}" in assert_ended_with_one_line(proxy)
    # Of each client at most the post that was being acknowledged just then.
    assert sum(len(client.acknowledged) for client in posting) <= acknowledged + 10 * len(posting)
    proxy.program.start()
    assert_ended_with_one_line(proxy)


def test_a_disk_that_became_read_only_is_named(tmp_path: Path, sandbox: Sandbox) -> None:
    with small_disk(tmp_path / "buffer", 8) as disk, installed(tmp_path, sandbox) as proxy:
        proxy.start()
        assert proxy.program.stop() == 0
        disk.make_read_only()
        proxy.program.start()
        line = assert_ended_with_one_line(proxy)
        assert f"cannot write in {disk.path}: Read-only file system" in line
