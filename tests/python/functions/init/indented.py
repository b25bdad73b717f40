  indented = 1
