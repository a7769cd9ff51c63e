"""Interface `inference`: passes and runs, and everything that can be wrong with them."""
from __future__ import annotations
