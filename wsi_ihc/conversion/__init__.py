"""The steps of a conversion, from the plan to the stored blocks. ``wsi_ihc.convert`` puts them in order."""
