"""Results as a table for the terminal, Markdown or LaTeX, a comparison with published numbers, and HTML pages."""

from forgetless.lab.report.comparison import comparison
from forgetless.lab.report.latex import latex
from forgetless.lab.report.markdown import markdown
from forgetless.lab.report.page import page
from forgetless.lab.report.repair import repair_page
from forgetless.lab.report.table import table

__all__ = ["comparison", "latex", "markdown", "page", "repair_page", "table"]
