"""Image files: which kinds there are, what of their metadata counts, and how they are read.

May import: errors, system. The rest of data imports from here.
"""
