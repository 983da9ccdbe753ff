"""``python -m wsi_ihc``, and what torchrun starts."""

from wsi_ihc.cli import main

if __name__ == "__main__":
    main()
