"use strict";
// Finds and loads the handler that `_HANDLER` names: `dir/file.export`, looked for below
// LAMBDA_TASK_ROOT first, then as Node finds packages.

const fs = require("node:fs");
const path = require("node:path");
const { modern, runtimeError } = require("./log.cjs");

const STREAMING = Symbol.for("aws.lambda.runtime.handler.streaming");
const HIGH_WATER_MARK = Symbol.for("aws.lambda.runtime.handler.streaming.highWaterMark");

function malformed(message) {
  return runtimeError("MalformedHandlerName", message);
}

/** The folder, the file's name and the export's, as text. */
function split(handler) {
  if (handler.includes("..")) {
    throw malformed(
      `'${handler}' is not a valid handler name. Use absolute paths when specifying root directories in handler names.`,
    );
  }
  const last = path.basename(handler);
  const dot = last.indexOf(".");
  if (dot < 0) throw malformed("Bad handler");
  const folder = handler.slice(0, handler.indexOf(last));
  return { folder, file: last.slice(0, dot), name: last.slice(dot + 1) };
}

function isFile(file) {
  return fs.statSync(file, { throwIfNoEntry: false })?.isFile() ?? false;
}

/** True if the nearest package.json above a `.js` file makes it an ES module. */
function isInModulePackage(file) {
  for (let folder = path.dirname(file); !folder.endsWith("/node_modules"); ) {
    try {
      const text = fs.readFileSync(path.join(folder, "package.json"), "utf8");
      return JSON.parse(text)?.type === "module";
    } catch (error) {
      // Node itself complains about one that is not JSON, with a better message.
      if (error instanceof SyntaxError) return false;
    }
    const parent = path.dirname(folder);
    if (parent === folder) return false;
    folder = parent;
  }
  return false;
}

async function importFile(file) {
  const { pathToFileURL } = require("node:url");
  return import(pathToFileURL(file).href);
}

async function requireOrImport(file) {
  try {
    return require(file);
  } catch (error) {
    // A module that awaits, which nothing but its text says.
    if (error?.code === "ERR_REQUIRE_ASYNC_MODULE") return importFile(file);
    throw error;
  }
}

async function loadModule(root, folder, file) {
  const place = path.resolve(root, folder, file);
  if (isFile(place)) return requireOrImport(place);
  if (isFile(`${place}.js`)) {
    return (isInModulePackage(`${place}.js`) ? importFile : requireOrImport)(`${place}.js`);
  }
  if (isFile(`${place}.mjs`)) return importFile(`${place}.mjs`);
  if (isFile(`${place}.cjs`)) return require(`${place}.cjs`);
  // A folder with an index, or a package, also one of a layer: NODE_PATH counts.
  if (fs.existsSync(place)) return requireOrImport(require.resolve(place));
  return requireOrImport(require.resolve(file, { paths: [root, path.join(root, folder)] }));
}

function nested(object, name) {
  return name.split(".").reduce((inner, key) => inner?.[key], object);
}

/** Loads the handler. Throws what Lambda tells callers. */
async function load(root, handler) {
  const { folder, file, name } = split(handler);
  let loaded;
  try {
    loaded = await loadModule(root, folder, file);
  } catch (error) {
    if (error instanceof SyntaxError) {
      const told = runtimeError("UserCodeSyntaxError", String(error));
      if (modern) told.stack = error.stack;
      throw told;
    }
    if (error?.code === "MODULE_NOT_FOUND") throw runtimeError("ImportModuleError", String(error));
    throw error;
  }
  const found = nested(loaded, name) || nested(loaded?.default, name);
  if (!found) throw runtimeError("HandlerNotFound", `${handler} is undefined or not exported`);
  if (typeof found !== "function") {
    throw runtimeError("HandlerNotFound", `${handler} is not a function`);
  }
  return found;
}

/** What `awslambda.streamifyResponse` does: marks a handler. */
function streamifyResponse(handler, options) {
  handler[STREAMING] = "response";
  if (typeof options?.highWaterMark === "number") {
    handler[HIGH_WATER_MARK] = Math.trunc(options.highWaterMark);
  }
  return handler;
}

/** True if the handler streams its reply. */
function isStreaming(handler) {
  if (!handler[STREAMING]) return false;
  if (handler[STREAMING] === "response") return true;
  throw runtimeError("MalformedStreamingHandler", "Only response streaming is supported.");
}

function highWaterMark(handler) {
  return Number.parseInt(handler[HIGH_WATER_MARK], 10) || undefined;
}

module.exports = { load, streamifyResponse, isStreaming, highWaterMark };
