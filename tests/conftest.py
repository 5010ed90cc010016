"""Settings that must stand before torch, Ray or pygame is imported, and hypothesis's profile."""

from __future__ import annotations

import os

import hypothesis

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAY_AUTH_MODE", "disabled")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test needs the network
os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # nor a screen
os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")

# A test draws the same examples every time; the first one may wait for a compilation.
hypothesis.settings.register_profile("reproducible", derandomize=True, deadline=None)
hypothesis.settings.load_profile("reproducible")
