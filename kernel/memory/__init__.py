"""Memory policies: what becomes of the pages of programs that wait."""
