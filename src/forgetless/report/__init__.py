"""Results in, a table for the terminal and one HTML page out."""

from forgetless.report.page import page
from forgetless.report.table import table

__all__ = ["page", "table"]
