"""Arms the points in every Python process that finds this folder on its path (see chaos/points.py)."""

import os

if "CHAOS_LOG" in os.environ:
    from chaos.points import arm_from_environment

    arm_from_environment()
