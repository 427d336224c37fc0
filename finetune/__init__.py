"""Fine-tuning runs and sweeps: one run is run/run.py, a sweep is sweep/plan.py; docs/architecture.md maps the rooms.

Imports go one way: errors, seeds < system < config, resolve < rundir < data < models < cache < training < run <
inference < tracking < sweep < the commands here.
"""
