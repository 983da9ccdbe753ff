"""H&E whole-slide images in, virtual HER2 IHC slides out."""
