"""`python -m etegrec_hf COMMAND ...`, and `accelerate launch --module etegrec_hf COMMAND ...` in several processes."""

import sys

from .cli.main import main

sys.exit(main())
