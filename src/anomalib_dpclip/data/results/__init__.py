"""Predictions in a CSV file that grows with them: a run that is stopped leaves it, and a later one goes on from it."""

from anomalib_dpclip.data.results.rows import CONTACT_SHEET, DONE, PICTURES, RESULTS, RESULTS_JSON, Result, summary

__all__ = ["CONTACT_SHEET", "DONE", "PICTURES", "RESULTS", "RESULTS_JSON", "Result", "summary"]
