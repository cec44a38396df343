"""Statistics of single optimiser steps: signal, drift, norms."""
