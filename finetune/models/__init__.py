"""Networks as ordered blocks, their weights, and what is frozen when.

classifier and families make a torchvision network a list of blocks; unfreezing says which blocks train at an epoch;
frozen_prefix computes those that do not. Imports data, rundir, config and system.
"""
