"""What a function may ask of hob.

    import hob

    @hob.on_fork
    def connect():
        global database
        database = open_database()

hob can start workers by forking a process that has imported the handler already, the zygote.
Memory is then shared and a start takes a millisecond or two, but connections and open files that
were made during the import would be shared too. `on_fork` names a function that makes them: it
runs once in every process that runs the handler, after its fork and before its first event. Where
nothing forks it runs once as well, after the import.

This one file may be copied into a zip, as `hob/__init__.py` or `hob.py`, for AWS Lambda or for
tests: where hob's bootstrap does not run, `on_fork` calls the function at once.
"""

# The functions to run, while the bootstrap collects them; otherwise they are called at once.
_functions = None


def on_fork(function):
    """Runs `function()` in every process that runs the handler, before its first event.

    Returns the function, so it serves as a decorator. An exception is an init error of the worker.
    Called when the worker already runs (in the handler, say) it calls the function at once.
    """
    if _functions is None:
        function()
    else:
        _functions.append(function)
    return function
