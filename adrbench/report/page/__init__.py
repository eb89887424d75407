"""The report as one HTML file that a reader opens, reads and sends on."""

from adrbench.report.page.build import build_page
from adrbench.report.page.render import render_page

__all__ = ["build_page", "render_page"]
