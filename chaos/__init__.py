"""Fault injection: `make chaos` breaks real runs and sweeps on purpose and counts what is lost. Nothing may be.

failpoints     a hook at every file operation of a process
attempt        one run in a fork, killed at a fail point
harness        the undisturbed run, and copies of it killed half-way
faults         the list of faults at a single run
sandbox        a small sweep with real agents as subprocesses
random_kills   signals to agents and runs at random moments
soak           memory, open files and threads over many runs
invariants     what must hold of run directories afterwards

Import order: failpoints, invariants, sandbox < attempt < harness < faults, random_kills, soak < __main__. May import
finetune and agent; nothing imports chaos.
"""
