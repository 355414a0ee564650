"""Results in; a table for the terminal, a Markdown section and one HTML page out."""

from forgetless.lab.report.markdown import markdown
from forgetless.lab.report.page import page
from forgetless.lab.report.table import table

__all__ = ["markdown", "page", "table"]
