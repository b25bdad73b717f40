def inner():
    raise ValueError("at import: é")


inner()
