"""Comparison of generated IHC with real IHC: measures, their uncertainty, comparison of runs, and a report.

Nothing is imported here: worker processes measure images without loading torch.
"""
