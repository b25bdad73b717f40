"""A worker's conversation with the host. `src/wire/SPEC.md` is its definition.

An invocation is one read and one write when the event is small; everything here is weighed against
that.
"""

import os
from awslambdaric import lambda_context

from . import _encode, _environment, _logs

# Whole frames: the length, then the header of a message without fields. The second is of a worker
# that has no pipe for its events.
HELLO = b"\x02\0\0\0\0\x05"
HELLO_ALONE = b"\x02\0\0\0\0\x04"
READY = b"\x01\0\0\0\x01"
INIT_ERROR = b"\x04"

# Bytes of one read: a small event, whole. More is allocated as it is needed.
_READ = 65536
# Replies up to here are copied into one buffer, which is cheaper than a write of three.
_JOIN = 16384
# Request id, ARN, trace id, client context, identity.
_TEXTS = range(5)


class Broken(Exception):
    """The host sent what makes no sense."""


def frame(header, payload=b""):
    return (len(header) + len(payload)).to_bytes(4, "little") + header + payload


def varint(number):
    # Of numbers alone: each further kind of object is pages that a new worker has to copy.
    value = shift = 0
    while number > 127:
        value |= (number & 127 | 128) << shift
        shift += 8
        number >>= 7
    return (value | number << shift).to_bytes(shift // 8 + 1, "little")


def read_varint(data, at):
    """The number at `at`, and where it ends."""
    number = shift = 0
    while True:
        byte = data[at]
        at += 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number, at
        shift += 7


def send(wire, *parts):
    """Writes all of it, in one call if the socket takes it."""
    total = sum(map(len, parts))
    sent = os.writev(wire, parts)
    if sent == total:
        return
    rest = memoryview(b"".join(parts))
    while sent < total:
        sent += os.write(wire, rest[sent:])


def read_rest(events, start):
    """The frame that begins with `start`; None at the end of the stream."""
    while len(start) < 4:
        more = os.read(events, _READ)
        if not more:
            return None
        start += more
    total = 4 + int.from_bytes(start[:4], "little")
    if len(start) > total:
        raise Broken("more than one event")
    whole = bytearray(total)
    whole[: len(start)] = start
    got = len(start)
    with memoryview(whole) as view:
        while got < total:
            count = os.readv(events, (view[got:],))
            if count == 0:
                return None
            got += count
    return bytes(whole)


def decode(data):
    """An Invoke frame: its number as it came, the deadline, the texts, and where its event begins.

    Most bytecodes of an invocation are here, hence the shapes that are tried first: a deadline of
    six bytes (until the year 2109), texts below 128 bytes.
    """
    if data[4] != 0:
        raise Broken(f"message {data[4]} for a worker")
    at = 5
    while data[at] > 127:
        at += 1
    at += 1
    number = data[5:at]
    a, b, c, d, e, f = data[at : at + 6]
    if f < 128 and a > 127 and b > 127 and c > 127 and d > 127 and e > 127:
        deadline = (
            a & 127 | (b & 127) << 7 | (c & 127) << 14 | (d & 127) << 21 | (e & 127) << 28 | f << 35
        )
        at += 6
    else:
        deadline, at = read_varint(data, at)
    texts = []
    for _ in _TEXTS:
        end = at + 1 + data[at]
        if data[at] < 128:
            at += 1
        else:
            size, at = read_varint(data, at)
            end = at + size
        texts.append(data[at:end].decode())
        at = end
    return number, deadline, texts, at


def _context_part(text, name):
    """What a caller's JSON holds."""
    from json import loads

    try:
        return loads(text)
    except Exception as error:
        from . import _errors

        kind = _errors.CONTEXT_UNMARSHAL_ERROR
        raise _errors.Fault(kind, f"Unable to parse {name} JSON: {error}")


def _event(payload):
    try:
        return _encode.decode(payload)
    except Exception as error:
        from . import _errors

        raise _errors.Fault(_errors.UNMARSHAL_ERROR, f"Unable to unmarshal input: {error}")


def _reply(encode, result):
    if isinstance(result, bytes):
        return result
    try:
        return encode(result).encode()
    except Exception as error:
        from . import _errors

        raise _errors.Fault(_errors.MARSHAL_ERROR, f"Unable to marshal response: {error}")


def prepare(is_zygote=False):
    """What invocations need: of the environment, and to set the trace id there."""
    lambda_context.read_facts()
    return _encode.Encoder().encode, _environment.tracer(is_zygote)


def serve(wire, events, handler, prepared=None):
    """Runs invocations until the host has no more: reads `events` and writes to `wire`.
    `prepared` is what [prepare] gave."""
    encode, trace = prepared or prepare()
    make_context = lambda_context.LambdaContext
    environ = os.environ
    read, write = os.read, os.write
    while True:
        data = read(events, _READ)
        size = len(data)
        if size < 4 or int.from_bytes(data[:4], "little") != size - 4:
            data = size and read_rest(events, data)
            if not data:
                return
        number, deadline, texts, at = decode(data)
        request_id, arn, trace_id, client_context, identity = texts
        _logs.REQUEST = request_id
        if trace_id:
            trace(trace_id)
        elif "_X_AMZN_TRACE_ID" in environ:
            del environ["_X_AMZN_TRACE_ID"]
        try:
            context = make_context(
                request_id,
                _context_part(client_context, "Client Context") if client_context else None,
                _context_part(identity, "Cognito Identity") if identity else None,
                deadline,
                arn,
            )
            event = _event(data[at:])
            data = None
            payload = _reply(encode, handler(event, context))
            header = b"\x02" + number
        except Exception:
            from . import _errors

            payload = _errors.report(request_id)
            header = b"\x03" + number
        # What the invocation leaves is gone before the next: nothing of it waits in our frame.
        event = context = None
        head = (len(header) + len(payload)).to_bytes(4, "little") + header
        if len(payload) <= _JOIN:
            answer = head + payload + READY
            sent = write(wire, answer)
            if sent != len(answer):
                send(wire, answer[sent:])
        else:
            send(wire, head, payload, READY)
        payload = answer = None
