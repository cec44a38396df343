"""Pure functions from records to plotly figures."""
