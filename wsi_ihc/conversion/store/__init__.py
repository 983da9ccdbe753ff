"""Encoded blocks on disk, resumable, between the workers and the OME-TIFF."""

from wsi_ihc.conversion.store.layout import EncodedBlock, StoreLayout, encode_block
from wsi_ihc.conversion.store.tilestore import StaleStoreError, TileStore

__all__ = ["EncodedBlock", "StaleStoreError", "StoreLayout", "TileStore", "encode_block"]
