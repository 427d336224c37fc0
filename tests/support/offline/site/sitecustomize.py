"""Python imports this by itself at its start where its folder is on PYTHONPATH; see the package above."""

import importlib.util
from pathlib import Path

_spec = importlib.util.spec_from_file_location("_offline", Path(__file__).parents[1] / "__init__.py")
_offline = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_offline)
_offline.install()
