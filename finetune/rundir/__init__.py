"""The run directory as a database: names and keys, reading and writing, who owns it, is it intact, what stays.

keys documents every file and key. Imports config, resolve and system; never torch.
"""
