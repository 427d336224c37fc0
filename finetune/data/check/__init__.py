"""The doctor: `python -m finetune.data check`, `show` and `split`. Imports finetune.data."""
