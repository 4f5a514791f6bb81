"""Photos become one LMDB: found, chosen, made square, stored. No torch here."""
