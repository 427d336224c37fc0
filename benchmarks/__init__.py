"""How fast runs are, beside other ways to train the same thing: `make bench`.

plain, ours, peers/    the contenders; baselines is their list
runner, job            measures them in turns, each in a process of its own
meters, roofline       time, memory, machine; the time that the arithmetic takes at best
table, figure          from results to Markdown, and to the figure in docs/
whole_sweep            the plain loop beside a finished sweep
oneoff/                single measurements behind numbers in the documentation

May import finetune and (whole_sweep) analysis; nothing imports benchmarks.
"""
