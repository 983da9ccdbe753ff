"""The nouns of an image pyramid: regions, levels, tiles and their codecs, layers, blocks.

A *tile* is a square of one level, encoded. A *block* is a unit of work: a square of level 0 that owns whole tiles.
Slides, the store of a run, outputs and the viewer share these words.
"""
