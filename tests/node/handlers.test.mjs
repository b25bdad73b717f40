// Where handlers are found, and what they are given and give back, beyond what clients.test.mjs
// compares.
import assert from "node:assert/strict";
import test from "node:test";
import { folderOf, Worker } from "./host.mjs";

const CLASSIC = "AWS_Lambda_nodejs20.x";
const MODERN = "AWS_Lambda_nodejs24.x";
const [MAJOR, MINOR] = process.versions.node.split(".").map(Number);

/** The answer to one event, and the log. */
async function ask(handler, event, { told, ...options } = {}) {
  const worker = await (await Worker.start(handler, options)).ready();
  const { name, payload } = await worker.invoke(JSON.stringify(event), told);
  assert.equal(await worker.stop(), 0);
  let value; // Streams need not be JSON.
  try {
    value = JSON.parse(payload);
  } catch {}
  return { name, value, payload, log: worker.log };
}

async function failedInit(handler, options) {
  const worker = await Worker.start(handler, options);
  await worker.expect("Hello");
  const { payload } = await worker.expect("InitError");
  assert.equal(await worker.gone(), 1);
  return { ...JSON.parse(payload), log: worker.log };
}

const cjs = (text) => `exports.handler = async () => "${text}";\n`;
const esm = (text) => `export const handler = async () => "${text}";\n`;
const MODULE = '{"type":"module"}';

test("files are found in Lambda's order, and are CommonJS or ES modules as Node decides", async () => {
  const folder = folderOf({
    "plain.js": cjs("plain"),
    "plain.mjs": esm("not this"),
    "a.mjs": esm("mjs"),
    "a.cjs": cjs("not this"),
    "c.cjs": cjs("cjs"),
    "bare": cjs("no ending"),
    "bare.js": cjs("not this"),
    "dir/sub/deep.js": cjs("deep"),
    "module/package.json": MODULE,
    "module/m.js": `const text = await "module"; ${esm("module")}`,
    "module/inner/m.js": esm("inherited"),
    "module/inner/c.cjs": cjs("cjs in a module"),
    "module/cjs/package.json": '{"name":"x"}',
    "module/cjs/c.js": cjs("commonjs again"),
    "folder/index.js": cjs("index of a folder"),
    "node_modules/package/package.json": '{"main":"lib.js"}',
    "node_modules/package/lib.js": cjs("a package"),
    "dir/node_modules/near/index.js": cjs("a near package"),
    "named file.js": cjs("blank"),
    "odd#%3f.mjs": esm("odd"),
  });
  const cases = {
    "plain.handler": "plain",
    "a.handler": "mjs",
    "c.handler": "cjs",
    "bare.handler": "no ending",
    "dir/sub/deep.handler": "deep",
    "./dir/sub/deep.handler": "deep",
    "module/m.handler": "module",
    "module/inner/m.handler": "inherited",
    "module/inner/c.handler": "cjs in a module",
    "module/cjs/c.handler": "commonjs again",
    "folder.handler": "index of a folder",
    "package.handler": "a package",
    "dir/near.handler": "a near package",
    "odd#%3f.handler": "odd",
    [`${folder}/dir/sub/deep.handler`]: "deep",
  };
  for (const runtime of [CLASSIC, MODERN]) {
    for (const [handler, text] of Object.entries(cases)) {
      const { value, log } = await ask(handler, 1, { folder, env: { AWS_EXECUTION_ENV: runtime } });
      assert.equal(value, text, `${handler} ${log}`);
    }
  }
});

test("the handler is index.handler if nobody says", async () => {
  const folder = folderOf({ "index.js": cjs("default") });
  assert.equal((await ask("", 1, { folder })).value, "default");
});

