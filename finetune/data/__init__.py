"""Images -> splits -> samples.

layout and catalog find the images, scan and duplicates inspect them, splits deals them out, transforms and augmentation
prepare them, dataset loads them. check/ is the doctor, demo/ the drawn set. Imports rundir, config and system.
"""
