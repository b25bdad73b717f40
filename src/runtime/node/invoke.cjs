"use strict";
// Runs invocations, one at a time: context, handler, answer, Ready.
//
// While an invocation runs the socket does not keep the event loop alive, so `beforeExit` says when
// the loop is empty: that is what callback handlers wait for by default. An answer leaves one turn
// of the loop after it is known, in one write with Ready; what goes wrong meanwhile (a rejection
// that nobody handles) ends the process before it says that it is ready.

const wire = require("./wire.cjs");
const { modern, setRequestId, runtimeError, errorJson, logError } = require("./log.cjs");
const { isStreaming } = require("./load.cjs");
const store = require("./store.cjs");

// Functions may replace the global ones.
const { setImmediate, setTimeout } = globalThis;
const turn = () => new Promise((resolve) => setImmediate(resolve));

// When a worker listens at the latest while its first invocation runs.
const LISTEN_MS = 100;

let take; // Gets what comes from the host.
let socket = null; // Where it comes from, once the worker listens.
let running = null; // The invocation between Invoke and Ready.
let whenEmpty = null; // What to do when the event loop is empty, if anything.

process.on("beforeExit", () => {
  const act = whenEmpty;
  whenEmpty = null;
  act?.();
});

// Answers that are known when the process ends are answers.
process.on("exit", () => running?.exit());

/** One invocation, from Invoke to Ready. It is answered once; what comes later is dropped. */
class Invocation {
  constructor(id) {
    this.id = id;
    this.isAnswered = false;
    this.isOver = false;
    this.isScheduled = false;
    this.unsent = null;
  }

  reply(payload) {
    this.#answer(wire.reply, payload);
  }

  fail(error) {
    logError("Invoke Error", error);
    this.#answer(wire.error, errorJson(error));
  }

  #answer(send, payload) {
    if (this.isAnswered) return;
    this.isAnswered = true;
    this.unsent = { send, payload };
    this.#schedule();
  }

  /** The handler has nothing more to do. */
  end() {
    if (running !== this) return;
    this.isOver = true;
    whenEmpty = null;
    this.#schedule();
  }

  #schedule() {
    if (this.isScheduled) return;
    this.isScheduled = true;
    setImmediate(() => {
      this.isScheduled = false;
      this.flush();
    });
  }

  /** Sends what there is to send, and Ready if this one is over. */
  flush() {
    if (running !== this) return;
    if (wire.isBehind()) {
      wire.whenCaughtUp(() => this.flush());
      return;
    }
    if (this.isOver) {
      running = null;
      socket?.ref();
    }
    const { unsent } = this;
    this.unsent = null;
    if (unsent) unsent.send(this.id, unsent.payload, this.isOver);
    else if (this.isOver) wire.ready();
    if (this.isOver) listen();
  }

  /** The process is about to end, perhaps because of an error. */
  exit(error) {
    if (error && !this.isAnswered) {
      this.isAnswered = true;
      this.unsent = { send: wire.error, payload: errorJson(error.thrown) };
    }
    this.isOver = false;
    // In the middle of a piece nothing can be said; the end of the process says enough.
    if (!wire.isBehind()) this.flush();
  }
}

/** The reply's JSON. */
function serialize(value) {
  let json;
  try {
    json = JSON.stringify(value === undefined ? null : value);
  } catch {
    const message = "Unable to stringify response body";
    throw modern ? runtimeError("JSONStringifyError", message) : new Error(message);
  }
  // Functions and symbols have no JSON. These are Lambda's words for it.
  if (json === undefined) throw new TypeError("Wrong arguments");
  return json;
}

function parse(json, name) {
  if (!json) return undefined;
  try {
    return JSON.parse(json);
  } catch (error) {
    if (modern) throw runtimeError("PlatformError", `Failed to parse ${name} as JSON: ${error.message}`);
    throw new Error(`Cannot parse ${name} as json: ${error}`);
  }
}

const environment = () => ({
  functionName: process.env.AWS_LAMBDA_FUNCTION_NAME,
  functionVersion: process.env.AWS_LAMBDA_FUNCTION_VERSION,
  memoryLimitInMB: process.env.AWS_LAMBDA_FUNCTION_MEMORY_SIZE,
  logGroupName: process.env.AWS_LAMBDA_LOG_GROUP_NAME,
  logStreamName: process.env.AWS_LAMBDA_LOG_STREAM_NAME,
});

