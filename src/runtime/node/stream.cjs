"use strict";
// Handlers of `awslambda.streamifyResponse`: what they write leaves at once, as pieces on the wire,
// and while the host does not take it their stream is full.

const { Writable } = require("node:stream");
const wire = require("./wire.cjs");
const { modern, runtimeError } = require("./log.cjs");
const { highWaterMark } = require("./load.cjs");

/** Where a handler writes. */
class ResponseStream extends Writable {
  #invocation;
  #connect;
  #contentType = "";
  #isBegun = false;
  #isOpen = false;
  isBroken = false;

  constructor(invocation, connect, options) {
    super(options);
    this.#invocation = invocation;
    this.#connect = connect;
    this._onBeforeFirstWrite = undefined;
  }

  /** The type of the reply; it matters to what stands in front of the function. */
  setContentType(contentType) {
    if (this.#isBegun) {
      throw runtimeError("InvalidStreamingOperation", "Cannot set content-type, too late.");
    }
    this.#contentType = String(contentType);
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

  /** Tells the host that a stream comes; false if it has its answer already. */
  #open() {
    if (this.#invocation.isAnswered) return false;
    if (!this.#isOpen) wire.stream(this.#invocation.id, this.#contentType);
    this.#isOpen = true;
    return true;
  }

  _write(chunk, _encoding, callback) {
    if (chunk.length === 0 || !this.#open()) callback();
    else wire.chunk(this.#connect(), this.#invocation.id, chunk, callback);
  }

  _final(callback) {
    if (!this.isBroken) this.#open();
    callback();
  }

  /** Ends the stream halfway, behind what was written by now. */
  async breakOff() {
    if (this.destroyed || this.writableEnded) return;
    this.isBroken = true;
    await new Promise((resolve) => {
      this.once("close", resolve);
      super.end();
    });
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
async function runStreaming(invocation, handler, message, means) {
  const { connect, context, waitingContext, onEmpty } = means;
  const options = { highWaterMark: highWaterMark(handler) };
  const stream = new ResponseStream(invocation, connect, options);
  const unfinished = () => complaint("Response stream is not finished.");
  const finished = new Promise((resolve, reject) => {
    stream.on("finish", () => {
      if (stream.isBroken) return;
      invocation.reply("");
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
    else await stream.breakOff();
    invocation.fail(error);
    end();
  }
}

module.exports = { HttpResponseStream, runStreaming };
