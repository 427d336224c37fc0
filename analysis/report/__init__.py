"""Everything that people and programs read of a sweep.

    columns          headings and cells of every table that people read
    sentences        the verdict and the recommendation in words
    methods          how the numbers were measured, in words
    html             report.html, with its template, style and script
    markdown, latex, model_card, csv_files, json_document, terminal
                     one output each
    shell            commands for the reader to copy
    gradcam          has another process draw the best run's attention maps
    wandb/           the report on W&B

Imports analysis.figures and the rooms that it may import.
"""
