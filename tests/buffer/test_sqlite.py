"""What the embedded engine promises beyond the contract: files, storage errors, shared commits."""

import asyncio
import dataclasses
import fcntl
import hashlib
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing
from dataclasses import replace
from errno import EIO, ENOSPC
from importlib.resources import files
from pathlib import Path
from typing import Any

import apsw
import msgspec
import pytest

from proxy.buffer import (
    Appended,
    BufferBroken,
    BufferFull,
    BufferUnavailable,
    Idle,
    Lease,
    Settlement,
    Trouble,
    Which,
)
from proxy.buffer.sqlite import OpenRefused, SqliteBuffer, pauses, records, writer
from proxy.buffer.sqlite import engine as engine_module
from proxy.buffer.sqlite.files import LAYOUT
from proxy.clock import StoreClock
from proxy.gate import Gate
from proxy.ledger import Books
from tests.buffer.conftest import TERMS, SqliteEngine
from tests.buffer.contents import (
    KEY,
    OTHER_KEY,
    REFUSED,
    books,
    drained,
    due,
    event,
    events,
    filled,
    head_texts,
    idle,
    leased,
    portion,
    settled,
    texts,
    token,
)


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[SqliteEngine]:
    made = SqliteEngine(tmp_path)
    yield made
    await made.close()


async def refusal(engine: SqliteEngine) -> str:
    """The one line with which opening is refused."""
    with pytest.raises(OpenRefused) as caught:
        await engine.opened()
    line = str(caught.value)
    assert "\n" not in line
    assert str(engine.path) in line
    return line


def sql(path: Path, statement: str) -> list[Any]:
    """What another program, such as the sqlite3 shell, would get."""
    with closing(sqlite3.connect(path)) as connection, connection:
        return connection.execute(statement).fetchall()


def read_schema() -> str:
    return files("proxy.buffer.sqlite").joinpath("schema.sql").read_text("utf-8")


def stored_structs(outer: type[msgspec.Struct]) -> Iterator[type[msgspec.Struct]]:
    """A structure, and all within it."""
    yield outer
    for field in msgspec.structs.fields(outer):
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
            yield from stored_structs(field.type)


def files_of(engine: SqliteEngine) -> list[Path]:
    return list(engine.path.parent.glob("buffer.db*"))


# -- the lock ------------------------------------------------------------------------------------------


async def test_a_second_opener_is_refused_with_the_process_that_has_it(engine: SqliteEngine) -> None:
    buffer = await engine.opened()
    with pytest.raises(OpenRefused, match=rf"in use by process {os.getpid()}; stop it"):
        await SqliteBuffer.opened(engine.path, TERMS)
    assert await buffer.append(KEY, [portion([event(1)])]) == Appended(1, 0)


async def test_another_process_is_refused_until_the_buffer_is_closed(engine: SqliteEngine) -> None:
    script = """if True:
        import asyncio, pathlib, sys
        from proxy.buffer import Terms
        from proxy.buffer.sqlite import OpenRefused, SqliteBuffer
        async def main():
            await (await SqliteBuffer.opened(pathlib.Path(sys.argv[1]), Terms())).close()
        try:
            asyncio.run(main())
        except OpenRefused as error:
            print(error)
    """

    def other_process() -> str:
        command = [sys.executable, "-c", script, str(engine.path)]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    await engine.opened()
    said = await asyncio.to_thread(other_process)
    assert said.count("\n") == 1
    assert f"in use by process {os.getpid()}" in said
    await engine.close()
    assert await asyncio.to_thread(other_process) == ""


