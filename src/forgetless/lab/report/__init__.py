"""Results as a table for the terminal, a Markdown section, a comparison with published numbers, and an HTML page."""

from forgetless.lab.report.comparison import comparison
from forgetless.lab.report.markdown import markdown
from forgetless.lab.report.page import page
from forgetless.lab.report.table import table

__all__ = ["comparison", "markdown", "page", "table"]
