"""The page of a report or of a comparison: `index.html`, one file that opens from the disk without a network.

Its charts are Bokeh's (BSD): the one charting library whose script comes inside a package of PyPI, small enough to be
written into every page. Bokeh itself is not imported, its file is read.
"""
