"Write boneage/ from nbs/ as nbdev-export does, with `__all__` wrapped at 110 columns instead of 120"
from textwrap import TextWrapper

from nbdev import maker
from nbdev.doclinks import nbdev_export


class _Narrow(TextWrapper):
    "Wraps early enough for the `__all__ = ` that stands before the first line"
    def __init__(self, width, **options): super().__init__(width=100, **options)


if __name__ == "__main__":
    maker.TextWrapper = _Narrow
    nbdev_export()
