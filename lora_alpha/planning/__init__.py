"""How runs become packs, for which devices, and how long they take. Needs no torch."""
