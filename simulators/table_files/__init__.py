"""Tables of recorded values as people have them: their text, form, times and columns."""
