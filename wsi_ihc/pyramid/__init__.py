"""The image pyramid: regions, blocks, tile codecs and levels. Slides, the store and the outputs share these nouns."""
