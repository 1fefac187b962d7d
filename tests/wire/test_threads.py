"""What several threads read is known to msgspec before they do.

How to read a struct it finds out when it first reads one, or is first given one to make a decoder of. A
thread that reads while another still finds out follows a null pointer: the process ends with SIGSEGV, at a
start under load.
"""

import subprocess
import sys

_PRINT_UNKNOWN = """
import gc
import msgspec
import proxy.service
from proxy.buffer.values import Trouble

def all_below(struct):
    for each in struct.__subclasses__():
        yield each
        yield from all_below(each)

def is_known(struct):
    return any(type(each).__name__ == "StructInfo" for each in gc.get_referents(struct))

structs = [each for each in all_below(msgspec.Struct) if each.__module__.startswith("proxy.")]
print(len(structs))
print(*sorted(each.__name__ for each in structs if not is_known(each)))
print("__msgspec_cache__" in vars(Trouble))
"""

NEVER_READ = ["Columns", "Envelope", "Event", "Reading"]
"""These are made, not read; and Event is what the types of events have in common."""


def test_how_to_read_each_struct_is_known_after_the_import() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", _PRINT_UNKNOWN], capture_output=True, text=True, check=True, timeout=60
    )
    number, unknown, is_trouble_known = ended.stdout.splitlines()
    assert int(number) > 20
    assert unknown.split() == NEVER_READ
    assert is_trouble_known == "True"
