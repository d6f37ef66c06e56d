"""How documents look: what stands on them, in words and figures, and the PDF of it."""
