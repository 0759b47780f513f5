"""`python -m etegrec_hf COMMAND ...`, and `accelerate launch --module etegrec_hf COMMAND ...` in several processes."""

import sys

from etegrec_cli import main

sys.exit(main())
