"""What the proxy's user of a Redis must be allowed, and what of it is missing.

A script that is refused in its middle leaves half of its work done, so it pays to ask before the first one.
Redis says so itself, for the user who asks (`acl_check_cmd`, since 7.0); nothing needs a right of its own.
"""

from proxy.buffer.redis.keys import LAYOUT
from proxy.buffer.redis.link import Durability, Link
from proxy.buffer.redis.scripts import load

MAY = load("may")

COMMANDS = (
    *("get", "set", "exists", "pexpire", "pttl", "time", "sadd", "srem", "smembers"),
    *("hget", "hmget", "hgetall", "hvals", "hlen", "hscan", "hset", "hincrby", "hdel"),
    *("lrange", "lindex", "llen", "lpush", "rpush", "lpop", "lset", "lrem", "ltrim"),
    *("zadd", "zrem", "zremrangebyrank", "zcard", "zcount", "zscore", "zmscore"),
    *("zrange", "zrangebyscore", "zrevrangebyscore", "zscan"),
)
"""What scripts call, and what is asked beside them; who could not connect or run a script was told so."""


async def missing(link: Link, durability: Durability = "everysec") -> list[str]:
    """The commands that some primary does not let us do. Raises BufferUnavailable."""
    # What `always` needs was asked when the link was opened; WAIT comes behind the first write.
    needed = (*COMMANDS, "wait") if durability == "replica" else COMMANDS
    answers = await link.run_everywhere(MAY, (LAYOUT, *needed))
    refused = {command.decode("ascii") for answer in answers for command in answer}
    return [command for command in needed if command in refused]
