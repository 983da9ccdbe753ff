"""The page of one output: pictures, fields of interest, read-out, warnings and provenance in one HTML file."""

from wsi_ihc.viewer.report.writing import report_path, write_report

__all__ = ["report_path", "write_report"]