async def test_who_only_glances_at_the_lock_keeps_no_start_away(
    engine: SqliteEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    await engine.opened()
    await engine.close()
    glancing = os.open(f"{engine.path}.lock", os.O_RDONLY)
    fcntl.flock(glancing, fcntl.LOCK_SH)
    monkeypatch.setattr(time, "sleep", lambda _seconds: os.close(glancing))
    await engine.opened()


async def test_a_refused_opener_leaves_the_lock_to_others(engine: SqliteEngine) -> None:
    engine.path.write_bytes(b"not a database" * 1000)
    await refusal(engine)
    engine.path.unlink()
    await engine.opened()


async def test_closing_twice_closes_once(engine: SqliteEngine) -> None:
    buffer = await engine.opened()
    await buffer.close()
    await buffer.close()


# -- the layout ----------------------------------------------------------------------------------------


async def test_a_newer_layout_is_refused_and_left_as_it_is(engine: SqliteEngine) -> None:
    await (await engine.opened()).append(KEY, [portion([event(1)])])
    await engine.close()
    sql(engine.path, f"PRAGMA user_version = {LAYOUT + 1}")
    before = engine.path.read_bytes()
    assert f"layout {LAYOUT + 1}" in await refusal(engine)
    assert engine.path.read_bytes() == before


async def test_an_older_layout_is_refused_and_left_as_it_is(engine: SqliteEngine) -> None:
    """No release wrote it."""
    await (await engine.opened()).append(KEY, [portion([event(1)])])
    await engine.close()
    sql(engine.path, f"PRAGMA user_version = {LAYOUT - 1}")
    before = engine.path.read_bytes()
    line = await refusal(engine)
    assert f"layout {LAYOUT - 1}" in line
    assert "move it" in line
    assert engine.path.read_bytes() == before
    for file in files_of(engine):  # as the line says
        file.unlink()
    assert await (await engine.opened()).figures() == {}


def test_what_is_stored_does_not_change_without_another_layout() -> None:
    """Else an upgrade takes a file of the release before for damaged."""
    schema = [line.partition("--")[0].strip() for line in read_schema().splitlines()]
    structs = [
        [(field.name, str(field.type)) for field in msgspec.structs.fields(each)]
        for each in stored_structs(Gate)
    ]
    trouble = [(field.name, str(field.type)) for field in dataclasses.fields(Trouble)]
    stored = repr((schema, structs, trouble))
    assert (LAYOUT, hashlib.sha256(stored.encode()).hexdigest()[:16]) == (2, "ed695cb8099a49f2"), (
        "raise LAYOUT if a release wrote the one of now, then put here what this says"
    )


async def test_a_lost_layout_version_is_refused(engine: SqliteEngine) -> None:
    await engine.opened()
    await engine.close()
    sql(engine.path, "PRAGMA user_version = 0")
    assert "lost its layout version" in await refusal(engine)


@pytest.mark.parametrize("version", [0, LAYOUT])
async def test_another_programs_database_is_refused_and_left_as_it_is(
    engine: SqliteEngine, version: int
) -> None:
    sql(engine.path, "CREATE TABLE song (title TEXT)")
    sql(engine.path, f"PRAGMA user_version = {version}")
    before = engine.path.read_bytes()
    assert "not a buffer of this program" in await refusal(engine)
    assert engine.path.read_bytes() == before


async def test_a_file_that_is_no_database_is_refused_and_left_as_it_is(engine: SqliteEngine) -> None:
    engine.path.write_text("shopping list\n" * 1000)
    before = engine.path.read_bytes()
    await refusal(engine)
    assert engine.path.read_bytes() == before


@pytest.mark.parametrize("emptied", [False, True])
async def test_a_database_that_is_gone_where_there_was_one_is_no_fresh_start(
    engine: SqliteEngine, emptied: bool
) -> None:
    await (await engine.opened()).append(KEY, [portion([event(1)])])
    await engine.close()
    engine.path.unlink()
    if emptied:
        engine.path.touch()
    line = await refusal(engine)
    assert "gone or empty" in line
    assert await refusal(engine) == line  # the refusal does not forget it
    engine.path.with_name("buffer.db.lock").unlink()  # as the line says
    assert await (await engine.opened()).figures() == {}


async def test_an_empty_file_on_a_first_start_is_taken(engine: SqliteEngine) -> None:
    engine.path.touch()
    await engine.opened()


def damage(path: Path, table: str) -> None:
    """Overwrite a page of a table, that with its first rows, as a bad disk would."""
    with closing(apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)) as connection:
        first = "SELECT pageno FROM dbstat WHERE name = ? AND pagetype = 'leaf' ORDER BY path LIMIT 1"
        [(page,)] = connection.execute(first, (table,))
    with path.open("r+b") as file:
        file.seek((page - 1) * 4096)
        file.write(b"\xff" * 4096)


@pytest.mark.parametrize("table", ["key", "queue_due", "seen_turn"])
async def test_a_database_that_is_damaged_where_a_start_looks_is_refused(
    engine: SqliteEngine, table: str
) -> None:
    buffer = await engine.opened()
    await buffer.append(KEY, [portion(events(1, 50), str(n)) for n in range(20)])
    await engine.close()
    damage(engine.path, table)
    assert "damaged" in await refusal(engine)
    assert "damaged" in await refusal(engine)  # and not "in use"


