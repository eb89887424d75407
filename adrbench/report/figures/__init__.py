"""The figures of a report, drawn by matplotlib from its tables, records and outputs.

A `Chart` is a figure that is not drawn yet: a page inlines it as SVG, `--plots` saves it in the
formats of papers.
"""

from adrbench.report.figures.chart import Chart
from adrbench.report.figures.collect import collect_charts
from adrbench.report.figures.files import save_charts

__all__ = ["Chart", "collect_charts", "save_charts"]
