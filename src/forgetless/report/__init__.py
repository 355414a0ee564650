"""Results in; a table for the terminal, a Markdown section and one HTML page out."""

from forgetless.report.markdown import markdown
from forgetless.report.page import page
from forgetless.report.table import table

__all__ = ["markdown", "page", "table"]
