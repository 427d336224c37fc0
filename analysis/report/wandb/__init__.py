"""The report of a sweep on W&B.

    text        its text
    blocks      its blocks and panels
    media_run   the W&B run that holds its images, table and files
    save        writes or updates it

Imports the rest of analysis.report and the rooms that it may import. wandb is imported only where it is used, as that
takes seconds.
"""
