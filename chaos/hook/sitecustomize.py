"""Arms the fail points in every Python process that finds this folder on its path (see chaos/failpoints.py)."""

import importlib.util
import os
import sys
from importlib.machinery import PathFinder
from pathlib import Path

# Python runs only the first `sitecustomize` of its path. The one that this file hides is run from here.
_other_places = [place for place in sys.path if Path(place).resolve() != Path(__file__).parent]
_spec = PathFinder.find_spec("sitecustomize", _other_places)
if _spec is not None and _spec.loader is not None:
    _spec.loader.exec_module(importlib.util.module_from_spec(_spec))

if "CHAOS_LOG" in os.environ:
    from chaos.failpoints import arm_from_environment

    arm_from_environment()
