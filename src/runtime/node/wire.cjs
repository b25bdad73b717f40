"use strict";
// Speaks the wire (src/wire/SPEC.md): frames, headers, and the socket. Knows nothing of handlers.
//
// Writes are system calls of their own rather than a stream's: an answer has left when the call
// returns, also if the process ends right after it. Only pieces of a streamed reply go through the
// event loop, since they wait while the caller is slow. Reads come through the event loop, so signals
// and timers of the function run while the worker waits.

const fs = require("node:fs");

const PROTOCOL = 3;
const REPLY = 2;
const ERROR = 3;
const INIT_ERROR = 4;
const STREAM = 7;
const PIECE = 8;
const READY = Buffer.from([1, 0, 0, 0, 1]);

// The host kills a worker whose frame is longer than 6 MiB + 64 KiB; Lambda refuses replies above
// this many bytes, with these words.
const REPLY_BYTES_MAX = 6_291_556;
const TOO_LARGE = JSON.stringify({
  errorMessage: `Response payload size exceeded maximum allowed payload size (${REPLY_BYTES_MAX} bytes).`,
  errorType: "Function.ResponseSizeTooLarge",
});

// Bytes of a piece of a streamed reply.
const PIECE_BYTES_MAX = 16 * 1024;

// Where the socket is: standard input, unless the host has put it where programs that the handler
// starts cannot inherit it (Node itself closes all but the first three for them).
const descriptor = Number(process.env.HOB_WIRE_FD || 0);
delete process.env.HOB_WIRE_FD;

// One write for most answers, without a buffer for each. UTF-8 takes at most 3 bytes for each unit
// of a string, a frame's beginning at most 10, Ready 5.
const scratch = Buffer.allocUnsafeSlow(16 * 1024);
const ROOM = Math.floor((scratch.length - 32) / 3);

// What Lambda grants functions that clean up: it kills after two seconds.
const STOP_MS = 2000;

// Functions may replace the global one.
const { setTimeout } = globalThis;

// How long a worker looks for its first message before it listens.
const FIRST_MS = 3;
const LOOK_MS = 0.1;

let pausing;

/** Waits without the event loop. */
function pause(time_ms) {
  pausing ??= new Int32Array(new SharedArrayBuffer(4));
  Atomics.wait(pausing, 0, 0, time_ms);
}

/** Writes all of it, also to a descriptor that does not block. */
function writeAll(to, bytes, size = bytes.length) {
  for (let at = 0, pause_ms = 0.05; at < size; ) {
    try {
      at += fs.writeSync(to, bytes, at, size - at);
      pause_ms = 0.05;
    } catch (error) {
      if (error.code !== "EAGAIN") throw error;
      pause(pause_ms);
      pause_ms = Math.min(pause_ms * 2, 5);
    }
  }
}

/** Sends to the host. One that is gone has no use for it. */
function send(bytes, size) {
  try {
    writeAll(descriptor, bytes, size);
  } catch (error) {
    if (error.code !== "EPIPE" && error.code !== "ECONNRESET") throw error;
    process.exit(0);
  }
}

function hello() {
  send(Buffer.from([2, 0, 0, 0, 0, PROTOCOL]));
}

/** Puts a header at the beginning of `scratch`, and says how long it is with its length field. */
function header(number, id, payload_size) {
  let at = 4;
  scratch[at++] = number;
  if (id !== undefined) {
    for (; id > 127; id = Math.floor(id / 128)) scratch[at++] = (id % 128) | 128;
    scratch[at++] = id;
  }
  scratch.writeUInt32LE(at - 4 + payload_size, 0);
  return at;
}

/** Sends a message whose payload is text or bytes, and Ready with it if that is due. */
function frame(number, id, payload, ready) {
  if (typeof payload === "string" && payload.length <= ROOM) {
    const start = header(number, id, 0);
    let end = start + scratch.write(payload, start);
    scratch.writeUInt32LE(end - 4, 0);
    if (ready) end += READY.copy(scratch, end);
    send(scratch, end);
    return;
  }
  const bytes = typeof payload === "string" ? Buffer.from(payload) : payload;
  const start = header(number, id, bytes.length);
  const parts = [scratch.subarray(0, start), bytes];
  if (ready) parts.push(READY);
  send(Buffer.concat(parts));
}

/** Sends an invocation's reply. */
function reply(id, payload, ready) {
  const size = typeof payload === "string" ? Buffer.byteLength(payload) : payload.length;
  if (size > REPLY_BYTES_MAX) frame(ERROR, id, TOO_LARGE, ready);
  else frame(REPLY, id, payload, ready);
}

/** Sends an invocation's error. */
function error(id, json, ready) {
  frame(ERROR, id, json, ready);
}

/** Begins a reply in pieces, of this type. */
function stream(id, contentType) {
  frame(STREAM, id, contentType, false);
}

let behind = 0; // Chunks that the socket has not taken.
let caughtUp = []; // What waits for that.

