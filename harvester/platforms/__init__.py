"""One module per platform: build, sign, read. Adding one is a module here and its line in the table.

The table is the registration: the job file knows the platform's name and keys from it, and the conformance suite in
the tests runs over it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from harvester.model import Platform
from harvester.platforms import sipop, wuhan

PLATFORMS: Final[Mapping[str, Platform]] = {platform.NAME: platform for platform in (wuhan, sipop)}
