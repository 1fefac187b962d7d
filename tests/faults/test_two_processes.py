"""One buffer's file, two processes."""

from pathlib import Path

from tests.faults.installation import assert_ended_with_one_line, installed
from tests.faults.load import clients, under_load
from tests.faults.promises import assert_promises_kept
from tests.programs import Proxy, Sandbox


def test_a_second_process_on_the_file_is_refused_with_one_line_and_the_first_does_not_notice(
    proxy: Proxy, sandbox: Sandbox, tmp_path: Path
) -> None:
    """However the file is called: by its name, by a link to it, or through a link to its folder."""
    elsewhere = tmp_path / "second"
    elsewhere.mkdir()
    linked, folder = elsewhere / "linked.db", elsewhere / "linked"
    linked.symlink_to(proxy.database)
    folder.symlink_to(proxy.database.parent)
    posting = clients(browsers=4, servers=2, seed=70)
    with under_load(proxy, posting):
        for path in (proxy.database, linked, folder / proxy.database.name):
            proxy.wait_until_accepted(proxy.ledger()["accepted"] + 50)
            with installed(elsewhere, sandbox, BUFFER_URL=f"sqlite:///{path}") as second:
                second.program.start()
                line = assert_ended_with_one_line(second)
            assert second.program.log == f"{line}\n"
            assert f"{proxy.database} is in use by process {proxy.program.process.pid}" in line
    assert not any(client.posted_again for client in posting)
    proxy.wait_until_empty()
    assert not assert_promises_kept(proxy, sandbox, posting)
