"use strict";
// Handlers of `awslambda.streamifyResponse`. The wire has whole replies, so what a handler streams
// is collected; `Collected` is the place where chunks would leave.

const { Writable } = require("node:stream");
const { modern, runtimeError } = require("./log.cjs");
const { highWaterMark } = require("./load.cjs");

// Beyond what any reply may have: no use to collect more.
const COLLECT_BYTES_MAX = 7 * 1024 * 1024;

/** Where a handler writes. */
class Collected extends Writable {
  #chunks = [];
  #size = 0;
  #isBegun = false;

  constructor(options) {
    super(options);
    this._onBeforeFirstWrite = undefined;
  }

  /** The type of the reply; it matters on Lambda to what stands in front of the function. */
  setContentType() {
    if (this.#isBegun) {
      throw runtimeError("InvalidStreamingOperation", "Cannot set content-type, too late.");
    }
  }

  #begin() {
    if (this.#isBegun) return;
    if (typeof this._onBeforeFirstWrite === "function") {
      this._onBeforeFirstWrite((chunk) => super.write(chunk));
    }
    this.#isBegun = true;
  }

  write(chunk, ...rest) {
    this.#begin();
    const isRaw = typeof chunk === "string" || chunk instanceof Uint8Array;
    return super.write(isRaw ? chunk : JSON.stringify(chunk), ...rest);
  }

  end(chunk, ...rest) {
    this.#begin();
    if (typeof chunk !== "function" && chunk !== undefined && chunk !== null) {
      this.write(chunk);
      return super.end(...rest);
    }
    return super.end(chunk, ...rest);
  }

  _write(chunk, _encoding, callback) {
    this.#size += chunk.length;
    if (this.#size <= COLLECT_BYTES_MAX) this.#chunks.push(chunk);
    callback();
  }

  /** All that was written. */
  bytes() {
    return Buffer.concat(this.#chunks);
  }
}

/** `awslambda.HttpResponseStream`. */
class HttpResponseStream {
  /** Puts the JSON of `prelude` and eight NUL bytes before what is written to `stream`. */
  static from(stream, prelude) {
    stream.setContentType("application/vnd.awslambda.http-integration-response");
    const json = JSON.stringify(prelude);
    stream._onBeforeFirstWrite = (write) => {
      write(json);
      write(new Uint8Array(8));
    };
    return stream;
  }
}

/** Errors of ours: the older client of Lambda throws them as text. */
const complaint = (text) => (modern ? new Error(text) : text);

/** Runs one invocation. Its reply leaves when the stream ends, also if the handler goes on. */
async function runStreaming(invocation, handler, message, { context, waitingContext, onEmpty }) {
  const stream = new Collected({ highWaterMark: highWaterMark(handler) });
  const unfinished = () => complaint("Response stream is not finished.");
  const finished = new Promise((resolve, reject) => {
    stream.on("finish", () => {
      invocation.reply(stream.bytes());
      resolve();
    });
    stream.on("error", reject);
    stream.on("close", () => reject(unfinished()));
  });
  finished.catch(() => {});
  const { base, waits } = waitingContext();
  const end = () => invocation.end();
  onEmpty(() => {
    invocation.fail(unfinished());
    end();
  });
  try {
    const called = handler(
      JSON.parse(message.event),
      stream,
      context(message, modern ? {} : base),
    );
    if (typeof called?.then !== "function") {
      throw complaint("Streaming does not support non-async handlers.");
    }
    if ((await called) !== undefined) console.warn("Streaming handlers ignore return values.");
    await finished;
    if (modern || !waits()) end();
    else onEmpty(end);
  } catch (error) {
    // What has been ended is the reply, whatever comes after.
    if (stream.writableEnded) await finished.catch(() => {});
    invocation.fail(error);
    end();
  }
}

module.exports = { HttpResponseStream, runStreaming };
