"""Networks as ordered blocks, their weights, and what is frozen when.

classifier      the network as ordered blocks, pool and head
families        splits networks into blocks: torchvision's by family, timm's by graph_blocks, which cuts any network
                by a graph_trace of its data flow
unfreezing      which blocks train at an epoch; unfreeze_table tabulates it
frozen_prefix   computes the blocks that do not train
microbatch      smaller batches when memory runs out
weights         pretrained weights: found, downloaded, checked, loaded; demo_weights are trained locally
weights_file    files of tensors: written with a checksum, read whoever wrote them
flops           FLOPs per block
device          device and precision by their names

Imports data, rundir, config and system.
"""
