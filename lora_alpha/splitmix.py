"""The constants of SplitMix64, whose finaliser makes random words out of counters.

``workloads/counter_rng.py`` applies it to numpy's unsigned words, ``models/dropout.py`` to torch's signed.

Source: Steele, Lea & Flood 2014 (SplitMix), finaliser constants of Stafford's variant 13.
"""

from __future__ import annotations

GOLDEN = 0x9E3779B97F4A7C15
MIX_1 = 0xBF58476D1CE4E5B9
MIX_2 = 0x94D049BB133111EB
