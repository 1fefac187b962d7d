"""Scripts that do one thing, for tests of what carries them."""

from hashlib import sha1

from proxy.buffer.redis.scripts import Script


def script(text: bytes) -> Script:
    """A script of this text."""
    return Script("small", text, sha1(text, usedforsecurity=False).hexdigest())


ECHO = script(b"#!lua flags=no-writes\nreturn ARGV[1]")
COUNT = script(b"#!lua\nreturn redis.call('INCR', KEYS[1])")
DRAIN = script(b"#!lua flags=allow-oom\nreturn redis.call('DEL', KEYS[1])")
FILL = script(b"#!lua\nreturn redis.call('APPEND', KEYS[1], ARGV[1])")
ALL_KINDS = script(
    b"#!lua flags=no-writes\n"
    b"return {1, 'text', false, {2, {'deep'}}, redis.status_reply('OK'), redis.call('GET', KEYS[1])}"
)
FAILS = script(b"#!lua flags=no-writes\nerror('a bug of ours')")
