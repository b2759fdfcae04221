from __future__ import annotations

from simulation.flags import TIMES, args

__version__ = TIMES[args.as_of]
