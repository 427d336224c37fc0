"""Tables -> figures.

    style            colours, axes, names, files
    accuracy, calibration, classes, curves, data_size, schedule, settings
                     one function per figure: it draws on the axes that it is given, and returns them
    grid_selection   which test images a prediction grid shows
    prediction_grid  finds and draws these images
    specs            the figures of a report, with their captions and text alternatives

Imports analysis.tables and the rooms that it may import; nothing here knows of files but `style.save_figure`.
"""
