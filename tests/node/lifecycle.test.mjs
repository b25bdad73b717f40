// A worker's life: how it starts, talks, crashes and ends. The host is host.mjs.
import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import test from "node:test";
import { folderOf, framed, invokeFrame, Worker } from "./host.mjs";

const CLASSIC = "AWS_Lambda_nodejs20.x";
const MODERN = "AWS_Lambda_nodejs24.x";

/** Runs `act` with a worker whose function is `source`. */
async function withWorker(source, act, { env = {}, name = "index.js", descriptor } = {}) {
  const folder = folderOf({ [name]: source });
  const worker = await Worker.start("index.handler", { folder, env, descriptor });
  try {
    await act(worker, folder);
  } finally {
    worker.process.kill("SIGKILL");
    worker.socket.destroy();
    await worker.gone();
  }
}

test("Hello comes before the function's code is run, Ready after it", async () => {
  const folder = folderOf({
    "index.mjs":
      "import fs from 'node:fs';\nwhile (!fs.existsSync('go')) await new Promise((r) => setTimeout(r, 1));\n" +
      "export const handler = async () => 'begun';\n",
  });
  const worker = await Worker.start("index.handler", { folder });
  assert.equal((await worker.expect("Hello")).protocol, 3);
  assert.ok(worker.isQuiet);
  fs.writeFileSync(path.join(folder, "go"), "");
  await worker.expect("Ready");
  assert.equal((await worker.invoke("1")).payload, '"begun"');
  assert.equal(await worker.stop(), 0);
});

