"use strict";
// What functions write with `console`, and what errors look like in the log and in answers.
//
// There are two dialects, since Lambda has two clients for Node: `modern` is the one of nodejs24.x
// and later. Lines are written with a system call each, so none is lost however the process ends.

const { writeAll } = require("./wire.cjs");

const runtime = /^AWS_Lambda_nodejs(\d+)/.exec(process.env.AWS_EXECUTION_ENV ?? "")?.[1];
const modern = Number(runtime ?? process.versions.node.split(".")[0]) >= 24;

const JSON_LINES = process.env.AWS_LAMBDA_LOG_FORMAT?.toUpperCase() === "JSON";
const LEVELS = ["TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL"];

// What stands for the request outside of invocations.
let requestId = modern ? "-" : undefined;
let format = (...values) => (format = require("node:util").format)(...values);

function setRequestId(id) {
  requestId = id;
}

const stackLines = (error) => (typeof error.stack === "string" ? error.stack.split("\n") : undefined);

/** An error inside a line of JSON. */
function expand(_key, value) {
  if (!(value instanceof Error)) return value;
  return {
    errorType: value.constructor?.name ?? "UnknownError",
    errorMessage: value.message,
    stackTrace: stackLines(value) ?? value.stack,
    ...value,
  };
}

function jsonLine(timestamp, level, values) {
  const line = { timestamp, level, requestId };
  if (values.length === 1) {
    line.message = values[0];
    try {
      return JSON.stringify(line, expand);
    } catch {
      line.message = format(line.message);
      return JSON.stringify(line);
    }
  }
  line.message = format(...values);
  const error = values.slice(modern ? 1 : 0).find((value) => value instanceof Error);
  if (error) {
    line.errorType = error.constructor?.name ?? "UnknownError";
    line.errorMessage = error.message;
    line.stackTrace = stackLines(error) ?? [];
  }
  return JSON.stringify(line);
}

function write(level, values) {
  const time = new Date().toISOString();
  const line = JSON_LINES
    ? jsonLine(time, level, values)
    : `${time}\t${requestId}\t${level}\t${format(...values)}`;
  try {
    // A record is a line: its own line ends become carriage returns.
    writeAll(1, Buffer.from(`${line.replaceAll("\n", "\r")}\n`));
  } catch {
    // Nobody reads the log any more.
  }
}

/** Puts our methods into `console`. */
function patchConsole() {
  const least = Math.max(LEVELS.indexOf(process.env.AWS_LAMBDA_LOG_LEVEL?.toUpperCase()), 0);
  const silent = () => {};
  LEVELS.forEach((level, n) => {
    const method = (message, ...values) => write(level, [message, ...values]);
    console[level.toLowerCase()] = n >= least ? method : silent;
  });
  console.log = console.info;
}

/** An error that the runtime itself found. The dialects differ in what a log shows of it. */
function runtimeError(name, message) {
  if (modern) {
    const error = new Error(message);
    Error.captureStackTrace(error, runtimeError);
    error.name = `Runtime.${name}`;
    return error;
  }
  const type = class extends Error {};
  Object.defineProperty(type, "name", { value: name });
  type.prototype.name = `Runtime.${name}`;
  const error = new type(message);
  Error.captureStackTrace(error, runtimeError);
  return error;
}

const clean = (text) => text?.replaceAll("\x7F", "%7F");

function isError(value) {
  if (value instanceof Error) return true;
  // Those of other realms (node:vm), and what libraries make to look like errors.
  if (modern) return false;
  if (require("node:util").types.isNativeError(value)) return true;
  return [value?.name, value?.message, value?.stack].every((s) => s && typeof s === "string");
}

/** The object that a caller gets for what a handler threw. */
function describe(error) {
  try {
    if (isError(error)) {
      const trace = modern ? clean(error.stack)?.split("\n") || [] : clean(error.stack).split("\n");
      return { errorType: clean(error.name), errorMessage: clean(error.message), trace };
    }
    const errorMessage = modern ? String(error) : error.toString();
    return { errorType: typeof error, errorMessage, trace: [] };
  } catch {
    const described = {
      errorType: "handled",
      errorMessage:
        "callback called with Error argument, but there was a problem while retrieving one or more of its message, name, and stack",
    };
    return modern ? { ...described, trace: [] } : described;
  }
}

/** The same as JSON. */
function errorJson(error) {
  try {
    return JSON.stringify(describe(error));
  } catch {
    return JSON.stringify({ errorType: "Error", errorMessage: "Unable to stringify response body" });
  }
}

function enumerable(_key, value) {
  if (!(value instanceof Error)) return value;
  const { name: errorType, message: errorMessage, code } = value;
  const shown = { errorType, errorMessage, code, ...value };
  if (typeof value.stack === "string") shown.stack = value.stack.split("\n");
  return shown;
}

function asError(thrown) {
  try {
    return new Error(modern ? String(thrown) : thrown);
  } catch {
    return new Error("what was thrown cannot be shown");
  }
}

/** Logs what went wrong, `what` being the kind. */
function logError(what, thrown) {
  const error = thrown instanceof Error ? thrown : asError(thrown);
  if (JSON_LINES) {
    console.error(error);
    return;
  }
  let told;
  try {
    told = JSON.stringify(error, enumerable);
  } catch {
    told = errorJson(error);
  }
  console.error(what, `\t${told}`);
}

module.exports = { modern, setRequestId, patchConsole, runtimeError, errorJson, logError };
