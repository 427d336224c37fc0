"""Run directories -> numbers, tables, figures, grid, report. Reads what runs left behind and trains nothing.

`python -m analysis` says how; `__main__.py` names the other files in the order they act.
"""
