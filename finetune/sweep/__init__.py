"""From a sweep file to finished run directories: plan, search, start processes, report."""
