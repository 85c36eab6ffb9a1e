"Write boneage/ from nbs/ as nbdev-export does, with `__all__` wrapped at 110 columns (nbdev's own width is 120)"
from textwrap import TextWrapper

from nbdev import maker
from nbdev.doclinks import nbdev_export


class _Narrow(TextWrapper):
    def __init__(self, width, **options): super().__init__(width=100, **options)  # `__all__ = ` stands before it


if __name__ == "__main__":
    maker.TextWrapper = _Narrow
    nbdev_export()
