"""Arms the points in every Python process that finds this folder on its path (see chaos/failpoints.py)."""

import importlib.util
import os
import sys
from importlib.machinery import PathFinder
from pathlib import Path

# Python takes the first file of this name alone: the one that this hides, a system's or a test's, is run from here.
_others = [place for place in sys.path if Path(place).resolve() != Path(__file__).parent]
_spec = PathFinder.find_spec("sitecustomize", _others)
if _spec is not None and _spec.loader is not None:
    _spec.loader.exec_module(importlib.util.module_from_spec(_spec))

if "CHAOS_LOG" in os.environ:
    from chaos.failpoints import arm_from_environment

    arm_from_environment()
