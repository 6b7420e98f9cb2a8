"""LOG -> REPORT: what a log holds and what is wrong with it, without a dataset."""

from shortlist.data.check.html_page import write_html
from shortlist.data.check.log_check import check_log
from shortlist.data.check.report import LogReport

__all__ = ["LogReport", "check_log", "write_html"]
