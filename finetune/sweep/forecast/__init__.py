"""Forecast of a sweep: time and disk space of its pending runs, from a short measurement on this machine.

    workload.py                collects facts about the pending runs; the entry point
    probe.py probe_pool.py     the measurement, as a process; as many at once as there will be runs
    model.py                   arithmetic: seconds and bytes of each run
    report.py                  how a forecast is printed, stored, and compared with the result

May import finetune.sweep and all rooms to its left; report.py does not import torch.
"""
