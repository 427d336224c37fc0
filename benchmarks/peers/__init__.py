"""Peers that runs are measured against: loops with timm, fastai and Lightning, each with a `train(config, ...)`.

They start from plain.set_up, and return what plain.train returns as far as they know it. Only the environment of
`make bench` has their packages. May import benchmarks.plain, benchmarks.meters and finetune.
"""
