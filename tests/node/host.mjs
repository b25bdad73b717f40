// Plays the host for one worker: a Unix socket is the worker's standard input. Nothing here sleeps;
// what is waited for has a limit. Only what is waited for keeps the tests going: the workers of one
// that has failed are killed at the end.
import { spawn } from "node:child_process";
import fs from "node:fs";
import net from "node:net";
import os from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";

const here = path.dirname(fileURLToPath(import.meta.url));
export const BOOTSTRAP = path.join(here, "../../src/runtime/node/bootstrap.cjs");
export const FUNCTIONS = path.join(here, "functions");

// What is done about what is left at the end.
const leftovers = [];
process.on("exit", () => leftovers.forEach((act) => act()));

// Longer than anything takes on a busy machine.
const LIMIT_MS = 20_000;

export const NAMES = ["Hello", "Ready", "Reply", "Error", "InitError", "Forked", "Unforkable", "Stream", "Piece"];

export async function within(promise, what) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no ${what} in ${LIMIT_MS} ms`)), LIMIT_MS);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

function varint(value) {
  const bytes = [];
  for (; value > 127; value = Math.floor(value / 128)) bytes.push((value % 128) | 128);
  return Buffer.from([...bytes, value]);
}

const text = (value) => Buffer.concat([varint(Buffer.byteLength(value)), Buffer.from(value)]);

export function framed(...parts) {
  const body = Buffer.concat(parts);
  const length = Buffer.alloc(4);
  length.writeUInt32LE(body.length);
  return Buffer.concat([length, body]);
}

export function invokeFrame(id, event, told = {}) {
  const { deadline = Date.now() + 60_000, requestId = `request-${id}`, arn = "arn:aws:lambda:board:1:function:f" } = told;
  const { trace = "", client = "", identity = "" } = told;
  const header = [varint(0), varint(id), varint(deadline)];
  for (const value of [requestId, arn, trace, client, identity]) header.push(text(value));
  return framed(...header, Buffer.isBuffer(event) ? event : Buffer.from(event));
}

/** The environment that a function gets. */
export function environment(folder, handler, more = {}) {
  return {
    PATH: process.env.PATH,
    TZ: ":UTC",
    LAMBDA_TASK_ROOT: folder,
    _HANDLER: handler,
    AWS_EXECUTION_ENV: "AWS_Lambda_nodejs20.x",
    AWS_LAMBDA_FUNCTION_NAME: "f",
    AWS_LAMBDA_FUNCTION_VERSION: "$LATEST",
    AWS_LAMBDA_FUNCTION_MEMORY_SIZE: "128",
    AWS_LAMBDA_LOG_GROUP_NAME: "/aws/lambda/f",
    AWS_LAMBDA_LOG_STREAM_NAME: "2026/01/01/[$LATEST]0",
    ...more,
  };
}

export class Worker {
  #buffer = Buffer.alloc(0);
  #frames = [];
  #waiters = [];
  #isOver = false;
  log = "";
  nextId = 1;

  /** Starts a worker for `handler` in `folder`. */
  static async start(handler, { folder = FUNCTIONS, env = {}, flags = [], descriptor = 0 } = {}) {
    const worker = new Worker();
    const place = fs.mkdtempSync(path.join(os.tmpdir(), "hob-node-"));
    const server = net.createServer().listen(path.join(place, "s"));
    const accepted = new Promise((resolve) => server.once("connection", resolve));
    await new Promise((resolve) => server.once("listening", resolve));
    const end = net.connect(path.join(place, "s"));
    worker.socket = await within(accepted, "connection");
    worker.process = spawn(process.execPath, [...flags, BOOTSTRAP], {
      cwd: folder,
      env: environment(folder, handler, descriptor ? { ...env, HOB_WIRE_FD: descriptor } : env),
      stdio: descriptor ? ["ignore", "pipe", "pipe", end] : [end, "pipe", "pipe"],
    });
    end.destroy();
    server.close();
    fs.rmSync(place, { recursive: true });
    worker.#listen();
    return worker;
  }

  #listen() {
    this.socket.unref().on("data", (data) => this.#take(data));
    this.socket.on("error", () => {});
    this.socket.on("close", () => this.#finish());
    for (const stream of [this.process.stdout, this.process.stderr]) {
      stream.setEncoding("utf8").on("data", (data) => (this.log += data));
      stream.unref();
    }
    this.process.unref();
    leftovers.push(() => this.process.kill("SIGKILL"));
    this.exited = new Promise((resolve) => {
      this.process.on("close", (status, signal) => resolve(signal ?? status));
    });
  }

  #take(data) {
    this.#buffer = Buffer.concat([this.#buffer, data]);
    while (this.#buffer.length >= 4) {
      const end = 4 + this.#buffer.readUInt32LE(0);
      if (this.#buffer.length < end) return;
      const body = this.#buffer.subarray(4, end);
      this.#buffer = this.#buffer.subarray(end);
      this.#frames.push(this.#decode(body));
      this.#wake();
    }
  }

  #decode(body) {
    const name = NAMES[body[0]];
    if (name === "Hello") return { name, protocol: body[1], size: body.length };
    let at = 1;
    let id;
    if (["Reply", "Error", "Stream", "Piece"].includes(name)) {
      id = 0;
      for (let unit = 1; ; unit *= 128) {
        id += (body[at] & 127) * unit;
        if (body[at++] < 128) break;
      }
    }
    const message = { name, id, payload: body.toString("utf8", at) };
    return name === "Piece" ? { ...message, size: body.length - at } : message;
  }

  #wake() {
    while (this.#waiters.length && (this.#frames.length || this.#isOver)) {
      this.#waiters.shift()(this.#frames.shift() ?? { name: "end" });
    }
  }

  #finish() {
    this.#isOver = true;
    this.#wake();
  }

  /** The next message. */
  async next() {
    const coming = new Promise((resolve) => this.#waiters.push(resolve));
    this.#wake();
    return within(coming, "message");
  }

  /** True if no message has come that nobody has asked for. */
  get isQuiet() {
    return this.#frames.length === 0;
  }

  async expect(name) {
    const message = await this.next();
    if (message.name !== name) {
      throw new Error(`${message.name} ${message.payload ?? ""}, not ${name}\n${this.log}`);
    }
    return message;
  }

  async ready() {
    const { protocol, size } = await this.expect("Hello");
    if (protocol !== 3 || size !== 2) throw new Error(`Hello ${protocol}`);
    await this.expect("Ready");
    return this;
  }

  send(event, told) {
    const id = this.nextId++;
    const bytes = typeof event === "string" || Buffer.isBuffer(event) ? event : JSON.stringify(event);
    this.socket.write(invokeFrame(id, bytes, told));
    return id;
  }

  /** Sends an event, and returns the answer once the worker is ready again. */
  async invoke(event, told) {
    const answer = await this.answer(event, told);
    await this.expect("Ready");
    return answer;
  }

  /** The next message that is an answer or an end: a reply in pieces is put together. */
  async whole() {
    let message = await this.next();
    if (message.name !== "Stream") return message;
    const { id } = message;
    const contentType = message.payload || "application/octet-stream";
    let payload = "";
    for (;;) {
      message = await this.next();
      if (message.id !== id || message.size > 16_384) throw new Error(`${message.name} ${message.id}`);
      if (message.name === "Piece" || message.name === "Reply") payload += message.payload;
      if (message.name !== "Piece") break;
    }
    return message.name === "Reply" ? { ...message, payload, contentType } : { ...message, begun: payload, contentType };
  }

  async answer(event, told) {
    const id = this.send(event, told);
    const answer = await this.whole();
    if (!["Reply", "Error"].includes(answer.name) || answer.id !== id) {
      throw new Error(`${answer.name} ${answer.id} ${answer.payload ?? ""}\n${this.log}`);
    }
    return answer;
  }

  /** Waits until the log has what is looked for. */
  async logged(pattern) {
    const wait = async () => {
      while (!pattern.test(this.log)) {
        await new Promise((resolve) => {
          this.process.stdout.once("data", resolve);
          this.process.stderr.once("data", resolve);
        });
      }
      return pattern.exec(this.log);
    };
    return within(wait(), `${pattern} in the log:\n${this.log}`);
  }

  async gone() {
    return within(this.exited, "exit");
  }

  /** Ends the stream, and says how the process ended. */
  async stop() {
    this.socket.end();
    return this.gone();
  }
}

/** A folder with these files. */
export function folderOf(files) {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "hob-function-"));
  leftovers.push(() => fs.rmSync(folder, { recursive: true, force: true }));
  for (const [name, content] of Object.entries(files)) {
    const file = path.join(folder, name);
    fs.mkdirSync(path.dirname(file), { recursive: true });
    fs.writeFileSync(file, content);
  }
  return folder;
}
