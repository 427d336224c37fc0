"""Peers that runs are measured against: loops with timm, fastai and Lightning, each with a `train(config, ...)`.

They start from plain.set_up, and return the result of plain.train as far as they can measure it. Only the environment
of `make bench` has their packages. May import benchmarks.plain, benchmarks.meters and finetune.
"""