test("frames in pieces, large ids, what every field says", async () => {
  const source =
    "exports.handler = async (event, c) => [event, c.awsRequestId, c.invokedFunctionArn, c.clientContext, c.identity," +
    " process.env._X_AMZN_TRACE_ID ?? null, c.getRemainingTimeInMillis() > 1e12];\n";
  await withWorker(source, async (worker) => {
    await worker.ready();
    worker.nextId = 127;
    for (const id of [127, 128, 16_384, 3_000_000_000]) {
      worker.nextId = id;
      const told = { deadline: 2 ** 45, requestId: `é${id}`, client: '{"c":1}', identity: '{"i":2}', trace: "Root=1" };
      const { payload } = await worker.invoke('"x"', told);
      assert.deepEqual(JSON.parse(payload), ["x", `é${id}`, "arn:aws:lambda:board:1:function:f", { c: 1 }, { i: 2 }, "Root=1", true]);
    }
    const { payload } = await worker.invoke('"y"');
    assert.deepEqual(JSON.parse(payload).slice(3), [null, null, null, false]);
    const bytes = invokeFrame(5, JSON.stringify("in pieces"));
    for (const byte of bytes) {
      await new Promise((resolve) => worker.socket.write(Buffer.from([byte]), resolve));
    }
    assert.match((await worker.expect("Reply")).payload, /^\["in pieces"/);
    await worker.expect("Ready");
  });
});

test("events and replies of all sizes, up to Lambda's limit and above it", async () => {
  await withWorker("exports.handler = async (n) => 'ü'.repeat(n / 2);\n", async (worker) => {
    await worker.ready();
    for (const size of [0, 5_400, 5_500, 16_000, 17_000, 300_000, 6_291_554]) {
      const { name, payload } = await worker.invoke(String(size));
      assert.equal(name, "Reply");
      assert.equal(Buffer.byteLength(payload), size + 2);
    }
    const { name, payload } = await worker.invoke("6291556");
    assert.equal(name, "Error");
    assert.deepEqual(JSON.parse(payload), {
      errorMessage: "Response payload size exceeded maximum allowed payload size (6291556 bytes).",
      errorType: "Function.ResponseSizeTooLarge",
    });
    assert.equal((await worker.invoke("2")).payload, '"ü"');
  });
  await withWorker("exports.handler = async (e) => e.length;\n", async (worker) => {
    await worker.ready();
    for (const size of [10, 65_000, 70_000, 6_000_000]) {
      assert.equal((await worker.invoke(JSON.stringify("x".repeat(size)))).payload, String(size));
    }
  });
});

test("an event that is not JSON is an error of that invocation", async () => {
  for (const runtime of [CLASSIC, MODERN]) {
    await withWorker("exports.handler = async (e) => e;\n", async (worker) => {
      await worker.ready();
      const { name, payload } = await worker.invoke("{");
      assert.equal(name, "Error");
      assert.equal(JSON.parse(payload).errorType, "SyntaxError");
      assert.equal((await worker.invoke("1")).payload, "1");
    }, { env: { AWS_EXECUTION_ENV: runtime } });
  }
});

test("timers run between invocations", async () => {
  const source =
    "exports.handler = async () => { setTimeout(() => console.log('tick'), 20); return 1; };\n";
  await withWorker(source, async (worker) => {
    await worker.ready();
    await worker.invoke("1");
    await worker.logged(/request-1\tINFO\ttick\n/);
    assert.equal((await worker.invoke("1")).payload, "1");
  });
});

const WATCHER =
  "const fs = require('node:fs');\nexports.handler = (event, context, callback) => {\n" +
  "  if (event === 'now') context.callbackWaitsForEmptyEventLoop = false;\n" +
  "  let ticks = 0;\n  const timer = setInterval(() => {\n    if (ticks++ < 3) console.log('tick', ticks);\n" +
  "    if (fs.existsSync('go')) clearInterval(timer);\n  }, 1);\n" +
  "  console.log('called');\n  if (event === 'async') return Promise.resolve('answered');\n  callback(null, 'answered');\n};\n";

test("a callback's reply waits for the event loop to be empty, unless it must not", async () => {
  await withWorker(WATCHER, async (worker, folder) => {
    await worker.ready();
    assert.equal((await worker.invoke('"now"')).payload, '"answered"');
    assert.equal((await worker.invoke('"async"')).payload, '"answered"');
    worker.send('"wait"');
    // The loop has turned since, so what was sent before is here one turn later.
    await worker.logged(/request-3\tINFO\tcalled[^]*tick 3/);
    await new Promise(setImmediate);
    await new Promise(setImmediate);
    assert.ok(worker.isQuiet);
    fs.writeFileSync(path.join(folder, "go"), "");
    assert.equal((await worker.expect("Reply")).payload, '"answered"');
    await worker.expect("Ready");
  });
});

test("a worker with open handles ends with the stream, and its exit handlers run", async () => {
  const source =
    "process.on('exit', (status) => console.log('exit', status));\nsetInterval(() => {}, 1000);\n" +
    "require('node:net').createServer().listen(0, '127.0.0.1');\nexports.handler = async () => 1;\n";
  await withWorker(source, async (worker) => {
    await worker.ready();
    await worker.invoke("1");
    assert.equal(await worker.stop(), 0);
    assert.match(worker.log, /INFO\texit 0\n$/);
  });
});

test("the end of the stream in the middle of an invocation ends the worker", async () => {
  await withWorker("exports.handler = () => new Promise(() => setInterval(() => {}, 1000));\n", async (worker) => {
    await worker.ready();
    worker.send("1");
    assert.equal(await worker.stop(), 0);
  });
  // The same with a first one that was there before the worker listened.
  await withWorker("exports.handler = () => new Promise(() => setInterval(() => {}, 1000));\n", async (worker) => {
    worker.send("1");
    await worker.ready();
    assert.equal(await worker.stop(), 0);
  }, NON_BLOCKING);
});

// Node makes the first three descriptors of programs that it starts block, and leaves others alone.
const NON_BLOCKING = { descriptor: 3 };

test("an invocation that waits for the worker is run, whole or in part", async () => {
  for (const options of [NON_BLOCKING, {}]) {
    await withWorker("exports.handler = async (event) => event.length;\n", async (worker) => {
      worker.send('"one"');
      await worker.ready();
      assert.equal((await worker.expect("Reply")).payload, "3");
      await worker.expect("Ready");
      assert.equal((await worker.invoke('"second"')).payload, "6");
    }, options);
    await withWorker("exports.handler = async (event) => event.length;\n", async (worker) => {
      const bytes = invokeFrame(1, JSON.stringify("x".repeat(50_000)));
      worker.socket.write(bytes.subarray(0, 10_000));
      await worker.ready();
      worker.socket.write(bytes.subarray(10_000));
      assert.equal((await worker.expect("Reply")).payload, "50000");
      await worker.expect("Ready");
    }, options);
  }
});

test("SIGTERM ends a worker, or runs what the function does then", async () => {
  await withWorker("exports.handler = async () => 1;\n", async (worker) => {
    await worker.ready();
    worker.process.kill("SIGTERM");
    assert.equal(await worker.gone(), "SIGTERM");
  });
  const source =
    "process.on('SIGTERM', () => { console.log('asked'); setTimeout(() => { console.log('clean'); process.exit(7); }, 50); });\n" +
    "setInterval(() => {}, 1000);\nexports.handler = async () => 1;\n";
  await withWorker(source, async (worker) => {
    await worker.ready();
    worker.process.kill("SIGTERM");
    await worker.logged(/asked/);
    assert.equal(await worker.stop(), 7);
    assert.match(worker.log, /clean/);
  });
});

test("what a function does at SIGTERM cannot keep the worker", async () => {
  const source =
    "process.on('SIGTERM', () => console.log('asked'));\nsetInterval(() => {}, 1000);\n" +
    "globalThis.setTimeout = () => {};\nexports.handler = async () => 1;\n";
  await withWorker(source, async (worker) => {
    await worker.ready();
    worker.process.kill("SIGTERM");
    await worker.logged(/asked/);
    assert.equal(await worker.stop(), 0);
  });
});

const SPAWNS =
  "const fs = require('node:fs');\nconst { spawnSync } = require('node:child_process');\n" +
  "exports.handler = async ([stdin, wire]) => {\n" +
  "  const { stdout } = spawnSync('ls', ['-l', '/proc/self/fd'], { stdio: [stdin, 'pipe', 'pipe'] });\n" +
  "  let read = '';\n  for await (const part of process.stdin) read += part;\n" +
  "  return [String(stdout).includes(fs.readlinkSync(`/proc/self/fd/${wire}`)), read];\n};\n";

test("programs that a handler starts do not get the conversation, nor does process.stdin", async () => {
  const folder = folderOf({ "index.js": SPAWNS });
  const worker = await (await Worker.start("index.handler", { folder })).ready();
  for (const stdin of ["pipe", "ignore"]) {
    assert.deepEqual(JSON.parse((await worker.invoke(JSON.stringify([stdin, 0]))).payload), [false, ""]);
  }
  // Node cannot move descriptor 0 away. The host can.
  assert.deepEqual(JSON.parse((await worker.invoke('["inherit",0]')).payload), [true, ""]);
  await worker.stop();
  const moved = await (await Worker.start("index.handler", { folder, descriptor: 3 })).ready();
  assert.deepEqual(JSON.parse((await moved.invoke('["inherit",3]')).payload), [false, ""]);
  await moved.stop();
});

test("an exit in a handler is no answer, unless there was one", async () => {
  await withWorker("exports.handler = async () => process.exit(3);\n", async (worker) => {
    await worker.ready();
    worker.send("1");
    assert.equal((await worker.next()).name, "end");
    assert.equal(await worker.gone(), 3);
  });
  const source = "exports.handler = (event, context) => { context.succeed('done'); process.exit(4); };\n";
  await withWorker(source, async (worker) => {
    await worker.ready();
    assert.equal((await worker.answer("1")).payload, '"done"');
    assert.equal((await worker.next()).name, "end");
    assert.equal(await worker.gone(), 4);
  });
});

const REJECTS = "exports.handler = async (wait) => { Promise.reject(new TypeError('nobody')); if (wait) await new Promise(() => {}); return 'fine'; };\n";

for (const runtime of [CLASSIC, MODERN]) {
  test(`${runtime}: errors that nobody handles`, async () => {
    const env = { AWS_EXECUTION_ENV: runtime };
    await withWorker(REJECTS, async (worker) => {
      await worker.ready();
      const { name, payload } = await worker.answer("true");
      assert.equal(name, "Error");
      const { errorType, errorMessage } = JSON.parse(payload);
      assert.equal(errorType, "Runtime.UnhandledPromiseRejection");
      assert.equal(errorMessage, "TypeError: nobody");
      assert.equal((await worker.next()).name, "end");
      assert.equal(await worker.gone(), 128);
      assert.match(worker.log, /request-1\tERROR\tUnhandled Promise Rejection \t{"errorType":"Runtime\.Unh/);
    }, { env });
    // With a result at the same time the older runtime has told it already; neither is ready again.
    await withWorker(REJECTS, async (worker) => {
      await worker.ready();
      const { name } = await worker.answer("false");
      assert.equal(name, runtime === CLASSIC ? "Reply" : "Error");
      assert.equal((await worker.next()).name, "end");
      assert.equal(await worker.gone(), 128);
    }, { env });
  });
}

test("a crash between invocations says nothing to the host", async () => {
  const source = "exports.handler = async () => { setTimeout(() => { throw new Error('idle'); }, 1); return 1; };\n";
  await withWorker(source, async (worker) => {
    await worker.ready();
    await worker.invoke("1");
    assert.equal((await worker.next()).name, "end");
    assert.equal(await worker.gone(), 129);
    assert.match(worker.log, /Uncaught Exception \t{"errorType":"Error","errorMessage":"idle"/);
  });
});

test("whatever goes wrong before Ready is an InitError", async () => {
  const cases = [
    ["throw new TypeError('t');", "TypeError", "t", 1],
    ["exports.handler = 1;", "Runtime.HandlerNotFound", "index.handler is not a function", 1],
    ["exports.handler = ;", "Runtime.UserCodeSyntaxError", "SyntaxError: Unexpected token ';'", 1],
    ["await 0; throw null;", "object", undefined, 1, "index.mjs"],
    ["setTimeout(() => { throw new RangeError('late'); }); await new Promise((r) => setTimeout(r, 60_000));", "RangeError", "late", 129, "index.mjs"],
    ["Promise.reject(new Error('floating')); await new Promise((r) => setTimeout(r, 60_000));", "Runtime.UnhandledPromiseRejection", "Error: floating", 128, "index.mjs"],
  ];
  for (const runtime of [CLASSIC, MODERN]) {
    for (const [source, type, message, status, name] of cases) {
      await withWorker(source, async (worker) => {
        await worker.expect("Hello");
        const told = JSON.parse((await worker.expect("InitError")).payload);
        if (message !== undefined) assert.deepEqual([told.errorType, told.errorMessage], [type, message]);
        assert.deepEqual(Object.keys(told).slice(0, 2), ["errorType", "errorMessage"]);
        assert.equal((await worker.next()).name, "end");
        assert.equal(await worker.gone(), status);
      }, { env: { AWS_EXECUTION_ENV: runtime }, name });
    }
  }
});

test("a module that never comes to its end is no Ready", async () => {
  await withWorker("await new Promise(() => {});", async (worker) => {
    await worker.expect("Hello");
    assert.equal((await worker.next()).name, "end");
    await worker.gone();
  }, { name: "index.mjs" });
});

test("a host that is gone is no reason to hang or to complain", async () => {
  await withWorker("exports.handler = async () => 'x'.repeat(1e6);\n", async (worker) => {
    await worker.ready();
    worker.socket.write(framed(Buffer.from([0])).subarray(0, 3));
    worker.socket.destroy();
    assert.equal(await worker.gone(), 0);
    assert.equal(worker.log, "");
  });
  // Here the worker notices when it writes.
  const busy =
    "const fs = require('node:fs');\nexports.handler = async () => {\n  console.log('called');\n" +
    "  while (!fs.existsSync('go'));\n  return 'x'.repeat(1e6);\n};\n";
  await withWorker(busy, async (worker, folder) => {
    await worker.ready();
    worker.send("1");
    await worker.logged(/called/);
    worker.socket.destroy();
    fs.writeFileSync(path.join(folder, "go"), "");
    assert.equal(await worker.gone(), 0);
    assert.match(worker.log, /^[^\n]*called\n$/);
  });
});

test("compiled code is kept where the host says, without the worker's end", async (t) => {
  const { enableCompileCache, flushCompileCache } = await import("node:module");
  if (!enableCompileCache || !flushCompileCache) return t.diagnostic("this Node cannot");
  const cache = folderOf({});
  const source =
    "const nodeModule = require('node:module');\nconst { flushCompileCache } = nodeModule;\n" +
    "nodeModule.flushCompileCache = () => { flushCompileCache(); console.log('written'); };\nexports.handler = async () => 1;\n";
  await withWorker(source, async (worker) => {
    await worker.ready();
    // It says so when it has written, which comes a second after it was ready.
    await worker.logged(/written/);
    const kept = fs.readdirSync(cache, { recursive: true }).filter((name) => fs.statSync(path.join(cache, name)).isFile());
    assert.ok(kept.length > 3, String(kept));
    assert.equal((await worker.invoke("1")).payload, "1");
  }, { env: { HOB_CACHE: cache } });
});
