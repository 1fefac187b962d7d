"""The gateway to Outlit's Platform API, so that the secret API key need not leave the server.

``gateway`` walks one call through the room: ``admission`` says whether it may be made (``bearer`` who calls,
``paths`` where it leads), ``knowledge`` what need not be asked (of keys: ``validity``, and their ``plan``),
``turns`` whose turn it is; ``client`` asks Outlit, ``passing`` passes the answer on, both with the
``headers`` that may travel. ``presence`` watches that somebody waits; ``answers`` are given here.
"""

from proxy.gateway.admission import MAX_CALLS
from proxy.gateway.answers import own_answer
from proxy.gateway.figures import Figures, Refused
from proxy.gateway.gateway import Gateway
from proxy.gateway.paths import is_of_the_gateway

__all__ = ["MAX_CALLS", "Figures", "Gateway", "Refused", "is_of_the_gateway", "own_answer"]
