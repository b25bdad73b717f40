"""Finds the handler: `folder/module.function`, with the errors of AWS's runtime client."""

import sys


def load(name):
    """The function that `name` means."""
    try:
        module_name, function_name = name.rsplit(".", 1)
    except ValueError as error:
        from . import _errors

        kind = _errors.MALFORMED_HANDLER_NAME
        raise _errors.Fault(kind, f"Bad handler '{name}': {error}")
    if module_name.split(".")[0] in sys.builtin_module_names:
        from . import _errors

        text = f"Cannot use built-in module {module_name} as a handler module"
        raise _errors.Fault(_errors.BUILT_IN_MODULE_CONFLICT, text)
    from importlib import import_module

    try:
        module = import_module(module_name.replace("/", "."))
    except ImportError as error:
        from . import _errors

        text = f"Unable to import module '{module_name}': {error}"
        raise _errors.Fault(_errors.IMPORT_MODULE_ERROR, text)
    except SyntaxError as error:
        from . import _errors

        trace = [f'  File "{error.filename}" Line {error.lineno}\n    {error.text}']
        text = f"Syntax error in module '{module_name}': {error}"
        raise _errors.Fault(_errors.USER_CODE_SYNTAX_ERROR, text, trace)
    try:
        return getattr(module, function_name)
    except AttributeError:
        from . import _errors

        text = f"Handler '{function_name}' missing on module '{module_name}'"
        raise _errors.Fault(_errors.HANDLER_NOT_FOUND, text)