test("ES modules without a word in package.json, where Node finds out by itself", async () => {
  const finds = MAJOR > 22 || (MAJOR === 22 && MINOR >= 12) || (MAJOR === 20 && MINOR >= 19);
  const folder = folderOf({ "index.js": esm("found out"), "waits.js": `await 1; ${esm("waits")}` });
  if (finds) {
    assert.equal((await ask("index.handler", 1, { folder })).value, "found out");
    assert.equal((await ask("waits.handler", 1, { folder })).value, "waits");
  } else {
    const { errorType, errorMessage } = await failedInit("index.handler", { folder });
    assert.equal(errorType, "Runtime.UserCodeSyntaxError");
    assert.match(errorMessage, /^SyntaxError: Unexpected token 'export'/);
  }
});

test("packages of layers are found by require and by import", async () => {
  const layers = folderOf({
    "nodejs/node_modules/layered/package.json": '{"exports":{"import":"./a.mjs","require":"./a.cjs"}}',
    "nodejs/node_modules/layered/a.mjs": "export default 'imported';\n",
    "nodejs/node_modules/layered/a.cjs": "module.exports = 'required';\n",
    "plain/single.js": "module.exports = 'single';\n",
    "plain/own/index.js": "module.exports = 'of the layer';\n",
  });
  const folder = folderOf({
    "required.js": "const value = [require('layered'), require('single'), require('own')];\nexports.handler = async () => value;\n",
    "imported.mjs": "import a from 'layered';\nimport b from 'single';\nimport c from 'own';\nexport const handler = async () => [a, b, c];\n",
    "later.js": "exports.handler = async () => [(await import('layered')).default];\n",
    "missing.mjs": "import 'nowhere';\n",
    "node_modules/own/index.js": "module.exports = 'of the function';\n",
  });
  const NODE_PATH = `/nonexistent:${layers}/nodejs/node_modules:${layers}/plain:${folder}`;
  const options = { folder, env: { NODE_PATH } };
  assert.deepEqual((await ask("required.handler", 1, options)).value, ["required", "single", "of the function"]);
  assert.deepEqual((await ask("imported.handler", 1, options)).value, ["imported", "single", "of the function"]);
  assert.deepEqual((await ask("later.handler", 1, options)).value, ["imported"]);
  assert.match((await failedInit("missing.handler", options)).errorMessage, /^Cannot find package 'nowhere' imported from/);
});

test("the folder of the function is where it runs", async () => {
  const folder = folderOf({ "index.js": "const at = process.cwd(); exports.handler = async () => at;\n" });
  assert.equal((await ask("index.handler", 1, { folder })).value, folder);
});

test("callbacks are refused since nodejs24.x, and awaited before", async () => {
  const { errorType } = await failedInit("all.three", { env: { AWS_EXECUTION_ENV: MODERN } });
  assert.equal(errorType, "Runtime.CallbackHandlerDeprecated");
  assert.equal((await ask("all.three", 1)).value, "three");
  const folder = folderOf({ "index.js": "exports.handler = (event, context, ...rest) => rest.length;\n" });
  assert.equal((await ask("index.handler", 1, { folder, env: { AWS_EXECUTION_ENV: MODERN } })).value, 0);
  // Without a name of a runtime the Node that runs decides.
  const env = { AWS_EXECUTION_ENV: "" };
  if (MAJOR >= 24) assert.equal((await failedInit("all.three", { env })).errorType, errorType);
  else assert.equal((await ask("all.three", 1, { env })).value, "three");
});

test("what a handler returns at once is a reply only since nodejs24.x", async () => {
  for (const [runtime, value] of [[CLASSIC, null], [MODERN, 5]]) {
    const options = { env: { AWS_EXECUTION_ENV: runtime } };
    assert.equal((await ask("all.syncValue", "number", options)).value, value);
  }
});

test("a promise that stays while the event loop is empty", async () => {
  assert.equal((await ask("all.neverResolves", 1)).value, null);
  const worker = await (await Worker.start("all.neverResolves", { env: { AWS_EXECUTION_ENV: MODERN } })).ready();
  worker.send("1");
  assert.equal((await worker.next()).name, "end");
  assert.equal(await worker.gone(), 0);
});

test("what cannot be shown can still be thrown", async () => {
  for (const runtime of [CLASSIC, MODERN]) {
    const { name, value } = await ask("all.fail", "bare", { env: { AWS_EXECUTION_ENV: runtime } });
    assert.equal(name, "Error");
    assert.equal(value.errorType, "handled");
  }
});

