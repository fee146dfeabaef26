"""`python -m facelm`, which is `facelm`."""

import sys

from facelm.cli import main

sys.exit(main())
