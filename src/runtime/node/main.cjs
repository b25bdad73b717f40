"use strict";
// Starts a worker: console, globals, handler; then Ready and invocations. What goes wrong before
// Ready is an InitError.

const wire = require("./wire.cjs");
const { modern, patchConsole, runtimeError, errorJson, logError } = require("./log.cjs");
const { load, streamifyResponse } = require("./load.cjs");

// Before the function's code is there, since that may replace what the modules use.
const invocations = require("./invoke.cjs");
const { setTimeout } = globalThis;

let isReady = false;

/** Ends the worker because of an error that nobody handles. */
function crash(what, error, status) {
  logError(what, error);
  if (isReady) invocations.crash(error);
  else wire.initError(errorJson(error));
  process.exit(status);
}

function unhandledRejection(reason, promise) {
  const error = runtimeError("UnhandledPromiseRejection", reason);
  crash("Unhandled Promise Rejection", Object.assign(error, { reason, promise }), 128);
}

/** `globalThis.awslambda`, whose parts load what they need when they are asked for. */
function defineGlobals() {
  if (["1", "true"].includes(process.env.AWS_LAMBDA_NODEJS_NO_GLOBAL_AWSLAMBDA)) return;
  globalThis.awslambda = {
    streamifyResponse,
    get HttpResponseStream() {
      return require("./stream.cjs").HttpResponseStream;
    },
  };
  if (modern) {
    const { InvokeStore } = require("./store.cjs");
    globalThis.awslambda.InvokeStore = new InvokeStore();
  }
}

/** Programs that inherit standard input, and code that reads it, would get the host's messages. */
function hideStandardInput() {
  if (wire.descriptor !== 0) return;
  let empty;
  const get = () => {
    const { Readable } = require("node:stream");
    empty ??= Readable.from([]);
    return empty;
  };
  Object.defineProperty(process, "stdin", { configurable: true, enumerable: true, get });
}

/** Writes what Node compiled, once nothing else is to be done: workers end by signals. */
function keepCompiled() {
  const { flushCompileCache } = require("node:module");
  if (process.env.HOB_CACHE && flushCompileCache) setTimeout(flushCompileCache, 1000).unref();
}

async function start() {
  patchConsole();
  defineGlobals();
  hideStandardInput();
  process.on("uncaughtException", (error) => crash("Uncaught Exception", error, 129));
  process.on("unhandledRejection", unhandledRejection);
  try {
    if (process.env.NODE_PATH) require("./imports.cjs").followNodePath();
    const handler = await load(process.env.LAMBDA_TASK_ROOT, process.env._HANDLER || "index.handler");
    const run = invocations.runner(handler);
    isReady = true;
    invocations.serve(run);
  } catch (error) {
    crash(modern ? "Init Error" : "Uncaught Exception", error, 1);
  }
  keepCompiled();
}

void start();
