"""Figures. Each function draws on the axes it is given and returns them; colours and order are the same everywhere."""

from analysis.figures.accuracy import accuracy_against_parameters, accuracy_against_time, accuracy_by_strategy
from analysis.figures.calibration import reliability_diagram
from analysis.figures.classes import confusion_matrix, height_for, recall_by_class
from analysis.figures.curves import learning_curves, time_to_target
from analysis.figures.data_size import accuracy_by_size
from analysis.figures.schedule import schedule_diagram
from analysis.figures.settings import importance, parallel_coordinates, rate_by_strategy
from analysis.figures.style import COLOURS, DASHES, HEIGHT, MARKERS, colour, new_figure, paths, save, spread_out

__all__ = [
    "COLOURS",
    "DASHES",
    "HEIGHT",
    "MARKERS",
    "accuracy_against_parameters",
    "accuracy_against_time",
    "accuracy_by_size",
    "accuracy_by_strategy",
    "colour",
    "confusion_matrix",
    "height_for",
    "importance",
    "learning_curves",
    "new_figure",
    "parallel_coordinates",
    "paths",
    "rate_by_strategy",
    "recall_by_class",
    "reliability_diagram",
    "save",
    "schedule_diagram",
    "spread_out",
    "time_to_target",
]
