"""The buffer for production: one Redis (or Valkey, or a Cluster of them) that several replicas share.

*The engine*: `engine` is the contract. Its verbs are `appends`, `deliveries`, `pauses`, `dead_letters`,
`erasure`, `traces` and `figures`, each of their transactions one script of `lua/`. `keys` and `entries` say
what is stored, under which names and in which bytes; `store` is what the verbs share, `facts` what bounds
over all keys need, `roster` which keys there are, `lists` how to look through what is held while it moves.

*The link*, below it: `link` is what the engine asks for, whatever stands behind the address; `scripts` is
where the Lua files are read.

*Beside both*: `survey` and `findings` look at whether a Redis is fit, `rights` at what its user may do, and
`look` asks them all for `outlit-proxy check`; `apart` gives a demo a store of its own; `bench` is what
`outlit-proxy bench` measures.
"""

from proxy.buffer.redis.engine import RedisBuffer

__all__ = ["RedisBuffer"]