/** Sends a part of a reply through `socket`, and calls `written` when that has taken it. */
function chunk(socket, id, bytes, written) {
  behind += 1;
  const done = () => {
    behind -= 1;
    written();
    if (behind > 0) return;
    const acts = caughtUp;
    caughtUp = [];
    for (const act of acts) act();
  };
  socket.cork();
  for (let at = 0; at < bytes.length; at += PIECE_BYTES_MAX) {
    const piece = bytes.subarray(at, at + PIECE_BYTES_MAX);
    socket.write(Buffer.from(scratch.subarray(0, header(PIECE, id, piece.length))));
    socket.write(piece, at + PIECE_BYTES_MAX < bytes.length ? undefined : done);
  }
  socket.uncork();
}

/** True while a message would come in the middle of a piece. */
function isBehind() {
  return behind > 0;
}

/** Calls `act` once that is over. */
function whenCaughtUp(act) {
  caughtUp.push(act);
}

function initError(json) {
  frame(INIT_ERROR, undefined, json, false);
}

function ready() {
  send(READY);
}

/** Reads an Invoke whose header begins at `at`, and whose frame ends at `end`. */
function invoke(bytes, at, end) {
  const integer = () => {
    let value = 0;
    for (let unit = 1; ; unit *= 128) {
      const byte = bytes[at++];
      value += (byte & 127) * unit;
      if (byte < 128) return value;
    }
  };
  const text = () => {
    const size = integer();
    at += size;
    return bytes.toString("utf8", at - size, at);
  };
  const number = integer();
  if (number !== 0) throw new Error(`the host sent message ${number}`);
  const id = integer();
  const deadline = integer();
  const requestId = text();
  const arn = text();
  const traceId = text();
  const clientContext = text();
  const identity = text();
  const event = bytes.toString("utf8", at, end);
  return { id, deadline, requestId, arn, traceId, clientContext, identity, event };
}

/** Takes the stream apart: `take` gets what comes, `deliver` each message. */
function frames(deliver) {
  let whole = null; // A frame that did not come in one piece.
  let filled = 0;
  const length = Buffer.alloc(4);
  let known = 0; // Bytes of the length field that are there.
  return (size, chunk) => {
    for (let at = 0; at < size; ) {
      if (whole === null) {
        while (known < 4 && at < size) length[known++] = chunk[at++];
        if (known < 4) return;
        const end = at + length.readUInt32LE(0);
        if (end <= size) {
          known = 0;
          const message = invoke(chunk, at, end);
          at = end;
          deliver(message);
          continue;
        }
        whole = Buffer.allocUnsafe(end - at);
        filled = 0;
      }
      const more = Math.min(size - at, whole.length - filled);
      chunk.copy(whole, filled, at, at + more);
      filled += more;
      at += more;
      if (filled === whole.length) {
        const message = invoke(whole, 0, filled);
        whole = null;
        known = 0;
        deliver(message);
      }
    }
  };
}

/** Ends the worker after the stream: what else the function has in the event loop is not waited for. */
function leave(socket) {
  if (process.listenerCount("SIGTERM") === 0) process.exit(0);
  // SIGTERM came too, or is about to, and what the function does then may take its time.
  socket.unref();
  setTimeout(() => process.exit(0), STOP_MS).unref();
}

/** True if reads from the socket do not wait, which the host may see to. */
function isNonBlocking() {
  try {
    const facts = fs.readFileSync(`/proc/self/fdinfo/${descriptor}`, "latin1");
    return (Number.parseInt(/flags:\s*(\d+)/.exec(facts)[1], 8) & fs.constants.O_NONBLOCK) !== 0;
  } catch {
    return false;
  }
}

/**
 * Looks for a first message without the event loop, for FIRST_MS at most: a worker is mostly started
 * because an invocation waits, and what it takes to listen loads in 3 to 4 ms.
 */
function look(take) {
  if (!isNonBlocking()) return;
  const bytes = Buffer.allocUnsafe(16 * 1024);
  for (let waited_ms = 0; waited_ms < FIRST_MS; waited_ms += LOOK_MS) {
    let size = 0;
    try {
      size = fs.readSync(descriptor, bytes);
    } catch (error) {
      if (error.code !== "EAGAIN") return;
      pause(LOOK_MS);
      continue;
    }
    take(size, bytes);
    return;
  }
}

/** Listens to the host. The socket keeps the process alive unless it is told not to. */
function listen(take) {
  const { Socket } = require("node:net");
  const socket = new Socket({
    fd: descriptor,
    allowHalfOpen: true,
    onread: {
      buffer: Buffer.allocUnsafeSlow(64 * 1024),
      callback: (size, chunk) => {
        take(size, chunk);
        return true;
      },
    },
  });
  socket.on("end", () => leave(socket));
  socket.on("error", () => process.exit(0));
  return socket;
}

module.exports = {
  hello,
  ready,
  reply,
  error,
  stream,
  chunk,
  isBehind,
  whenCaughtUp,
  initError,
  frames,
  look,
  listen,
  writeAll,
  descriptor,
};
