"""Pairs of H&E and IHC: how folders of pairs are laid out and named."""