async def test_damage_that_shows_later_ends_the_engine(engine: SqliteEngine) -> None:
    buffer = await engine.opened()
    await buffer.append(KEY, [portion(events(1, 50), str(n)) for n in range(20)])
    await engine.close()
    damage(engine.path, "lane")
    buffer = await engine.opened()
    engine.advance(1)
    lease = await leased(buffer)
    with pytest.raises(BufferBroken, match=r"is damaged: move it"):
        await buffer.read(lease, 100, 1_000_000)
    assert "malformed" in str(await asyncio.wait_for(buffer.failed(), 5))
    assert "is damaged" in await refusal(engine), "and no later start writes on it"


async def test_damage_that_a_recount_meets_ends_the_engine(engine: SqliteEngine) -> None:
    buffer = await engine.opened()
    await buffer.append(KEY, [portion(events(1, 50), str(n)) for n in range(20)])
    await engine.close()
    damage(engine.path, "run_of_queue")
    buffer = await engine.opened()
    with pytest.raises(BufferBroken):
        await buffer.figures(recount=True)
    with pytest.raises(BufferBroken):
        await buffer.append(KEY, [portion([event(1)])])


async def test_a_stored_event_that_was_changed_is_never_sent(engine: SqliteEngine) -> None:
    buffer = await engine.opened()
    await buffer.append(KEY, [portion([event("whole")])])
    await engine.close()
    database = engine.path.read_bytes()
    assert database.count(b'"n":"whole"') == 1
    engine.path.write_bytes(database.replace(b'"n":"whole"', b'"n":"other"'))
    buffer = await engine.opened()
    engine.advance(1)
    with pytest.raises(BufferBroken, match="not as it was written"):
        await buffer.read(await leased(buffer), 100, 1_000_000)


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("UPDATE key SET gate = x'80'", "gate cannot be read"),
        ("UPDATE key SET gate = x'c1'", "gate cannot be read"),
        ("UPDATE queue SET trouble = x'80'", "trouble cannot be read"),
    ],
)
async def test_a_gate_or_a_trouble_that_cannot_be_read_is_damage(
    engine: SqliteEngine, statement: str, said: str
) -> None:
    buffer = await engine.opened()
    await buffer.append(KEY, [portion([event(1)])])
    await engine.close()
    sql(engine.path, statement)
    buffer = await engine.opened()
    engine.advance(1)
    with pytest.raises(BufferBroken, match=said):
        await buffer.claim(KEY, token())
    assert "is damaged" in await refusal(engine)


async def test_figures_of_a_gate_that_cannot_be_read_are_damage(engine: SqliteEngine) -> None:
    buffer = await engine.opened()
    await buffer.append(KEY, [portion([event(1)])])
    await engine.close()
    sql(engine.path, "UPDATE key SET gate = x'80'")
    buffer = await engine.opened()
    with pytest.raises(BufferBroken, match="gate cannot be read"):
        await buffer.figures()


