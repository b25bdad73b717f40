"use strict";
// One handler for each thing that a client of Lambda is held to. CommonJS.

class Named extends Error {
  constructor(message) {
    super(message);
    this.name = "Named";
    this.detail = { of: "it" };
    this.code = "E_NAMED";
  }
}

const circle = {};
circle.circle = circle;

const values = {
  undefined: undefined,
  null: null,
  number: 5,
  text: "grün \u2028 \x7f \ud800",
  list: [1, undefined, () => 1],
  date: new Date(0),
  big: 5n,
  circle,
  function: () => 1,
  symbol: Symbol("s"),
  json: { toJSON: () => ({ made: "by toJSON" }) },
  brokenJson: {
    toJSON() {
      throw new Error("toJSON is broken");
    },
  },
  nan: Number.NaN,
  map: new Map([[1, 2]]),
  bytes: Buffer.from("abc"),
};

const errors = {
  error: () => new Error("plain"),
  type: () => new TypeError("del \x7f ete"),
  named: () => new Named("a named one"),
  cause: () => new Error("outer", { cause: new Error("inner") }),
  aggregate: () => new AggregateError([new Error("one"), new Error("two")], "both"),
  text: () => "just text",
  number: () => 7,
  object: () => ({ name: "not", message: "an error" }),
  alike: () => ({ name: "Alike", message: "like an error", stack: "Alike: like\n    at nowhere" }),
  null: () => null,
  undefined: () => undefined,
  bare: () => Object.create(null),
  stackless: () => Object.assign(new Error("no stack"), { stack: undefined }),
  circle: () => Object.assign(new Error("circle"), { circle }),
  big: () => Object.assign(new Error("big"), { big: 5n }),
  multiline: () => new Error("one\ntwo"),
  nameless: () => Object.assign(new Error("nameless"), { name: undefined }),
  other: () => require("node:vm").runInNewContext("new TypeError('of another realm')"),
};

exports.echo = async (event) => event;
exports.value = async (event) => values[event];
exports.syncValue = (event) => values[event];
exports.fail = async (event) => {
  throw errors[event]();
};
exports.syncFail = (event) => {
  throw errors[event]();
};
exports.context = async (_event, context) => ({ keys: Object.keys(context).sort(), context });
exports.trace = async () => process.env._X_AMZN_TRACE_ID ?? "none";
exports.remaining = async (_event, context) => Math.round(context.getRemainingTimeInMillis() / 1000);
exports.thenable = () => ({ then: (resolve) => resolve("thenable") });
exports.deep = { inner: { handler: async () => "deep" } };
exports.notFunction = "text";
exports.two = async (_event, _context) => "two";
exports.three = async (_event, _context, _callback) => "three";

exports.log = async () => {
  console.log("one\ntwo\r\nthree");
  console.log();
  console.log(undefined);
  console.log("%s and %d %o", "text", 5, { a: 1 }, "more");
  console.info({ a: { b: { c: { d: 1 } } } });
  console.warn("warn", [1, 2], null);
  console.error("error", new RangeError("logged").message);
  console.debug("debug", 5n);
  console.trace("trace");
  console.fatal?.("fatal");
  console.log(new Named("in a log"));
  console.log("with text", new Named("in a log"));
  console.log({ error: new Named("inside") });
  console.log(circle);
  console.log("circle", circle);
  console.log("%j", circle);
  console.log(Symbol("s"));
  console.log("100%", "%");
  console.log(new Error("x", { cause: new Error("y") }).message);
};

exports.callback = (event, context, callback) => {
  if ("waits" in event) context.callbackWaitsForEmptyEventLoop = event.waits;
  if (event.later) setTimeout(() => console.log("later"), event.later);
  if (event.error) callback(errors[event.error]());
  else callback(null, event.value ? values[event.value] : event);
  if (event.again) callback(null, "again");
};
exports.noAnswer = () => {
  setTimeout(() => console.log("timer"), 5);
};
exports.neverResolves = () => new Promise(() => setTimeout(() => console.log("timer"), 5));
exports.succeed = (event, context) => context.succeed(event);
exports.failed = (event, context) => context.fail(event && errors[event]());
exports.done = (event, context) => context.done(event.error, event.value);
exports.doneLater = (event, context) => {
  setTimeout(() => context.done(null, event), 5);
};

exports.reject = async () => {
  Promise.reject(new Named("nobody handles it"));
  await new Promise((resolve) => setTimeout(resolve, 1000));
};
exports.rejectText = async () => {
  Promise.reject("only text");
  await new Promise((resolve) => setTimeout(resolve, 1000));
};
exports.uncaught = async () => {
  setTimeout(() => {
    throw new Named("nobody catches it");
  }, 1);
  await new Promise((resolve) => setTimeout(resolve, 1000));
};
exports.exit = async () => process.exit(3);

const { streamifyResponse, HttpResponseStream } = globalThis.awslambda ?? {};
if (streamifyResponse) {
  exports.stream = streamifyResponse(async (event, reply) => {
    reply.setContentType("text/plain");
    reply.write("one ");
    reply.write(Buffer.from("two "));
    reply.write(new Uint8Array([0x33, 0x20]));
    reply.write(event);
    reply.end();
  });
  exports.http = streamifyResponse(async (event, reply) => {
    const stream = HttpResponseStream.from(reply, { statusCode: 201, headers: { a: "b" }, cookies: ["c=d"] });
    stream.write(event.text);
    stream.end();
  });
  exports.pipe = streamifyResponse(async (event, reply) => {
    const { pipeline } = require("node:stream/promises");
    const { Readable } = require("node:stream");
    await pipeline(Readable.from(["a".repeat(100_000), "b"]), reply);
  });
  exports.streamFail = streamifyResponse(async (event, reply) => {
    reply.write("begun");
    throw errors[event]();
  });
  exports.streamSync = streamifyResponse((event, reply) => {
    reply.end("x");
  });
  exports.streamValue = streamifyResponse(async (event, reply) => {
    reply.write("x");
    reply.end();
    return "ignored";
  });
  exports.streamLate = streamifyResponse(async (event, reply) => {
    reply.write("x");
    reply.setContentType("text/plain");
  });
  exports.streamEnd = streamifyResponse(async (event, reply) => {
    reply.end("only at the end");
  });
}
