"""``python -m proxy`` is ``outlit-proxy``."""

from proxy.cli import main

main(prog_name="outlit-proxy")
