"""What a conversion leaves on disk: the image, its provenance, and the checks that prove it sound."""
