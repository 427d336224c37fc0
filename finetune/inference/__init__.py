"""A finished run in use.

predictor        loads a trained network; predicts image files
prediction_page  the HTML page of `python -m finetune.predict --html`
onnx_export      writes a network as ONNX, and compares the file with torch
gradcam          Grad-CAM overlays

Imports errors, system, config, rundir, data, models, and run.checkpoint.
"""
