"""One self-contained HTML page per report: no request to anywhere, readable on a phone, in the dark and on paper."""

from fairpo_trl.reporting.html.generation import write_html_report
from fairpo_trl.reporting.html.labels import write_label_html_report


__all__ = ["write_html_report", "write_label_html_report"]
