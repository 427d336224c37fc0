"""What can be computed again, on disk: decoded images, and activations of the frozen prefix.

store               entries on disk within a budget
entry_writer        writes an entry so that a crash leaves no torn rows
pixel_cache         decoded images
activation_cache    the activations that a run can read
activation_entries  their names, sizes and shapes
activation_fill     computes and writes them
activation_reader   reads rows of an entry
reuse               how often runs read which activations: what is worth storing

Imports models, data, rundir, config and system.
"""
