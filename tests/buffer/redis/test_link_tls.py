"""TLS is verified, always, and what does not verify is said."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy.buffer import BufferUnavailable
from proxy.buffer.redis.link import Misconfigured, open_link
from proxy.settings.redis_url import parse_target
from tests.buffer.redis.small_scripts import COUNT, ECHO
from tests.redis_servers import Certificates, RedisServer


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    return Certificates(tmp_path / "certificates")


@pytest.fixture
def server(tmp_path: Path, certificates: Certificates) -> Iterator[RedisServer]:
    with RedisServer(tmp_path / "server", certificates=certificates) as made:
        yield made


async def test_a_certificate_of_the_named_authority_is_taken(
    server: RedisServer, certificates: Certificates
) -> None:
    for host in ("127.0.0.1", "localhost"):
        url = f"rediss://{host}:{server.port}?ca={certificates.authority}"
        link = await open_link(parse_target(url), durability="replica", replicas=0)
        large = b"x" * 3_000_000
        assert await link.run(ECHO, (b"k",), (large,)) == large
        assert await link.run(COUNT, (b"n",), (), kept=True)
        await link.close()


async def test_a_certificate_of_nobody_known_is_refused(server: RedisServer, tmp_path: Path) -> None:
    other = Certificates(tmp_path / "others").authority
    for url in (f"rediss://{server.address}", f"rediss://{server.address}?ca={other}"):
        with pytest.raises(
            BufferUnavailable, match=r"does not verify \(.+\): name its authority .* ca=/path"
        ):
            await open_link(parse_target(url))


async def test_a_certificate_for_another_name_is_refused(
    server: RedisServer, certificates: Certificates
) -> None:
    with pytest.raises(Misconfigured, match=r"does not verify \(.*mismatch"):
        await open_link(parse_target(f"rediss://127.1:{server.port}?ca={certificates.authority}"))


async def test_the_wrong_kind_of_port_is_said(
    server: RedisServer, certificates: Certificates, tmp_path: Path
) -> None:
    with pytest.raises(BufferUnavailable, match=r"closed the connection .* want TLS \(rediss://\)"):
        await open_link(parse_target(f"redis://{server.address}"))
    with (
        RedisServer(tmp_path / "plain") as plain,
        pytest.raises(BufferUnavailable, match=r"speaks no TLS that fits|did not answer in time"),
    ):
        await open_link(parse_target(f"rediss://{plain.address}?ca={certificates.authority}"))


async def test_a_file_that_is_no_certificate_is_named(tmp_path: Path) -> None:
    junk = tmp_path / "junk.pem"
    junk.write_text("junk")
    for file in (junk, tmp_path / "none.pem"):
        with pytest.raises(BufferUnavailable, match=rf"the TLS file {file} of buffer\.url cannot be used"):
            await open_link(parse_target(f"rediss://localhost:1?ca={file}"))
