"""The platforms' side of both platforms, played strictly on loopback; knows nothing of the client's code."""

from harvester.simulator.config import (
    SIPOP_APP_KEY,
    SIPOP_APP_SECRET,
    SIPOP_UNSUBSCRIBED,
    WUHAN_PASSID,
    WUHAN_TOKEN,
    WUHAN_UNSUBSCRIBED,
    Config,
    parse_steps,
)
from harvester.simulator.faults import Fault, parse_fault
from harvester.simulator.limits import KINDS, Limit, SlidingLog, make_limit
from harvester.simulator.quirks import Change, Quirks, parse_quirks
from harvester.simulator.server import Simulator, serve
from harvester.simulator.stats import AppStats, Stats
from harvester.simulator.tables import SimulatedTable

__all__ = [
    "KINDS",
    "SIPOP_APP_KEY",
    "SIPOP_APP_SECRET",
    "SIPOP_UNSUBSCRIBED",
    "WUHAN_PASSID",
    "WUHAN_TOKEN",
    "WUHAN_UNSUBSCRIBED",
    "AppStats",
    "Change",
    "Config",
    "Fault",
    "Limit",
    "Quirks",
    "SimulatedTable",
    "Simulator",
    "SlidingLog",
    "Stats",
    "make_limit",
    "parse_fault",
    "parse_quirks",
    "parse_steps",
    "serve",
]
