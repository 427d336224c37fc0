"""Single measurements behind numbers in the documentation: `python -m benchmarks.oneoff.NAME --help`.

near_duplicates   how many edited copies the data check finds
data_check        time and memory of the data check
report            time and memory of the analysis of a large sweep
"""
