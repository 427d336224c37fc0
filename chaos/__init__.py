"""Kills, crashes and stray files, put into real sweeps on purpose: `make chaos` counts what is lost. Nothing should be.

Arrows: __main__ -> faults -> {storm, crashes, rivals, soak} -> {scene, verdict} -> points.
"""
