"""What every room of minitx may use; nothing here imports another room.

- ``checks``: settings and arrays are checked at the door of public functions; files are written whole or not at all.
- ``shown``: results show themselves on a line, their arrays by shape, dtype and norm.
- ``parallel``: threads, the same bits for any number of them, and the flags of all numba kernels.
- ``numbers``: norm, cosine, relative error, agreement of weights, total variation, and Newton's method.
- ``options``: a dataclass becomes a command line. ``tables``: results become lines of text. ``console``: what a run
  shows on a terminal. ``style``: what figures share. ``report``: results become JSON and an HTML page.
- ``command``: how every command runs, from its options to its files and its exit status.
"""
