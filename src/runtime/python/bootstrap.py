"""Entry of hob's Python workers: `python3 -u bootstrap.py`.

Tiny on purpose: it is the one file that Python compiles at every start.
"""

import os
import sys

home = os.path.dirname(os.path.abspath(__file__))
if home not in sys.path:
    sys.path.insert(0, home)

from hob import _main  # noqa: E402  (the path comes first)

_main.main(home)