@pytest.mark.parametrize(
    "damaged", [lambda log: log[: len(log) // 2], lambda log: log[:9_000] + b"\xff" * 64 + log[9_064:]]
)
async def test_a_log_that_lost_committed_frames_is_refused_until_somebody_has_looked(
    engine: SqliteEngine, tmp_path: Path, damaged: Callable[[bytes], bytes]
) -> None:
    """SQLite itself takes it for a shorter history, and opens it without a word."""
    engine.sync_every_commit = True
    buffer = await engine.opened()
    for number in range(20):
        await buffer.append(KEY, [portion([event(number)])])
    killed = SqliteEngine(tmp_path / "killed")
    killed.sync_every_commit = True
    killed.path.parent.mkdir()
    for file in files_of(engine):
        contents = file.read_bytes()
        copy = killed.path.parent / file.name
        copy.write_bytes(damaged(contents) if file.name.endswith("-wal") else contents)
    assert "acknowledged are missing" in await refusal(killed)
    assert "is damaged" in await refusal(killed), "the index was written anew, but it is not forgotten"


async def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    engine = SqliteEngine(tmp_path / "file" / "folder")
    line = "cannot write in"
    with pytest.raises(OpenRefused, match=line):
        await engine.opened()


async def test_figures_that_cannot_be_read_are_unavailable(engine: SqliteEngine, tmp_path: Path) -> None:
    """As when the process has no descriptor left: that must not look like a defect of the caller's."""
    buffer = await engine.opened()
    moved = tmp_path / "moved"
    moved.mkdir()
    for file in files_of(engine):
        shutil.move(file, moved)
    with pytest.raises(BufferUnavailable):
        await buffer.figures()


# -- what is kept --------------------------------------------------------------------------------------


async def test_what_was_answered_is_in_the_file_without_a_proper_close(
    engine: SqliteEngine, tmp_path: Path
) -> None:
    """The file and its log, copied at any moment, are what a crash would leave."""
    buffer = await engine.opened()
    await buffer.append(KEY, [portion(events(1, 10))])
    engine.advance(1)
    await settled(buffer, await leased(buffer), 3)
    crashed = SqliteEngine(tmp_path / "crashed")
    crashed.path.parent.mkdir()
    for file in files_of(engine):
        shutil.copy(file, crashed.path.parent)
    recovered = await crashed.opened()
    assert await books(recovered) == Books(accepted=10, held=7, delivered=3)
    assert await recovered.append(KEY, [portion(events(1, 10))]) == Appended(0, 10)
    await crashed.close()


async def test_a_recount_finds_what_the_books_do_not_say(engine: SqliteEngine) -> None:
    buffer = await engine.opened()
    await buffer.append(KEY, [portion(events(1, 3)), portion(events(4, 8), "r")])
    await engine.close()
    sql(engine.path, "DELETE FROM run WHERE events = 3")
    buffer = await engine.opened()
    assert (await buffer.figures())[KEY].books.difference == 0  # not counted yet
    assert (await buffer.figures(recount=True))[KEY].books == Books(accepted=8, held=5, difference=3)
    assert (await buffer.figures())[KEY].books.difference == 3


async def test_a_dedup_window_ends_to_the_millisecond(engine: SqliteEngine) -> None:
    buffer = await engine.opened()
    for start in range(3):
        await buffer.append(KEY, [portion([event(start)])])
        engine.clock.offset_ms += 599_999
        assert await buffer.append(KEY, [portion([event(start)])]) == Appended(0, 1)
        engine.clock.offset_ms += 1
        assert await buffer.append(KEY, [portion([event(start)])]) == Appended(1, 0)


async def test_dedup_ids_and_empty_queues_are_forgotten_after_two_windows(engine: SqliteEngine) -> None:
    """Memory of what is gone has a bound: else a year's visitors would fill the file."""
    buffer = await engine.opened()
    for name in range(50):
        await buffer.append(KEY, [portion([event(name)], str(name))])
    while not isinstance(claimed := await buffer.claim(KEY, token()), Idle) or not claimed.empty:
        if isinstance(claimed, Idle):
            engine.advance(claimed.wait_s)
        else:
            await settled(buffer, claimed, 1)
    for _ in range(3):
        engine.advance(601)
        await buffer.append(KEY, [portion([event("later")], "later")])
    await engine.close()
    assert sql(engine.path, "SELECT count(*) FROM queue") == [(1,)]
    assert sql(engine.path, "SELECT (SELECT count(*) FROM seen_0) + (SELECT count(*) FROM seen_1)") <= [(2,)]


async def test_events_are_new_again_after_the_transaction_they_came_in_was_undone(
    engine: SqliteEngine,
) -> None:
    buffer = await engine.opened()

    def fails() -> None:
        raise apsw.FullError

    # Both in one transaction, which the second has undone; each is then tried alone.
    first = asyncio.create_task(buffer.append(KEY, [portion(events(1, 3))]))
    second = asyncio.create_task(buffer._writer.run(fails))
    assert await first == Appended(3, 0)
    with pytest.raises(BufferFull):
        await second
    assert await buffer.append(KEY, [portion(events(1, 4))]) == Appended(1, 3)
    assert (await books(buffer)).held == 4


async def test_a_rate_token_is_taken_once_by_a_claim_whose_transaction_was_undone(
    engine: SqliteEngine,
) -> None:
    buffer = await engine.opened(replace(TERMS, limit_per_s=1.0))
    await buffer.append(KEY, [portion([event(1)], "q"), portion([event(2)], "r")])
    engine.advance(1)

    def fails() -> None:
        raise apsw.FullError

    first = asyncio.create_task(buffer.claim(KEY, token()))
    second = asyncio.create_task(buffer._writer.run(fails))
    assert isinstance(await first, Lease)
    with pytest.raises(BufferFull):
        await second
    assert 0 < (await idle(buffer)).wait_s <= 1.2


async def test_many_queues_are_retried_a_few_at_a_time(
    engine: SqliteEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (pauses, engine_module):
        monkeypatch.setattr(module, "RETRIED_AT_ONCE", 5)
    buffer = await engine.opened()
    for queues in (5, 12):
        await buffer.append(KEY, [portion([event(number)], str(number)) for number in range(queues)])
        for _ in range(queues):
            await settled(buffer, await due(buffer, engine), 1, again=[0], wait_s=3600.0)
        assert await buffer.retry(KEY) == queues
        await drained(buffer, engine)
        engine.advance(TERMS.dedup_window_s)


@pytest.mark.parametrize("size", [0, 600, 2_000, 20_000])
@pytest.mark.parametrize("moved", ["not at all", "rewritten", "died", "replayed"])
async def test_what_is_erased_is_nowhere_in_the_files(engine: SqliteEngine, moved: str, size: int) -> None:
    """Not where it lay before it was moved either, be it in a freed page or in the log."""
    buffer = await engine.opened()
    theirs, other = event("ann", size=size), event(1, size=size)
    ends: set[bytes] = set()

    async def look() -> None:
        # The end of what is stored is theirs; where it is long it is compressed.
        bodies = "SELECT body FROM run WHERE queue_id = 1"
        for (body,) in await buffer._look(lambda reader: list(reader.execute(bodies))):
            ends.add(body[-18:])

    async def crowd(first: int) -> None:
        """Others come, so that the database's pages are split and filled."""
        for number in range(first, first + 40):
            await buffer.append(OTHER_KEY, [portion([event(number, size=300)], str(number))])

    await buffer.append(KEY, [portion([other, theirs] if moved == "rewritten" else [theirs])])
    await look()
    await crowd(100)
    if moved != "not at all":
        lease = await due(buffer, engine)
        await settled(buffer, lease, 1, dead=None if moved == "rewritten" else {0: REFUSED})
        await look()
        await crowd(200)
    if moved == "replayed":
        await buffer.replay(Which())
        await look()
        await crowd(300)

    assert ends
    erased = await buffer.erase(lambda header, text: b'"ann"' in text)
    assert erased.held + erased.dead == 1
    crowds = 1 + (moved != "not at all") + (moved == "replayed")
    assert await books(buffer, OTHER_KEY) == Books(accepted=40 * crowds, held=40 * crowds)
    files = {file.name: file.read_bytes() for file in files_of(engine)}
    assert [(end, name) for end in (*ends, b'"ann"') for name in files if end in files[name]] == []


async def test_ordinary_batches_push_no_ambiguous_one_off_the_record(
    engine: SqliteEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So many of each are remembered of each key, the newest."""
    monkeypatch.setattr(records, "ORDINARY", 5)
    monkeypatch.setattr(records, "AMBIGUOUS", 2)
    buffer = await engine.opened()
    for number in range(30):
        key, ambiguous = (KEY, number % 10 == 0) if number % 2 == 0 else (OTHER_KEY, False)
        await buffer.append(key, [portion([event(number)])])
        await settled(buffer, await due(buffer, engine, key), 1, ambiguous=ambiguous)
        if number == 15:
            buffer = await engine.opened()
    known = [number for number in range(30) if (await buffer.trace(event(number).uuid)).batches]
    assert known == [10, 18, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29]
    assert [batch.uuids for batch in await buffer.ambiguous()] == [event(20).uuid, event(10).uuid]
    figures = await buffer.figures()
    assert (figures[KEY].ambiguous, figures[OTHER_KEY].ambiguous) == (3, 0)


# -- storage errors ------------------------------------------------------------------------------------


class Disk(apsw.VFS):
    """The system's files, with faults that can be switched on."""

    def __init__(self) -> None:
        self.error: int | None = None  # an errno
        self.of_syncs = False
        self.struck = 0
        self.recovers = False  # after the first strike
        super().__init__("faulty", "unix", makedefault=True)

    def xOpen(self, name: Any, flags: Any) -> "DiskFile":  # noqa: N802
        return DiskFile(self, name, flags)

    def strike(self, *, sync: bool) -> None:
        if self.error is None or sync != self.of_syncs:
            return
        self.struck += 1
        if self.error == ENOSPC:
            raise apsw.FullError
        if self.recovers:
            self.error = None
        raise apsw.IOError("disk I/O error")


class DiskFile(apsw.VFSFile):
    def __init__(self, disk: Disk, name: Any, flags: Any) -> None:
        super().__init__("unix", name, flags)
        self._disk = disk

    def xWrite(self, data: Any, offset: int) -> None:  # noqa: N802
        self._disk.strike(sync=False)
        super().xWrite(data, offset)

    def xSync(self, flags: int) -> None:  # noqa: N802
        self._disk.strike(sync=True)
        super().xSync(flags)


@pytest.fixture
def disk() -> Iterator[Disk]:
    made = Disk()
    yield made
    made.unregister()


@pytest.fixture
async def on_disk(disk: Disk, tmp_path: Path) -> AsyncIterator[SqliteBuffer]:
    """Ten events on a disk whose faults can be switched on; every commit is synced."""
    buffer = await SqliteBuffer.opened(tmp_path / "buffer.db", replace(TERMS, linger_s=0.0))
    await buffer.append(KEY, [portion(events(1, 10))])
    yield buffer
    disk.error = None
    await buffer.close()


@pytest.mark.parametrize("of_syncs", [False, True])
async def test_a_storage_error_fails_all_that_was_asked_and_ends_the_engine(
    disk: Disk, on_disk: SqliteBuffer, tmp_path: Path, of_syncs: bool
) -> None:
    disk.error, disk.of_syncs = EIO, of_syncs
    asked = [on_disk.append(KEY, [portion([event(f"lost {n}")])]) for n in range(20)]
    async with asyncio.timeout(10):
        outcomes = await asyncio.gather(*asked, on_disk.claim(KEY, token()), return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} == {BufferBroken}
        assert str(await on_disk.failed()).startswith("disk I/O error; see to the disk, then start again")
    # Nothing is tried again, even where the disk seems well: a second fsync reports a success that is none.
    disk.error, struck = None, disk.struck
    for verb in (on_disk.append(KEY, [portion([event(11)])]), on_disk.check(), on_disk.keys_with_work()):
        with pytest.raises(BufferUnavailable):
            await verb
    assert disk.struck == struck
    await on_disk.close()
    recovered = await SqliteBuffer.opened(tmp_path / "buffer.db", TERMS)
    found = await books(recovered)
    # What was acknowledged is there. What was not may be: its bytes may have reached the disk.
    assert 10 <= found.held <= 30
    await recovered.close()


async def test_what_waits_behind_a_failed_commit_is_not_committed_either(
    disk: Disk, on_disk: SqliteBuffer
) -> None:
    """More than one group of commits, on a disk that fails once."""
    disk.error, disk.of_syncs, disk.recovers = EIO, True, True
    asked = [on_disk.append(KEY, [portion([event(f"lost {n}")])]) for n in range(1_500)]
    outcomes = await asyncio.gather(*asked, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {BufferBroken}
    assert disk.struck == 1


async def test_who_asks_while_storage_fails_is_answered_too(disk: Disk, on_disk: SqliteBuffer) -> None:
    """None of a crowd that keeps asking may hang."""
    disk.error = EIO

    async def asks() -> int:
        refused = 0
        while refused < 3:
            try:
                await on_disk.append(KEY, [portion([event(token().hex())])])
            except BufferUnavailable:
                refused += 1
        return refused

    async with asyncio.timeout(10):
        assert sum(await asyncio.gather(*(asks() for _ in range(30)))) == 90


async def test_a_full_disk_refuses_appends_and_does_not_end_the_engine(
    disk: Disk, on_disk: SqliteBuffer
) -> None:
    disk.error = ENOSPC
    with pytest.raises(BufferFull):
        await on_disk.append(KEY, [portion([event("more")])])
    # A claim cannot be written either; it is asked again, and no reason to end the process.
    with pytest.raises(BufferUnavailable):
        await on_disk.claim(KEY, token())
    disk.error = None
    assert await on_disk.append(KEY, [portion([event("more")])]) == Appended(1, 0)
    lease = await leased(on_disk)
    disk.error = ENOSPC
    with pytest.raises(BufferUnavailable):
        await on_disk.settle(lease, Settlement(11))
    disk.error = None
    await settled(on_disk, lease, 11)
    assert await books(on_disk) == Books(accepted=11, delivered=11)


async def bound_file(buffer: SqliteBuffer, pages: int) -> None:
    """Let the file grow by so many pages and no more."""

    def bound() -> None:
        used = buffer._writer._connection.pragma("page_count")
        assert buffer._writer._connection.pragma("max_page_count", used + pages) == used + pages

    await buffer._writer.run(bound)
    buffer._verbs.rebound = lambda: None  # type: ignore[method-assign]  # the disk has more room than that


@pytest.mark.parametrize("all_die", [False, True])
@pytest.mark.parametrize("pages", [20, 200])
async def test_a_file_at_its_bound_refuses_appends_whole_and_can_be_emptied(
    engine: SqliteEngine, pages: int, all_die: bool
) -> None:
    buffer = await engine.opened()
    await buffer.append(OTHER_KEY, [portion([event(0)])])
    await bound_file(buffer, pages)
    taken = [await filled(buffer, size=size) for size in (2_000, 200, 20)]  # to the last byte
    accepted = 2 * sum(taken)
    assert await books(buffer) == Books(accepted=accepted, held=accepted)
    with pytest.raises(BufferFull):
        await buffer.check()
    engine.advance(1)
    while not isinstance(claimed := await buffer.claim(KEY, token()), Idle) or not claimed.empty:
        if isinstance(claimed, Idle):
            engine.advance(claimed.wait_s)
            continue
        batch = await head_texts(buffer, claimed)
        dead = dict.fromkeys(range(len(batch)), REFUSED) if all_die else None
        await settled(buffer, claimed, len(batch), dead=dead)
    if all_die:
        assert await books(buffer) == Books(accepted=accepted, dead=accepted)
    else:
        assert await books(buffer) == Books(accepted=accepted, delivered=accepted)
        await buffer.check()
        assert await buffer.append(KEY, [portion([event("again", size=2_000)])]) == Appended(1, 0)


@pytest.fixture
def stranger(engine: SqliteEngine, monkeypatch: pytest.MonkeyPatch) -> Iterator[apsw.Connection]:
    """Somebody else's connection to the file, of which nobody waits for long."""
    monkeypatch.setattr(writer, "_BUSY_S", 0.001)
    engine.path.touch()
    connection = apsw.Connection(str(engine.path))
    yield connection
    connection.close()


async def test_a_strangers_transaction_makes_the_buffer_unavailable_while_it_lasts(
    engine: SqliteEngine, stranger: apsw.Connection
) -> None:
    buffer = await engine.opened()
    stranger.execute("BEGIN IMMEDIATE")
    asked = [buffer.append(KEY, [portion([event(n)], str(n))]) for n in range(3)]
    outcomes = await asyncio.gather(*asked, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {BufferUnavailable}
    stranger.execute("ROLLBACK")
    assert await buffer.append(KEY, [portion([event(1)])]) == Appended(1, 0)
    assert await books(buffer) == Books(accepted=1, held=1)


async def test_a_stranger_who_meets_a_full_file_does_not_end_the_engine(
    engine: SqliteEngine, stranger: apsw.Connection
) -> None:
    buffer = await engine.opened()
    await bound_file(buffer, 30)
    buffer._verbs.rebound = lambda: stranger.execute("BEGIN IMMEDIATE")  # type: ignore[method-assign, assignment]
    large = [portion([event(n, size=5_000) for n in range(100)], "large")]
    with pytest.raises(BufferUnavailable, match="another process"):
        await buffer.append(KEY, large)
    stranger.execute("ROLLBACK")
    assert await buffer.append(KEY, [portion([event(1)])]) == Appended(1, 0)


async def test_one_request_too_large_for_the_file_takes_no_other_down_with_it(engine: SqliteEngine) -> None:
    buffer = await engine.opened()
    await bound_file(buffer, 30)
    asked = [buffer.append(KEY, [portion([event(n)], str(n))]) for n in range(10)]
    large = buffer.append(KEY, [portion([event(n, size=5_000) for n in range(100)], "large")])
    *stored, refused = await asyncio.gather(*asked, large, return_exceptions=True)
    assert stored == [Appended(1, 0)] * 10
    assert isinstance(refused, BufferFull)
    assert await books(buffer) == Books(accepted=10, held=10)


async def test_a_defect_in_a_verb_fails_it_and_ends_the_engine(engine: SqliteEngine) -> None:
    buffer = await engine.opened()
    with pytest.raises(BufferUnavailable):
        await buffer._writer.run(lambda: 1 // 0)
    assert isinstance((await asyncio.wait_for(buffer.failed(), 5)).__cause__, ZeroDivisionError)


# -- group commit --------------------------------------------------------------------------------------


async def test_appends_at_once_share_their_commits(engine: SqliteEngine) -> None:
    buffer = await engine.opened()
    commits = 0

    def committed() -> bool:
        nonlocal commits
        commits += 1
        return False  # let it happen

    await buffer._writer.run(lambda: buffer._writer._connection.set_commit_hook(committed))
    commits = 0
    appends = [buffer.append(KEY, [portion([event(number)], str(number % 7))]) for number in range(400)]
    assert set(await asyncio.gather(*appends)) == {Appended(1, 0)}
    assert 1 <= commits <= 20
    assert (await books(buffer)).held == 400


async def test_a_refused_append_in_a_group_leaves_the_others_theirs(engine: SqliteEngine) -> None:
    buffer = await engine.opened(replace(TERMS, max_bytes_per_key=30_000))
    appends = [
        buffer.append(KEY, [portion([event(number, size=1_000)], str(number))]) for number in range(60)
    ]
    outcomes = await asyncio.gather(*appends, return_exceptions=True)
    stored = outcomes.count(Appended(1, 0))
    assert 15 < stored < 30
    assert sum(isinstance(outcome, BufferFull) for outcome in outcomes) == 60 - stored
    assert (await books(buffer)).held == stored


@pytest.mark.parametrize("cancelled_after", range(4))
async def test_cancelled_appends_are_each_whole_or_absent(engine: SqliteEngine, cancelled_after: int) -> None:
    """Cancelled before they ran at all, while queued, while being committed."""
    buffer = await engine.opened()
    appends = [
        asyncio.create_task(
            buffer.append(
                KEY, [portion(events(10 * n, 10 * n + 4)), portion(events(10 * n + 5, 10 * n + 9), "r")]
            )
        )
        for n in range(50)
    ]
    for _ in range(cancelled_after):
        await asyncio.sleep(0)
    for append in appends[::2]:
        append.cancel()
    outcomes = await asyncio.gather(*appends, return_exceptions=True)
    assert outcomes[1::2] == [Appended(10, 0)] * 25
    await buffer.check()  # asked for after them, so answered after them
    engine.advance(1)
    by_queue = []
    for _ in range(2):
        lease = await leased(buffer)
        found: list[bytes] = []
        while (await buffer.figures())[KEY].books.held and len(
            batch := await head_texts(buffer, lease)
        ) == 100:
            found += batch
            await settled(buffer, lease, 100)
            lease = await leased(buffer)
        found += batch
        by_queue.append(set(found))
        await settled(buffer, lease, len(batch))
    everything = set().union(*by_queue)
    for n, outcome in enumerate(outcomes):
        own = set(texts(events(10 * n, 10 * n + 9)))
        assert own <= everything or (not own & everything and outcome != Appended(10, 0))
    assert (await idle(buffer)).empty


# -- the clock -----------------------------------------------------------------------------------------


def test_the_stores_clock_follows_no_change_of_the_time_of_day() -> None:
    wall, monotonic = [1_800_000_000.0], [50.0]
    clock = StoreClock(wall=lambda: wall[0], monotonic=lambda: monotonic[0])
    assert clock.now_ms() == 1_800_000_000_000
    wall[0] -= 3600
    monotonic[0] += 1.5
    assert clock.now_ms() == 1_800_000_001_500
    clock.offset_ms = -500
    assert clock.now_ms() == 1_800_000_001_000


# -- the file itself -----------------------------------------------------------------------------------


@pytest.mark.parametrize("replaced", [False, True])
async def test_a_file_that_is_deleted_under_us_ends_acknowledging(
    engine: SqliteEngine, *, replaced: bool
) -> None:
    buffer = await engine.opened()
    await buffer.append(KEY, [portion([event(1)])])
    for file in files_of(engine):
        file.unlink()
    if replaced:
        engine.path.write_bytes(b"")
    with pytest.raises(BufferUnavailable, match="deleted or replaced"):
        await buffer.append(KEY, [portion([event(2)])])
    assert "deleted or replaced" in str(await buffer.failed())
    with pytest.raises(BufferUnavailable):
        await buffer.check()


async def test_the_files_are_for_their_owner_only(engine: SqliteEngine) -> None:
    buffer = await engine.opened()
    await buffer.append(KEY, [portion([event(1)])])
    assert {file.name: oct(file.stat().st_mode & 0o777) for file in files_of(engine)} == {
        file.name: "0o600" for file in files_of(engine)
    }


async def test_another_name_of_the_file_is_the_same_file(engine: SqliteEngine, tmp_path: Path) -> None:
    await engine.opened()
    other_name = tmp_path / "other-name.db"
    other_name.symlink_to(engine.path)
    with pytest.raises(OpenRefused, match="in use"):
        await SqliteBuffer.opened(other_name, TERMS)


async def test_somebody_elses_transaction_is_waited_out_and_breaks_nothing(engine: SqliteEngine) -> None:
    buffer = await engine.opened()
    # Another process: within one, the locks of two SQLite libraries do not see each other.
    hold = (
        f"import sqlite3; c = sqlite3.connect({str(engine.path)!r}, isolation_level=None);"
        " c.execute('BEGIN IMMEDIATE'); print('held', flush=True); input()"
    )
    with subprocess.Popen(  # noqa: ASYNC220
        [sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(BufferUnavailable, match="another process"):
            await buffer.append(KEY, [portion([event(1)])])
        other.communicate(b"\n")
    assert await buffer.append(KEY, [portion([event(1)])]) == Appended(1, 0)
