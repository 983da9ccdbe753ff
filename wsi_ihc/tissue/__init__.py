"""The tissue of a slide: found on a thumbnail, or drawn by a person in QuPath."""

from wsi_ihc.tissue.finding import find_tissue
from wsi_ihc.tissue.geojson import read_geojson, write_geojson
from wsi_ihc.tissue.mask import TissueMask
from wsi_ihc.tissue.segmentation import tissue_from_thumbnail

__all__ = ["TissueMask", "find_tissue", "read_geojson", "tissue_from_thumbnail", "write_geojson"]
