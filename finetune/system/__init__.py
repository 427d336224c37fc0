"""Disks, terminals, signals and the network; knows nothing of runs.

atomic, locks, checksums, tables, documents, archive and download are about files; output, redaction and progress_bar
about what people see; signals and environment about processes. Imports errors alone.
"""
