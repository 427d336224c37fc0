"""What can be computed again, on disk: decoded images, and activations of the frozen prefix.

store holds entries within a budget, entry_writer fills one so that it survives a crash; pixel_cache and
activation_cache are the two caches, reuse decides what is worth storing. Imports models, data, rundir, config
and system.
"""
