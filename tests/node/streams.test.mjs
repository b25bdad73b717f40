// Streams as they come on the wire: when pieces leave, what holds them back, what ends them.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import test from "node:test";
import { folderOf, Worker } from "./host.mjs";

const folder = folderOf({
  "index.js": `
const fs = require("node:fs");
const { once } = require("node:events");
const gate = () => fs.promises.readFile("gate");
exports.bits = awslambda.streamifyResponse(async (event, reply) => {
  reply.setContentType("text/plain");
  reply.write("one");
  await gate();
  reply.write("two");
  if (event === "fail") throw new TypeError("halfway");
  if (event === "crash") setTimeout(() => { throw new RangeError("nobody handles it"); });
  else reply.end("end");
  await new Promise((resolve) => setTimeout(resolve, 10));
});
exports.full = awslambda.streamifyResponse(async (event, reply) => {
  let writes = 1;
  while (reply.write("x".repeat(100_000))) writes += 1;
  console.log("full");
  await gate();
  console.log(reply.writableNeedDrain ? "still full" : "has room");
  await once(reply, "drain");
  console.log("drained");
  for (; writes < 100; writes += 1) if (!reply.write("x".repeat(100_000))) await once(reply, "drain");
  if (event === "fail") {
    reply.write("rest".repeat(100_000));
    throw new TypeError("behind all of it");
  }
  reply.end();
}, { highWaterMark: 4_000_000 }); // More than the kernel keeps of what nobody reads.
exports.late = awslambda.streamifyResponse(async (event, reply) => {
  reply.write("x");
  setTimeout(() => reply.write("late"), 10);
  throw new TypeError("halfway");
});
`,
});
const gate = path.join(folder, "gate");
execFileSync("mkfifo", [gate]);

const start = async (handler) => (await Worker.start(`index.${handler}`, { folder })).ready();

test("a piece leaves when it is written", async () => {
  const worker = await start("bits");
  for (const id of [1, 2]) {
    worker.send('"end"');
    assert.deepEqual(await worker.next(), { name: "Stream", id, payload: "text/plain" });
    assert.deepEqual(await worker.next(), { name: "Piece", id, payload: "one", size: 3 });
    fs.writeFileSync(gate, "");
    assert.equal((await worker.next()).payload, "two");
    assert.equal((await worker.next()).payload, "end");
    assert.deepEqual(await worker.next(), { name: "Reply", id, payload: "" });
    await worker.expect("Ready");
  }
  await worker.stop();
});

test("errors halfway, handled and not", async () => {
  for (const [event, type, status] of [["fail", "TypeError", 0], ["crash", "RangeError", 129]]) {
    const worker = await start("bits");
    worker.send(JSON.stringify(event));
    await worker.expect("Stream");
    await worker.expect("Piece");
    fs.writeFileSync(gate, "");
    assert.equal((await worker.next()).payload, "two");
    assert.equal(JSON.parse((await worker.expect("Error")).payload).errorType, type);
    if (status === 0) {
      await worker.expect("Ready");
      await worker.stop();
    } else {
      assert.equal(await worker.gone(), status);
    }
  }
});

test("a stream is full while the host does not read, and drains when it does", async () => {
  for (const event of ["end", "fail"]) {
    const worker = await start("full");
    worker.socket.pause();
    worker.send(JSON.stringify(event));
    await worker.logged(/full/);
    fs.writeFileSync(gate, "");
    await worker.logged(/still full/);
    worker.socket.resume();
    const answer = await worker.whole();
    await worker.logged(/drained/);
    if (event === "end") {
      assert.deepEqual([answer.name, answer.payload.length], ["Reply", 1e7]);
    } else {
      assert.deepEqual([answer.name, answer.begun.length], ["Error", 1e7 + 4e5]);
    }
    await worker.expect("Ready");
    await worker.stop();
  }
});

test("what is written behind an error is dropped", async () => {
  const worker = await start("late");
  for (let n = 0; n < 2; n += 1) {
    const answer = await worker.invoke("1");
    assert.deepEqual([answer.name, answer.begun], ["Error", "x"]);
  }
  await worker.stop();
});
