"""Kills, crashes and stray files, put into real sweeps on purpose: `make chaos` counts what is lost. Nothing should be.

Arrows: __main__ -> faults -> {storm, crashes, rivals, soak} -> {scene, verdict} -> points.
"""

import os

# Before torch is imported: its threads do not outlive a fork, and a child that waits for them waits for ever.
os.environ.setdefault("OMP_NUM_THREADS", "1")