test("a result without JSON is an error", async () => {
  for (const [runtime, type] of [[CLASSIC, "Error"], [MODERN, "Runtime.JSONStringifyError"]]) {
    for (const result of ["circle", "big", "brokenJson"]) {
      const { name, value } = await ask("all.value", result, { env: { AWS_EXECUTION_ENV: runtime } });
      assert.deepEqual([name, value.errorType, value.errorMessage], ["Error", type, "Unable to stringify response body"]);
    }
  }
});

test("a callback that comes after the answer is told off, and nothing else", async () => {
  const folder = folderOf({
    "index.js":
      "let old;\nexports.handler = (event, context, callback) => {\n" +
      "  if (event === 1) { old = callback; return; }\n  old(null, 'late'); callback(null, 'mine');\n};\n",
  });
  const worker = await (await Worker.start("index.handler", { folder })).ready();
  assert.equal((await worker.invoke("1")).payload, "null");
  assert.equal((await worker.invoke("2")).payload, '"mine"');
  await worker.logged(/request-2\tERROR\tInvocation has already been reported as done\./);
  assert.equal((await worker.invoke("2")).payload, '"mine"');
  await worker.stop();
});

test("log lines have a time, the request, a level, and no line ends of their own", async () => {
  for (const [runtime, none] of [[CLASSIC, "undefined"], [MODERN, "-"]]) {
    const folder = folderOf({
      "index.js": "console.log('init');\nexports.handler = async () => console.warn('%s\\nand', 'one', { two: 2 });\n",
    });
    const { log } = await ask("index.handler", 1, { folder, env: { AWS_EXECUTION_ENV: runtime } });
    const [first, second, rest] = log.split("\n");
    assert.match(first, new RegExp(`^\\d{4}-\\d\\d-\\d\\dT\\d\\d:\\d\\d:\\d\\d\\.\\d{3}Z\\t${none}\\tINFO\\tinit$`));
    assert.match(second, /Z\trequest-1\tWARN\tone\rand { two: 2 }$/);
    assert.equal(rest, "");
  }
});

test("log lines in JSON", async () => {
  const env = { AWS_LAMBDA_LOG_FORMAT: "JSON", AWS_LAMBDA_LOG_LEVEL: "INFO" };
  const lines = (await ask("all.log", 1, { env })).log.trim().split("\n").map(JSON.parse);
  assert.deepEqual(Object.keys(lines[0]), ["timestamp", "level", "requestId", "message"]);
  assert.deepEqual([lines[0].level, lines[0].requestId, lines[0].message], ["INFO", "request-1", "one\ntwo\r\nthree"]);
  assert.ok(!lines.some((line) => line.level === "DEBUG" || line.level === "TRACE"));
  const told = lines.find((line) => line.message?.startsWith?.("with text"));
  assert.deepEqual([told.errorType, told.errorMessage], ["Named", "in a log"]);
});

test("long lines are whole, also after the function has used process.stdout itself", async () => {
  const source = "exports.handler = async () => { process.stdout.write('mine\\n'); console.log('x'.repeat(3e6)); process.exit(0); };\n";
  const worker = await (await Worker.start("index.handler", { folder: folderOf({ "index.js": source }) })).ready();
  worker.send("1");
  assert.equal(await worker.gone(), 0);
  assert.match(worker.log, /^mine\n[^\n]*\tx{3000000}\n$/);
});

test("awslambda has what libraries look for", async () => {
  const folder = folderOf({
    "index.js":
      "exports.handler = async () => { const s = awslambda?.InvokeStore; return s && [s.getRequestId(), s.getXRayTraceId(), s.hasContext()]; };\n" +
      "exports.names = async () => Object.keys(globalThis.awslambda ?? {});\n",
  });
  const told = { trace: "Root=1" };
  const modern = { folder, told, env: { AWS_EXECUTION_ENV: MODERN } };
  assert.deepEqual((await ask("index.handler", 1, modern)).value, ["request-1", "Root=1", true]);
  assert.deepEqual((await ask("index.names", 1, { folder })).value, ["streamifyResponse", "HttpResponseStream"]);
  const env = { AWS_LAMBDA_NODEJS_NO_GLOBAL_AWSLAMBDA: "1" };
  assert.deepEqual((await ask("index.names", 1, { folder, env })).value, []);
});

