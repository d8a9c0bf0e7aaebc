"""Mirrors whole datasets from signed, rate-limited, paginated open-data platforms."""

from __future__ import annotations

from typing import Final

__version__: Final = "0.1.0"
