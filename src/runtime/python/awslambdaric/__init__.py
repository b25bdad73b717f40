"""Names that functions import from AWS's runtime client, for type hints mostly."""

# The client that hob's bootstrap behaves like.
__version__ = "4.2.2"