const STREAMS =
  "const { streamifyResponse, HttpResponseStream } = awslambda;\n" +
  "exports.http = streamifyResponse(async (event, reply) => { HttpResponseStream.from(reply, { statusCode: 418 }).end(event); });\n" +
  "exports.noBody = streamifyResponse(async (event, reply) => { HttpResponseStream.from(reply, { statusCode: 204 }).end(); });\n" +
  "exports.open = streamifyResponse(async (event, reply) => { reply.write('x'); });\n" +
  "exports.destroyed = streamifyResponse(async (event, reply) => { reply.destroy(new TypeError('gone')); });\n" +
  "exports.goesOn = streamifyResponse(async (event, reply) => { reply.end('x'); await new Promise((r) => setTimeout(r, 20)); console.log('after'); });\n" +
  "exports.timer = streamifyResponse(async (event, reply, context) => { context.callbackWaitsForEmptyEventLoop = event; setTimeout(() => console.log('timer'), 20); reply.end('x'); });\n" +
  "exports.large = streamifyResponse(async (event, reply) => { for (let n = 0; n < 80; n++) reply.write('x'.repeat(1e5)); reply.end(); });\n" +
  "exports.marked = Object.assign(async (event, reply) => reply.end('marked'), { [Symbol.for('aws.lambda.runtime.handler.streaming')]: 'response' });\n";

for (const runtime of [CLASSIC, MODERN]) {
  const options = { folder: folderOf({ "index.js": STREAMS }), env: { AWS_EXECUTION_ENV: runtime } };

  test(`${runtime}: streams`, async () => {
    const { payload } = await ask("index.http", "body", options);
    assert.equal(payload, `{"statusCode":418}${"\0".repeat(8)}body`);
    assert.equal((await ask("index.noBody", 1, options)).payload, `{"statusCode":204}${"\0".repeat(8)}`);
    assert.equal((await ask("index.marked", 1, options)).payload, "marked");
    assert.equal((await ask("index.large", 1, options)).payload.length, 8e6);
  });

  test(`${runtime}: a stream that has no end is an error, not a wait`, async () => {
    const { name, value } = await ask("index.open", 1, options);
    assert.equal(name, "Error");
    assert.equal(value.errorMessage, "Response stream is not finished.");
    assert.equal((await ask("index.destroyed", 1, options)).value.errorMessage, "gone");
  });

  test(`${runtime}: a stream's reply leaves at its end, Ready when the handler has ended`, async () => {
    const worker = await (await Worker.start("index.goesOn", options)).ready();
    assert.equal((await worker.answer("1")).payload, "x");
    assert.doesNotMatch(worker.log, /after/);
    await worker.expect("Ready");
    await worker.logged(/after/);
    await worker.stop();
  });
}

test("Ready waits for the event loop after a stream, unless it must not", async () => {
  for (const waits of [true, false]) {
    const folder = folderOf({ "index.js": STREAMS });
    const worker = await (await Worker.start("index.timer", { folder })).ready();
    await worker.invoke(String(waits));
    worker.send(String(waits));
    assert.equal((await worker.whole()).name, "Reply");
    await worker.logged(waits ? /request-1\tINFO\ttimer/ : /request-2\tINFO\ttimer/);
    await worker.expect("Ready");
    await worker.stop();
  }
});

test("names that fake timers replace are not ours", async () => {
  const folder = folderOf({
    "index.js": "globalThis.setImmediate = () => {};\nglobalThis.setTimeout = () => {};\nexports.handler = async () => 1;\n",
  });
  for (const runtime of [CLASSIC, MODERN]) {
    assert.equal((await ask("index.handler", 1, { folder, env: { AWS_EXECUTION_ENV: runtime } })).value, 1);
  }
});
