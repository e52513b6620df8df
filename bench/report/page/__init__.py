"""The report as a page: one file that needs no network, or a folder for larger runs."""

from moextend.bench.report.page.document import bundle, page

__all__ = ["bundle", "page"]
