"""The context object that handlers get: what AWS's runtime client gives, attribute by attribute.

It lives under AWS's module name because functions import it from there and print its type.
"""

import os
import sys
import time

# Fields of the W3C trace context that `w3c()` shows.
W3C_ALLOWED_FIELDS = ("traceparent", "tracestate", "baggage")

# What the environment says about the function, and where among the facts.
FACTS = {
    b"AWS_LAMBDA_LOG_GROUP_NAME": 0,
    b"AWS_LAMBDA_LOG_STREAM_NAME": 1,
    b"AWS_LAMBDA_FUNCTION_NAME": 2,
    b"AWS_LAMBDA_FUNCTION_MEMORY_SIZE": 3,
    b"AWS_LAMBDA_FUNCTION_VERSION": 4,
}
# The same for all invocations of a worker, so the worker reads it once. Empty: nobody has.
_facts = []


def read_facts():
    """Reads the environment, anew."""
    get = os.environ.get
    _facts[:] = [get(name.decode()) for name in FACTS]
    return _facts


class _Shown:
    """Prints as `Class([name=value,...])`."""

    __slots__ = ()
    _shown = ()

    def __repr__(self):
        fields = ",".join(f"{name}={getattr(self, name)}" for name in self._shown)
        return f"{self.__class__.__name__}([{fields}])"


class CognitoIdentity(_Shown):
    __slots__ = _shown = ["cognito_identity_id", "cognito_identity_pool_id"]

    def __init__(self):
        self.cognito_identity_id = None
        self.cognito_identity_pool_id = None


class Client(_Shown):
    __slots__ = _shown = [
        "installation_id",
        "app_title",
        "app_version_name",
        "app_version_code",
        "app_package_name",
    ]


class ClientContext(_Shown):
    __slots__ = _shown = ["custom", "env", "client"]


def _filled(kind, fields):
    """An object with a slot for each name, from a dictionary; None stays None."""
    if fields is None:
        return None
    filled = kind()
    for name in kind.__slots__:
        setattr(filled, name, fields.get(name, None))
    return filled


def _take_w3c(client_context):
    """Takes `w3c` out of the caller's context: its known fields that are text."""
    if not isinstance(client_context, dict) or "w3c" not in client_context:
        return {}
    found = client_context.pop("w3c")
    if not isinstance(found, dict):
        return {}
    return {
        name: found[name] for name in W3C_ALLOWED_FIELDS if isinstance(found.get(name), str)
    }


class LambdaContext(_Shown):
    # The dictionary of attributes is the instance's own, as in AWS's client.
    __slots__ = ("__dict__", "__weakref__")
    _shown = (
        "aws_request_id",
        "log_group_name",
        "log_stream_name",
        "function_name",
        "memory_limit_in_mb",
        "function_version",
        "invoked_function_arn",
        "client_context",
        "identity",
        "tenant_id",
    )

    def __init__(
        self,
        invoke_id,
        client_context,
        cognito_identity,
        epoch_deadline_time_in_ms,
        invoked_function_arn=None,
        tenant_id=None,
    ):
        self.aws_request_id = invoke_id
        (
            self.log_group_name,
            self.log_stream_name,
            self.function_name,
            self.memory_limit_in_mb,
            self.function_version,
        ) = _facts or read_facts()
        self.invoked_function_arn = invoked_function_arn
        self.tenant_id = tenant_id
        if client_context is None:
            self._w3c_fields = {}
            self.client_context = None
        else:
            self._w3c_fields = _take_w3c(client_context)
            self.client_context = _filled(ClientContext, client_context)
            self.client_context.client = _filled(Client, self.client_context.client)
        self.identity = identity = CognitoIdentity()
        if cognito_identity is not None:
            identity.cognito_identity_id = cognito_identity.get("cognitoIdentityId")
            identity.cognito_identity_pool_id = cognito_identity.get("cognitoIdentityPoolId")
        self._epoch_deadline_time_in_ms = epoch_deadline_time_in_ms

    def get_remaining_time_in_millis(self):
        left = self._epoch_deadline_time_in_ms - int(time.time() * 1000)
        return left if left > 0 else 0

    def w3c(self):
        """The caller's W3C trace context: a dictionary of the fields that came."""
        return dict(self._w3c_fields)

    def log(self, msg):
        """Writes to the log as it is: no time, no line end."""
        # Not imported yet: then nobody has added a handler of their own.
        logging = sys.modules.get("logging")
        for handler in logging.getLogger().handlers if logging else ():
            if hasattr(handler, "log_sink"):
                handler.log_sink.log(str(msg))
                return
        sys.stdout.write(str(msg))
