"""Tables from text: what their cells mean, and what can be calculated from them."""

from strata_tables.cells import parse_cell

__all__ = ["parse_cell"]
