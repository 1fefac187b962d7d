"""One process: every room built, started, watched, reloaded and stopped in order.

``process`` is that order; ``rooms`` builds them from settings and gives them others at a reload, ``reload``
decides what a reload changes; ``leftovers`` says what a drain had to leave, ``supervisor`` speaks to systemd.
"""

from proxy.service.listening import cannot_listen, descriptors, too_few_descriptors, unsafe_parser
from proxy.service.process import Running, Service
from proxy.service.supervisor import Supervisor

__all__ = [
    "Running",
    "Service",
    "Supervisor",
    "cannot_listen",
    "descriptors",
    "too_few_descriptors",
    "unsafe_parser",
]
