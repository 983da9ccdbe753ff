"""Measures of pixels: stains, fidelity, distributions, seams, and their intervals. Functions of arrays only.

Nothing is imported here: worker processes measure images without loading torch.
"""
