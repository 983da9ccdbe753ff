"""Slides in a browser: the H&E beside its virtual IHC, live from this machine or as a folder for a colleague."""
