"""Encoded blocks on disk between the workers and the output: a run that was cut off continues from them."""

from wsi_ihc.conversion.store.layout import StoreLayout
from wsi_ihc.conversion.store.tilestore import StaleStoreError, TileStore

__all__ = ["StaleStoreError", "StoreLayout", "TileStore"]
