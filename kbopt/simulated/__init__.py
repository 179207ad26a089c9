"""A world with known answers: landscapes, a proposer, a backend, and a driver in virtual time."""

from kbopt.simulated.backend import SimulatedBackend
from kbopt.simulated.driver import ListJournal, SimulationReport, simulate
from kbopt.simulated.landscapes import LANDSCAPES, Landscape, landscape
from kbopt.simulated.proposer import Latency, SimulatedProposer

__all__ = [
    "LANDSCAPES",
    "Landscape",
    "Latency",
    "ListJournal",
    "SimulatedBackend",
    "SimulatedProposer",
    "SimulationReport",
    "landscape",
    "simulate",
]
