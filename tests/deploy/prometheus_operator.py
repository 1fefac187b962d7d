"""The kinds that the Prometheus operator brings, as models of its own.

To be asked for within a test: importing them takes seconds, and each worker imports every file of tests.
"""

import importlib.util
import sys
from functools import cache
from importlib.metadata import distribution
from types import ModuleType


@cache
def models() -> ModuleType:
    """Each kind by its name: this file alone, for the door of the package takes as long again."""
    (path,) = [
        each.locate()
        for each in distribution("cloudcoil.models.prometheus_operator").files or ()
        if str(each).endswith("prometheus_operator/v1.py")
    ]
    spec = importlib.util.spec_from_file_location("prometheus_operator_v1", str(path))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where pydantic looks for what a model names
    spec.loader.exec_module(module)
    return module