/** Fills a context object; `base` has the methods of this kind of handler. */
function context(message, base) {
  const { deadline } = message;
  const told = {
    clientContext: parse(message.clientContext, "ClientContext"),
    identity: parse(message.identity, "CognitoIdentity"),
    invokedFunctionArn: message.arn,
    awsRequestId: message.requestId,
    tenantId: undefined,
  };
  const getRemainingTimeInMillis = () => deadline - Date.now();
  if (modern) {
    return Object.assign(base, told, { xRayTraceId: message.traceId, getRemainingTimeInMillis }, environment());
  }
  base.functionVersion = ""; // The order of keys matters to those who print the object.
  return Object.assign(base, environment(), told, { getRemainingTimeInMillis });
}

/** The context of handlers that may wait for the event loop, with what reads the switch. */
function waitingContext() {
  let waits = true;
  const base = {
    get callbackWaitsForEmptyEventLoop() {
      return waits;
    },
    set callbackWaitsForEmptyEventLoop(value) {
      waits = value;
    },
  };
  return { base, waits: () => waits };
}

/** Since nodejs24.x: the handler's promise, or value, is the reply. */
async function runModern(invocation, handler, message) {
  try {
    const event = JSON.parse(message.event);
    const result = await handler(event, context(message, {}));
    await turn();
    invocation.reply(serialize(result));
  } catch (error) {
    await turn();
    invocation.fail(error);
  }
  invocation.end();
  invocation.flush();
}

/** Until nodejs22.x: promise, callback, or nothing. */
function runClassic(invocation, handler, message) {
  let isFinished = false;
  const complete = (result) => {
    if (invocation.isAnswered) {
      console.error(
        "Invocation has already been reported as done. Cannot call complete more than once per invocation.",
      );
      return;
    }
    invocation.reply(serialize(result));
    invocation.end();
  };
  const done = (error, result) => {
    if (running === invocation) whenEmpty = null;
    if (error === undefined || error === null) {
      complete(result);
    } else {
      invocation.fail(error);
      invocation.end();
    }
  };
  const { base, waits } = waitingContext();
  const callback = (error, result) => {
    if ((error !== undefined && error !== null) || !waits()) {
      done(error, result);
    } else if (running === invocation) {
      whenEmpty = () => setImmediate(complete, result);
    } else {
      complete(result);
    }
  };
  const first = (method) => (...values) => {
    if (isFinished) return;
    method(...values);
    isFinished = true; // Not if the result has no JSON: then the error is still to come.
  };
  base.succeed = first((result) => done(null, result));
  base.fail = first((error) => done(error ?? "handled"));
  base.done = first(done);
  const once = first(callback);
  // No promise, no callback, and nothing left to do: no reply is an answer too.
  whenEmpty = () => {
    invocation.reply("null");
    invocation.end();
  };
  try {
    const result = handler(JSON.parse(message.event), context(message, base), once);
    if (typeof result?.then === "function") result.then(base.succeed, base.fail).catch(base.fail);
  } catch (error) {
    once(error);
  }
}

const CALLBACKS_ARE_GONE =
  "ERROR: AWS Lambda has removed support for callback-based function handlers starting with Node.js 24. You need to modify this function to use a supported handler signature to use Node.js 24 or later. For more information see https://docs.aws.amazon.com/lambda/latest/dg/nodejs-handler.html.";

/** Chooses how `handler` is called. Throws if it is of a kind that the runtime does not call. */
function runner(handler) {
  if (isStreaming(handler)) {
    const { runStreaming } = require("./stream.cjs");
    return (invocation, message) => {
      runStreaming(invocation, handler, message, { connect, context, waitingContext, onEmpty });
    };
  }
  if (!modern) return (invocation, message) => runClassic(invocation, handler, message);
  if (handler.length >= 3) throw runtimeError("CallbackHandlerDeprecated", CALLBACKS_ARE_GONE);
  return (invocation, message) => void runModern(invocation, handler, message);
}

function onEmpty(act) {
  whenEmpty = act;
}

function listen() {
  if (socket) return;
  socket = wire.listen(take);
  if (running) socket.unref();
}

/** The socket, for what must not be waited for. */
function connect() {
  listen();
  return socket;
}

/** Tells the host that the worker is ready, and runs what it sends. */
function serve(run) {
  take = wire.frames((message) => {
    const invocation = new Invocation(message.id);
    running = invocation;
    socket?.unref();
    setRequestId(message.requestId);
    if (message.traceId) process.env._X_AMZN_TRACE_ID = message.traceId;
    else delete process.env._X_AMZN_TRACE_ID;
    store.enter(message);
    run(invocation, message);
  });
  wire.ready();
  wire.look(take);
  // A long first invocation must not keep the worker from hearing that the host is gone.
  if (running) setTimeout(listen, LISTEN_MS).unref();
  else listen();
}

/** What an error that nobody handled means for the invocation that runs. */
function crash(thrown) {
  running?.exit({ thrown });
}

module.exports = { runner, serve, crash };
