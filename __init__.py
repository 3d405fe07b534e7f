"""TalkForge: dataset builds, two published systems and defensible numbers for emotional talking heads."""

__version__ = "0.1.0"
